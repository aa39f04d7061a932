"""Replay Uni-ViGU fixtures: a folder with a `meta.json`, of any size, that holds single forwards, schedules, and both
samplers of text, which have to agree in every token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...joint.adapters import AdapterSettings
from ...joint.experts import empty_experts
from ...joint.families import VIGU, parse_task
from ...joint.flow import network_time, schedule
from ...joint.rope import grid_rope, line_rope
from ...joint.sampling import Engine, Texts, row_states, sample_text, sample_with_text
from ...joint.text_flow import PublishedCaption, PublishedJoint, random_tokens, text_grid, text_time
from ...joint.transformer import Host, joint_forward
from ...joint.wan import empty_wan
from ..detect import wan_config
from ..expert_names import split_names
from ..safetensors_file import load_tensors
from .result import FORWARD_LIMITS, SAMPLE_LIMITS, Result, relative_error

# The fixtures' fp32 samplings do not round times, unlike the published ones on a GPU.
_EXACT = replace(VIGU, flow=replace(VIGU.flow, round_time=None))


def replay_univigu(folder: Path, device: str) -> Iterator[Result]:
    """Every case of a folder."""
    fixture = UniViGUFixture(folder, device)
    yield from fixture.constants()
    yield from fixture.forwards()
    yield from fixture.captions()
    yield from fixture.joints()


class UniViGUFixture:
    """A folder's weights and tensors."""

    def __init__(self, folder: Path, device: str):
        self.about = json.loads((folder / "meta.json").read_text())
        self.weights = load_tensors(folder / "tiny_weights.safetensors", device=device)
        self.io = load_tensors(folder / "tiny_io.safetensors", device=device)
        names, parts = split_names(self.weights, "vigu")
        shapes = {name: tuple(self.weights[key].shape) for key, name in names.items()}
        self.config = wan_config(shapes, self.about["cfg"]["num_attention_heads"])
        model = empty_wan(self.config, device)
        model.load_state_dict({name: self.weights[key] for key, name in names.items()})
        experts = empty_experts(VIGU, self.config, self.about["vocab"], device)
        experts.load_state_dict({name: self.weights[key] for key, name in parts.items()})
        self.engine = Engine(model, None, AdapterSettings.published(VIGU), Host(), experts)

    def constants(self) -> Iterator[Result]:
        """Schedules, rounded times and positions."""
        for key, reference in self.io.items():
            if key.endswith(".sigmas"):
                ours = schedule(len(reference), VIGU.flow.shift)[:-1].to(reference)
                yield _result(key, "fp32", relative_error(ours, reference), 1e-6)
            if key.endswith(".t_bf16"):
                ours = network_time(schedule(len(reference), VIGU.flow.shift)[:-1].to(reference), VIGU.flow)
                yield _result(key, "fp32", relative_error(ours, reference), 1e-6)
        head = self.config.dim // self.config.num_heads
        grid = tuple(size // patch for size, patch in zip(self.about["latent"][2:], self.config.patch_size))
        for name, rope, spread in (("rope3d", grid_rope(grid, head), lambda x: x.repeat_interleave(2, -1)),
                                   ("rope1d", line_rope(self.about["S"], head), lambda x: x.repeat(1, 2))):
            for part, ours in zip(("cos", "sin"), rope):
                reference = self.io[f"{name}.{part}"]
                yield _result(f"{name}.{part}", "fp32", relative_error(spread(ours).to(reference), reference), 1e-6)

    def forwards(self) -> Iterator[Result]:
        """Velocity and logits of every case, in float32 and under bf16 autocast.

        A masked text is a shorter one: its padding, which no other token sees, is left out, so that the logits of
        padding, which nobody reads, are not compared."""
        for dtype in ("fp32", "amp"):
            for case, settings in self.about["cases"].items():
                for part, ours in zip(("v", "logits"), self._forward(settings, dtype)):
                    reference = self.io[f"{dtype}.{case}.{part}"]
                    error = relative_error(ours, reference[:, :ours.shape[1]])
                    shown = {"fp32": "fp32", "amp": "bf16"}[dtype]
                    yield _result(f"{dtype}.{case}.{part}", shown, error, FORWARD_LIMITS[shown])

    def _forward(self, case: dict, dtype: str) -> tuple[Tensor, Tensor]:
        task = parse_task(_EXACT, "t2RC")
        x, ids, context = self.io["in.x_v"].unsqueeze(1), self.io["in.x_t"], self.io["in.cond_t"]
        if case["masked"] and case["time_t"] == 0:  # a text that is generated has no padding: the mask is all ones
            ids = ids[:, :int(self.io["in.mask"].sum())]
        if case["zero_cond"]:  # equal rows, however many, are one
            context = torch.zeros_like(context[:, :1])
        layout, _ = self.engine.bind(task, x, text_length=ids.shape[1])
        times = [x.new_full((1, 1), case[name]) for name in ("time_v", "time_t")]
        amp = torch.autocast(x.device.type, torch.bfloat16) if dtype == "amp" else nullcontext()
        with torch.inference_mode(), amp:
            out = joint_forward(self.engine.model, row_states(task, x, ids), times, context, layout=layout,
                                context_index=[[0, 0]], experts=self.engine.experts, host=self.engine.host)
        return out[layout.outputs.index(0)], out[layout.outputs.index(1)]

    def captions(self) -> Iterator[Result]:
        """The published sampler of captions: its noise, its times, and every token of every step."""
        for seed, run in self._runs("v2t_sampler."):
            generator = torch.Generator().manual_seed(seed)
            noise = random_tokens(1, self.about["S"], self.about["vocab"], generator)
            yield _tokens(f"{run}.x_init", noise, self.io[f"{run}.x_init"])
            grid = text_grid(len(self.io[f"{run}.time_t"]))
            times = torch.tensor([text_time(float(t)) for t in grid[:-1]])
            yield _result(f"{run}.time_t", "fp32", relative_error(times, self.io[f"{run}.time_t"].flatten()), 0.0)
            seen = [noise] * (len(grid) - 1)
            out = sample_text(self.engine, parse_task(_EXACT, "R2C"), self.io["in.x_v"].unsqueeze(1), noise,
                              Texts(torch.zeros_like(self.io["in.cond_t"])), PublishedCaption(grid, generator), grid,
                              callback=seen.__setitem__)
            yield _tokens(f"{run}.x_per_step", torch.stack(seen), self.io[f"{run}.x_per_step"])
            yield _tokens(f"{run}.result", out, self.io[f"{run}.result"])

    def joints(self) -> Iterator[Result]:
        """The published sampler of a video with its caption: every token, and the video's latents.

        The fixtures do not say which of their schedules these ran on; only the right one gives their tokens."""
        lengths = [len(value) for key, value in self.io.items() if key.endswith(".sigmas")]
        for seed, run in self._runs("t2vt_sampler."):
            results = [self._joint(seed, run, steps) for steps in lengths]
            yield from min(results, key=lambda found: found[-1].error)

    def _joint(self, seed: int, run: str, steps: int) -> list[Result]:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(self.io[f"{run}.x_v0"].shape, generator=generator)
        ids = random_tokens(1, self.about["S"], self.about["vocab"], generator)
        clean = torch.zeros_like(noise).unsqueeze(1)
        video, text = sample_with_text(
            self.engine, parse_task(_EXACT, "t2RC"), clean, noise.unsqueeze(1), Texts(self.io["in.cond_t"]), ids,
            PublishedJoint(steps, generator))
        return [_result(f"{run}.x_v0", "fp32", relative_error(noise, self.io[f"{run}.x_v0"]), 0.0),
                _tokens(f"{run}.x_t0", ids, self.io[f"{run}.x_t0"]),
                _tokens(f"{run}.tokens", text, self.io[f"{run}.tokens"]),
                _result(f"{run}.x_v", "fp32", relative_error(video[:, 0], self.io[f"{run}.x_v"]),
                        SAMPLE_LIMITS["fp32"])]

    def _runs(self, prefix: str) -> list[tuple[int, str]]:
        names = sorted({key.rsplit(".", 1)[0] for key in self.io if key.startswith(prefix)})
        return [(int(name.rsplit("seed", 1)[1]), name) for name in names]


def _tokens(case: str, ours: Tensor, reference: Tensor) -> Result:
    """The share of tokens that differ; none may."""
    return _result(case, "ids", float((ours != reference).float().mean()), 0.0)


def _result(case: str, dtype: str, error: float, limit: float) -> Result:
    return Result("vigu", case, dtype, error, limit)

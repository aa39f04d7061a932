"""Replay UniVidX fixtures: a folder with a `manifest.json`, of any size, that holds single forwards and samplings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...joint.adapters import AdapterSettings
from ...joint.families import get_family, parse_task
from ...joint.flow import condition_sigma, schedule
from ...joint.sampling import Engine, Texts, sample
from ...joint.streams import Family, Role, Task
from ...joint.transformer import Host, joint_forward
from ...joint.wan import WanConfig, empty_wan
from ..adapters import read_adapters
from ..safetensors_file import load_tensors
from .result import DTYPES, FORWARD_LIMITS, SAMPLE_LIMITS, Result, relative_error


def replay_unividx(folder: Path, device: str) -> Iterator[Result]:
    """Every case of a folder, family by family."""
    about = json.loads((folder / "manifest.json").read_text())
    for name in about["families"]:
        fixture = UniVidXFixture(folder, get_family(name), about, device)
        yield from fixture.constants()
        yield from fixture.forwards()
        yield from fixture.samplings()



class UniVidXFixture:
    """One family of a UniVidX fixture folder: its weights as an `Engine`, its cases as results."""

    def __init__(self, folder: Path, family: Family, manifest: dict, device: str = "cpu"):
        self.device = device
        self.family, self.keywords = family, manifest["families"][family.name]["kw"]
        c = manifest["config"]
        self.config = WanConfig(dim=c["dim"], ffn_dim=c["ffn_dim"], num_layers=c["num_layers"],
                                num_heads=c["num_heads"], in_dim=c["in_dim"], out_dim=c["out_dim"],
                                text_dim=c["text_dim"], freq_dim=c["freq_dim"], patch_size=tuple(c["patch_size"]),
                                eps=c["eps"])
        self.weights = load_tensors(folder / f"{family.name}_weights.safetensors", device=device)
        self.forward = load_tensors(folder / f"{family.name}_forward.safetensors", device=device)
        self.sample = load_tensors(folder / f"{family.name}_sample.safetensors", device=device)

    def engine(self, dtype: str) -> Engine:
        """Backbone and adapters in one dtype."""
        model = empty_wan(self.config, self.device, DTYPES[dtype])
        model.load_state_dict({k: v for k, v in self.weights.items() if not k.startswith("lora/")})
        lora = {k.removeprefix("lora/"): v for k, v in self.weights.items() if k.startswith("lora/")}
        # The fixtures fill the dead LoRA on purpose, so the loader's warnings say nothing here.
        bank = read_adapters(lora, "fixture", dtype=DTYPES[dtype], device=self.device).bank
        return Engine(model, bank, AdapterSettings.published(self.family), Host())

    def velocity(self, engine: Engine, task: Task, dtype: str) -> Tensor:
        """Our forward of a case: [M, 16, T, h, w], conditions too."""
        names = {Role.CONDITION: "in/t_condition", Role.TARGET: "in/t_target"}
        # The reference rounds time to its own dtype.
        times = [self.forward[names[role]].view(1, 1).to(DTYPES[dtype]).float() for role in task.roles]
        x = self.forward["in/latents"].unsqueeze(0).to(DTYPES[dtype])
        layout, adapters = engine.bind(task, x, all_outputs=True)
        with torch.inference_mode():
            out = joint_forward(engine.model, x.unbind(1), times, self.forward["in/context"].to(x.dtype), layout=layout,
                                context_index=[[0] * len(task.roles)], adapters=adapters, host=engine.host)
        rows = torch.empty_like(x[0])
        rows[list(layout.outputs)] = torch.cat(out)
        return rows

    def constants(self) -> Iterator[Result]:
        """The schedules for 4, 20 and 50 steps and the level at which conditions are held."""
        flow = self.family.flow
        for key, reference in self.forward.items():
            if key.startswith("const/infer_sigmas_"):
                ours = schedule(len(reference), flow.shift)[:-1].to(reference)
                yield self._result(key, "fp32", relative_error(ours, reference), 1e-6)
            if key.startswith("const/infer_timesteps_"):
                ours = 1000 * schedule(len(reference), flow.shift)[:-1].to(reference)
                yield self._result(key, "fp32", relative_error(ours, reference), 1e-6)
        held = self.forward["const/train_sigmas"][flow.condition_index]
        error = abs(condition_sigma(flow) - float(held)) / float(held)
        yield self._result("const/condition_sigma", "fp32", error, 1e-6)

    def forwards(self) -> Iterator[Result]:
        """Every single forward, in both dtypes."""
        for dtype in DTYPES:
            engine = self.engine(dtype)
            prefixes = (f"fwd{dtype.removeprefix('fp')}/", f"fwd{dtype.removeprefix('fp')}_ctx_batch1/")
            for key, reference in self.forward.items():
                if key.startswith(prefixes):
                    ours = self.velocity(engine, parse_task(self.family, key.split("/")[1]), dtype)
                    yield self._result(key, dtype, relative_error(ours, reference), FORWARD_LIMITS[dtype])

    def samplings(self) -> Iterator[Result]:
        """Every whole sampling: the input of each step and each decoded target."""
        runs = sorted({key.rsplit("/", 1)[0] for key in self.sample if key.startswith("run/")})
        engines = {dtype: self.engine(dtype) for dtype in DTYPES}
        for run in runs:
            mode, guidance, short = run.removeprefix("run/").split("_")
            dtype = {"f32": "fp32"}.get(short, short)
            error = self._sampling_error(engines[dtype], run, parse_task(self.family, mode), float(guidance[3:]), dtype)
            yield self._result(run, dtype, error, SAMPLE_LIMITS[dtype])

    def _sampling_error(self, engine: Engine, run: str, task: Task, guidance: float, dtype: str) -> float:
        if dtype == "fp32":  # un-rounded times, as the reference computes in this dtype
            task = replace(task, family=replace(self.family, flow=replace(self.family.flow, round_time=None)))
        to = DTYPES[dtype]
        noise = self.sample["in/noise_seed1"].unsqueeze(0).to(to)
        clean = torch.cat([self.sample[f"in/cond_latent_{kw}"] for kw in self.keywords]).unsqueeze(0).to(to)
        steps = self.sample[f"{run}/latents_per_step"]
        inputs: list[Tensor] = []
        both = torch.stack([self.sample["in/context_pos"], self.sample["in/context_neg"]]).to(to)
        texts = Texts(both if guidance != 1 else both[:1])
        final = sample(engine, task, clean, noise, texts, guidance=guidance, steps=len(steps),
                       callback=lambda i, x: inputs.append(x[0]))
        errors = [relative_error(torch.stack(inputs), steps)]
        for row, keyword in enumerate(self.keywords):
            colour = final[0, row, :3].float()
            if (key := f"{run}/out_{keyword}") in self.sample:
                errors.append(relative_error(colour, self.sample[key]))
            if (key := f"{run}/out_{keyword}_unit") in self.sample:
                unit = colour / (colour.norm(dim=0, keepdim=True) + 1e-6)
                errors.append(relative_error(unit, self.sample[key]))
        return max(errors)

    def _result(self, case: str, dtype: str, error: float, limit: float) -> Result:
        return Result(self.family.name, case, dtype, error, limit)

"""Uni-ViGU's numbers through ComfyUI's own WanModel and sampling: forwards to 1e-5, texts token for token."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import comfy.ops
import comfy.sample
import torch
from safetensors.torch import load_file
from torch import Tensor

from ....comfy_host.attach import attach_layers
from ....comfy_host.forward import Plan, TextStep
from ....comfy_host.text_sampling import PicturesWithText, TextOfPictures
from ....joint.experts import Experts
from ....joint.families import VIGU
from ....joint.flow import schedule
from ....joint.streams import Role
from ....joint.text_flow import PublishedCaption, PublishedJoint, random_tokens, text_grid
from ....joint.wan import WanConfig
from ....model_loaders.expert_names import split_names
from ....model_loaders.layer_files import LoadedLayers
from . import tiny

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "univigu"
FORWARD_LIMIT, SAMPLE_LIMIT = 1e-5, 1e-4


class Fixture:
    """The tiny checkpoint as a MODEL with text, and its tensors. The fixture's fp32 runs did not round times."""

    def __init__(self):
        self.about = json.loads((FIXTURE / "meta.json").read_text())
        weights = load_file(FIXTURE / "tiny_weights.safetensors")
        self.io = load_file(FIXTURE / "tiny_io.safetensors")
        names, parts = split_names(weights, "vigu")
        c = self.about["cfg"]
        sizes = {"dim": c["num_attention_heads"] * c["attention_head_dim"], "ffn_dim": c["ffn_dim"],
                 "num_heads": c["num_attention_heads"], "num_layers": c["num_layers"], "text_dim": c["text_dim"],
                 "freq_dim": c["freq_dim"]}
        family = replace(VIGU, flow=replace(VIGU.flow, round_time=None))
        experts = Experts(family, WanConfig(**sizes, in_dim=16, out_dim=16), self.about["vocab"], comfy.ops.manual_cast)
        experts.requires_grad_(False).load_state_dict({name: weights[key] for key, name in parts.items()})
        base = tiny.wan_model(state={name: weights[key] for key, name in names.items()}, family=family, **sizes)
        self.model = attach_layers(base, LoadedLayers(family, None, experts, None, None, ()), family, {})

    def sample(self, sampler, noise: Tensor, sigmas: Tensor, latent: Tensor, context: Tensor, mask=None) -> Tensor:
        """The latents that ComfyUI's sampling makes with a SAMPLER of ours."""
        text = [[context, {}]]
        return comfy.sample.sample_custom(self.model, noise, 1.0, sampler, sigmas, text, text, latent, noise_mask=mask,
                                          seed=1, disable_pbar=True)


def check_forwards():
    """Velocity and logits of every fp32 case. A masked text is a shorter one (see `model_loaders.parity.univigu`)."""
    fixture, worst = Fixture(), 0.0
    for case, settings in fixture.about["cases"].items():
        ids, context = fixture.io["in.x_t"], fixture.io["in.cond_t"]
        if settings["masked"] and settings["time_t"] == 0:
            ids = ids[:, :int(fixture.io["in.mask"].sum())]
        if settings["zero_cond"]:
            context = torch.zeros_like(context[:, :1])
        text = TextStep(ids, Role.TARGET, settings["time_t"])
        out = tiny.network(fixture.model, fixture.io["in.x_v"], torch.tensor(settings["time_v"] / 1000), context, None,
                           Plan(text=text))["out"]
        for part, ours in (("v", out), ("logits", text.logits)):
            reference = fixture.io[f"fp32.{case}.{part}"]
            tiny.within(f"{case} {part}", ours, reference[:, :ours.shape[1]], FORWARD_LIMIT)
            worst = max(worst, tiny.relative_error(ours, reference[:, :ours.shape[1]]))
    return f"{len(fixture.about['cases'])} forwards, worst {worst:.1e} (limit {FORWARD_LIMIT:g})"


def check_captions():
    """The published sampler of a caption, token for token at every step, as a SAMPLER in ComfyUI; pictures stay."""
    fixture, said = Fixture(), []
    for key in [key for key in fixture.io if key.startswith("v2t_sampler.") and key.endswith(".x_init")]:
        run, seed = key.rsplit(".", 1)[0], int(key.rsplit(".", 1)[0].rsplit("seed", 1)[1])
        generator = torch.Generator().manual_seed(seed)
        noise = random_tokens(1, fixture.about["S"], fixture.about["vocab"], generator)
        grid = text_grid(len(fixture.io[f"{run}.time_t"]))
        seen = [noise] * (len(grid) - 1)
        sampler = TextOfPictures(noise, PublishedCaption(grid, generator), grid, seen.__setitem__)
        video = fixture.io["in.x_v"]
        out = fixture.sample(sampler, torch.zeros_like(video), torch.tensor([1.0, 0.0]), video,
                             torch.zeros_like(fixture.io["in.cond_t"][:, :1]), torch.zeros_like(video[:, :1]))
        said += [tiny.equal(f"{run} steps", torch.stack(seen), fixture.io[f"{run}.x_per_step"]),
                 tiny.equal("result", sampler.ids, fixture.io[f"{run}.result"]), tiny.equal("pictures", out, video)]
    assert said, "the fixture holds no caption"
    return "; ".join(said)


def check_video_with_caption():
    """The published sampler of a video with its caption: every token, and the video's latents to 1e-4. The fixture does
    not say on which of its schedules it ran: one of them gives its tokens."""
    fixture, said = Fixture(), []
    lengths = [len(value) for key, value in fixture.io.items() if key.endswith(".sigmas")]
    for key in [key for key in fixture.io if key.startswith("t2vt_sampler.") and key.endswith(".x_v0")]:
        run, seed = key.rsplit(".", 1)[0], int(key.rsplit(".", 1)[0].rsplit("seed", 1)[1])
        found = []
        for steps in lengths:
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(fixture.io[key].shape, generator=generator)
            ids = random_tokens(1, fixture.about["S"], fixture.about["vocab"], generator)
            sampler = PicturesWithText(ids, PublishedJoint(steps, generator), lambda step, ids: None)
            out = fixture.sample(sampler, noise, schedule(steps, VIGU.flow.shift), torch.zeros_like(noise),
                                 fixture.io["in.cond_t"])
            if torch.equal(sampler.ids, fixture.io[f"{run}.tokens"]):
                found.append(tiny.within(f"{run} video", out, fixture.io[f"{run}.x_v"], SAMPLE_LIMIT))
        assert len(found) == 1, f"{run}: {len(found)} of the schedules {lengths} give its tokens"
        said += found
    assert said, "the fixture holds no video with caption"
    return "; ".join(said)

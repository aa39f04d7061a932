"""The authors' numbers through ComfyUI's own WanModel, model patcher and KSampler node."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ....comfy_host.attach import attach_layers
from ....joint.families import get_family, parse_task
from ....joint.streams import Role
from ....model_loaders.adapters import read_adapters
from ....model_loaders.layer_files import LoadedLayers
from . import tiny

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "unividx"
FORWARD_LIMIT, SAMPLE_LIMIT = 1e-5, 1e-4


class Fixture:
    """One family: its backbone in ComfyUI's classes with layers attached, its tensors, its cases."""

    def __init__(self, name: str):
        about = json.loads((FIXTURE / "manifest.json").read_text())
        self.keywords = about["families"][name]["kw"]
        c = about["config"]
        weights = load_file(FIXTURE / f"{name}_weights.safetensors")
        loaded = read_adapters({k.removeprefix("lora/"): v for k, v in weights.items() if k.startswith("lora/")}, name)
        # The fixtures' fp32 runs did not round their times.
        self.family = replace(get_family(name), flow=replace(get_family(name).flow, round_time=None))
        self.base = tiny.wan_model(state={k: v for k, v in weights.items() if not k.startswith("lora/")},
                                   **{k: c[k] for k in ("dim", "ffn_dim", "num_heads", "num_layers", "text_dim",
                                                        "freq_dim", "in_dim", "out_dim")})
        self.model = attach_layers(self.base, LoadedLayers(loaded.family, loaded.bank, None, None, loaded.rank, ()),
                                   self.family, {})
        self.forward = load_file(FIXTURE / f"{name}_forward.safetensors")
        self.sample = load_file(FIXTURE / f"{name}_sample.safetensors")

    def mask(self, mode: str, grid) -> Tensor:
        """noise_mask [M, 1, T, h, w] of a task."""
        roles = parse_task(self.family, mode).roles
        return torch.tensor([float(r is Role.TARGET) for r in roles]).view(-1, 1, 1, 1, 1).repeat(1, 1, *grid)

    def forwards(self) -> str:
        """Every single fp32 forward; targets only, since a given row's velocity is never used."""
        x, sigma = self.forward["in/latents"], self.forward["in/t_target"].flatten() / 1000
        worst, cases = 0.0, [k for k in self.forward if k.startswith(("fwd32/", "fwd32_ctx_batch1/"))]
        for case in cases:
            mask = self.mask(case.split("/")[1], x.shape[2:])
            call = tiny.network(self.model, x, sigma, self.forward["in/context"], mask)
            made = mask[:, 0, 0, 0, 0] > 0
            tiny.within(case, call["out"][made], self.forward[case][made], FORWARD_LIMIT)
            assert not call["out"][~made].any(), f"{case}: a given row has a velocity"
            worst = max(worst, tiny.relative_error(call["out"][made], self.forward[case][made]))
        return f"{len(cases)} forwards, worst {worst:.1e} (limit {FORWARD_LIMIT:g})"

    def latent(self, mode: str) -> dict:
        """The LATENT of a run: its conditions, as they lie on ComfyUI's wire (not normalised)."""
        clean = torch.cat([self.sample[f"in/cond_latent_{keyword}"] for keyword in self.keywords])
        mask = self.mask(mode, clean.shape[2:])
        return {"samples": self.base.model.process_latent_out(clean) * (1 - mask), "noise_mask": mask}

    def texts(self) -> tuple[list, list]:
        """Positive and negative CONDITIONING."""
        positive, negative = (self.sample[f"in/context_{sign}"][None] for sign in ("pos", "neg"))
        return [[positive, {}]], [[negative, {}]]

    def samplings(self) -> str:
        """Every fp32 sampling with the stock KSampler node: what the network saw at every step, and what came out."""
        runs = sorted({k.rsplit("/", 1)[0] for k in self.sample if k.startswith("run/") and "_f32" in k})
        assert runs, "the fixture holds no fp32 run"
        worst = 0.0
        for run in runs:
            mode, guidance, _ = run.removeprefix("run/").split("_")
            inputs = self.sample[f"{run}/latents_per_step"]  # [steps, M, 16, T, h, w]
            spy = tiny.Spy(self.model)
            out = tiny.ksampler(spy.model, self.latent(mode), *self.texts(), steps=len(inputs),
                                cfg=float(guidance.removeprefix("cfg")), seed=1)
            pairs = [("inputs", torch.stack([x[:inputs.shape[1]] for x in spy["x"]]), inputs)]
            for row, keyword in enumerate(self.keywords):
                colour = self.base.model.process_latent_in(out)[row, :3]
                if (key := f"{run}/out_{keyword}") in self.sample:
                    pairs.append((keyword, colour, self.sample[key]))
                if (key := f"{run}/out_{keyword}_unit") in self.sample:
                    unit = colour / (colour.norm(dim=0, keepdim=True) + 1e-6)
                    pairs.append((keyword, unit, self.sample[key]))
            assert len(pairs) > 1, f"{run} has no outputs to compare with"
            for what, ours, reference in pairs:
                tiny.within(f"{run} {what}", ours, reference, SAMPLE_LIMIT)
                worst = max(worst, tiny.relative_error(ours, reference))
        return f"{len(runs)} runs, worst {worst:.1e} (limit {SAMPLE_LIMIT:g})"


def check_forwards_intrinsic():
    """The intrinsic family's forwards by the authors' code come out of ComfyUI's WanModel, to 1e-5."""
    return Fixture("intrinsic").forwards()


def check_forwards_alpha():
    """The alpha family's forwards by the authors' code come out of ComfyUI's WanModel, to 1e-5."""
    return Fixture("alpha").forwards()


def check_samplings_intrinsic():
    """The stock KSampler (euler, simple, the shift that attach_layers sets) replays the authors' runs, to 1e-4."""
    return Fixture("intrinsic").samplings()


def check_samplings_alpha():
    """The same for the alpha family."""
    return Fixture("alpha").samplings()


def check_wrong_variants_fail():
    """The comparison can fail: with the normal adapters off, or conditions at another level, it is off by > 1e-2."""
    from ....comfy_host.attach import joint_model, with_settings

    fixture = Fixture("intrinsic")
    x, context = fixture.forward["in/latents"], fixture.forward["in/context"]
    sigma, mask = fixture.forward["in/t_target"].flatten() / 1000, fixture.mask("R2AIN", x.shape[2:])
    reference = fixture.forward["fwd32/R2AIN"][1:]
    settings = joint_model(fixture.model).settings
    off = with_settings(fixture.model, replace(settings, ffn_strength=0.0))
    said = [tiny.differs("no feed-forward adapter", tiny.network(off, x, sigma, context, mask)["out"][1:], reference,
                         1e-2)]
    said.append(tiny.differs("no mask", tiny.network(fixture.model, x, sigma, context, None)["out"][1:], reference,
                             1e-2))
    said.append(tiny.differs("another time", tiny.network(fixture.model, x, sigma * 0.9, context, mask)["out"][1:],
                             reference, 1e-2))
    return "; ".join(said)


def check_guidance_in_one_call_or_two():
    """CFG 5 with both prompts in one batch equals two calls (as ComfyUI does when memory is short), to 1e-5."""
    fixture = Fixture("intrinsic")
    task, texts = fixture.latent("R2AIN"), fixture.texts()
    together, apart = tiny.Spy(fixture.model), tiny.Spy(tiny.separate_calls(fixture.model))
    one, two = (tiny.ksampler(spy.model, task, *texts, cfg=5.0) for spy in (together, apart))
    assert [len(x) for x in together["x"]] == [8] * 4, "the two prompts did not share a call"
    assert [len(x) for x in apart["x"]] == [4] * 8, "the two prompts were not run apart"
    unguided = tiny.ksampler(fixture.model, task, *texts, cfg=1.0)
    return "; ".join((tiny.within("one call or two", one, two, 1e-5), tiny.differs("cfg", one, unguided)))

"""Stock samplers, schedulers and stages on a MODEL with layers: what is given always comes back bit by bit."""

from __future__ import annotations

import comfy.samplers
import torch
from comfy_extras import nodes_custom_sampler

import nodes

from . import tiny

SCHEDULERS = ("simple", "beta", "karras")  # one per way of making sigmas: by index, by quantile, by formula


def some_given() -> dict:
    """A LATENT with a given layer, and another one given in its first frame only."""
    latent = tiny.latent("R2AIN")
    latent["samples"][1, :, 0] = tiny.latent("A2RIN")["samples"][1, :, 0]
    latent["noise_mask"][1, :, 0] = 0
    return latent


def run_all(pairs) -> str:
    """Sample with every (sampler, scheduler); one message that names all that fail."""
    model, latent, failed = tiny.layered(), some_given(), []
    for sampler, scheduler in pairs:
        try:
            out = tiny.ksampler(model, latent, sampler=sampler, scheduler=scheduler)
            tiny.keeps_given(f"{sampler}/{scheduler}", out, latent)
        except Exception as error:  # go on, to name all of them
            failed.append(f"{sampler}/{scheduler}: {error!r}")
    assert not failed, "\n".join(failed)
    return f"{len(pairs)} combinations, given layers and frames bit-equal, all finite"


def check_every_sampler():
    """Every stock sampler under three schedulers keeps given layers and frames bit by bit, and is finite."""
    return run_all([(sampler, scheduler) for sampler in comfy.samplers.SAMPLER_NAMES for scheduler in SCHEDULERS])


def check_every_scheduler():
    """Every stock scheduler with Euler keeps given layers and frames bit by bit, and is finite."""
    return run_all([("euler", scheduler) for scheduler in comfy.samplers.SCHEDULER_NAMES])


def stages(model, latent: dict, sampler: str, seed: int, steps: int, switch: int) -> torch.Tensor:
    """Two KSamplerAdvanced nodes: the first leaves its noise, the second adds none."""
    node, texts = nodes.KSamplerAdvanced(), (tiny.text(), tiny.text(2))
    half = node.sample(model, "enable", seed, steps, 5.0, sampler, "simple", *texts, latent, 0, switch, "enable")[0]
    return node.sample(model, "disable", seed, steps, 5.0, sampler, "simple", *texts, half, switch, steps,
                       "disable")[0]["samples"]


def check_two_stages():
    """Two KSamplerAdvanced stages with one seed equal one stage to 1e-4, with what is given exact (a stock Wan model
    would take the half-noised latent for the given one). Euler and Heun, which carry nothing from step to step."""
    model, latent, said = tiny.layered(), some_given(), []
    for sampler in ("euler", "heun"):
        whole = tiny.ksampler(model, latent, steps=6, cfg=5.0, seed=3, sampler=sampler)
        for switch in (1, 3, 5):
            staged = stages(model, latent, sampler, 3, 6, switch)
            tiny.keeps_given(f"{sampler} switched at {switch}", staged, latent)
            said.append(tiny.within(f"{sampler} switched at {switch}", staged, whole, 1e-4))
    return "; ".join(said)


def check_two_stages_custom():
    """SamplerCustomAdvanced with SplitSigmas and DisableNoise keeps what is given exactly. Its second stage is told no
    seed, so given layers get other noise of sigma 0.005 there: one stage is met to 2e-2 only."""
    custom, model, latent = nodes_custom_sampler, tiny.layered(), some_given()
    guider = custom.BasicGuider.execute(model, tiny.text()).result[0]
    sampler = custom.KSamplerSelect.execute("euler").result[0]
    sigmas = custom.BasicScheduler.execute(model, "simple", 6, 1.0).result[0]
    high, low = custom.SplitSigmas.execute(sigmas, 3).result
    noise, none = custom.RandomNoise.execute(5).result[0], custom.DisableNoise.execute().result[0]
    run = custom.SamplerCustomAdvanced.execute
    whole = run(noise, guider, sampler, sigmas, latent).result[0]["samples"]
    staged = run(none, guider, sampler, low, run(noise, guider, sampler, high, latent).result[0]).result[0]["samples"]
    tiny.equal("SamplerCustomAdvanced and KSampler", whole, tiny.ksampler(model, latent, steps=6, seed=5))
    return "; ".join((tiny.keeps_given("two stages", staged, latent),
                      tiny.within("two stages", staged, whole, 2e-2)))


def check_denoise_below_one():
    """A KSampler with denoise 0.5 starts from the latent: given layers exact, generated ones near what they were."""
    model, latent = tiny.layered(), tiny.latent("R2AIN")
    start = {**latent, "samples": tiny.latent("RAI2N")["samples"] + tiny.latent("N2RAI")["samples"]}
    out = nodes.KSampler().sample(model, 1, 6, 1.0, "euler", "simple", tiny.text(), tiny.text(2), start, 0.2)[0]
    whole = tiny.ksampler(model, start, steps=6)
    near, far = (tiny.relative_error(samples, start["samples"]) for samples in (out["samples"], whole))
    assert near < far, f"denoise 0.2 moved {near:.2f}, denoise 1 {far:.2f}"
    return tiny.keeps_given("denoise 0.2", out["samples"], start) + f", moved {near:.2f} of {far:.2f}"


def check_given_noise_level():
    """The network sees every given layer at (1-s) z + s noise of the first layer, s = 0.00498, at every step; also
    with samplers that draw noise of their own, and in a second stage."""
    model, latent = tiny.layered(), tiny.latent("RA2IN")
    held = 5 * 0.001 / (1 + 4 * 0.001)
    said = []
    for name, sampler, run in (
        ("euler", "euler", None), ("dpmpp_sde", "dpmpp_sde", None), ("ddim", "ddim", None),
        ("second stage", "euler", lambda m: stages(m, latent, "euler", 1, 4, 2)),
    ):
        spy = tiny.Spy(model)
        run(spy.model) if run else tiny.ksampler(spy.model, latent, sampler=sampler)
        noise = torch.randn(latent["samples"].shape, generator=torch.manual_seed(1))
        clean = model.model.process_latent_in(latent["samples"])
        expected = ((1 - held) * clean + held * noise[:1])[:2]
        assert len(spy.calls) >= 4
        said.append(max(tiny.within(name, x[:2], expected, 1e-6) for x in spy["x"]))
    return "; ".join(said)

"""Families of which some layers are absent: rows that take no part, whatever ComfyUI does with the LATENT; streams with
a text of their own."""

from __future__ import annotations

from dataclasses import replace

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

import nodes

from ....comfy_host.attach import attach_layers, joint_model
from ....joint.families import INTRINSIC, UNITY, parse_task, vary
from ....joint.sampling import Engine, Texts, predict
from ....joint.transformer import Host
from ....joint.variants import Variant
from ....nodes.gated_lora import ALL, GatedLora
from ....nodes.joint_sampler import JointSampler
from . import samplers, tiny, windows

DEPTH, ROWS = 1, 6


def noise(clips: int = 1, grid=tiny.GRID, seed: int = 9) -> Tensor:
    """Noise of whole clips, [clips * 6, 48, T, h, w]."""
    return torch.randn(ROWS * clips, 48, *grid, generator=torch.Generator().manual_seed(seed))


def check_every_sampler():
    """Every stock sampler, and every scheduler with Euler, keeps given and absent rows bit by bit, and is finite."""
    model, latent, failed = tiny.layered(UNITY), tiny.latent("R2D", UNITY), []
    pairs = [*((sampler, "simple") for sampler in comfy.samplers.SAMPLER_NAMES),
             *(("euler", scheduler) for scheduler in comfy.samplers.SCHEDULER_NAMES)]
    for sampler, scheduler in pairs:
        try:
            tiny.keeps_given(sampler, tiny.ksampler(model, latent, sampler=sampler, scheduler=scheduler), latent)
        except Exception as error:  # go on, to name all of them
            failed.append(f"{sampler}/{scheduler}: {error!r}")
    assert not failed, "\n".join(failed)
    return f"{len(pairs)} combinations"


def check_against_the_engine():
    """One look of the network at R2F, D2R and t2RK equals the joint engine on the same modules, to 1e-6; in the paper's
    variant, with all layers and times of their own, too."""
    said = []
    wide = vary(UNITY, Variant(together="all", condition_time="own", modulation="per_stream"))
    for family, names in ((UNITY, ("R2F", "D2R", "t2RK")), (wide, ("RDF2PKS", "R2DFPKS"))):
        model, x, sigma = tiny.layered(family), noise(), 0.7
        joint = joint_model(model)
        engine = Engine(model.model.diffusion_model, None, joint.settings, Host(), joint.experts)
        for name in names:
            task, context = parse_task(family, name), tiny.text()[0][0]
            ours = tiny.network(model, x, torch.tensor(sigma), context, tiny.row_mask(task, tiny.GRID))["out"]
            reference, _ = predict(engine, task, x.unsqueeze(0), sigma, Texts(context, joint.prompts))
            said.append(tiny.within(str(task), ours, reference[0], 1e-6))
    return "; ".join(said)


def check_absent_rows_are_not_seen():
    """What lies in absent rows changes nothing, and comes out as it was."""
    model, latent = tiny.layered(UNITY), tiny.latent("D2R", UNITY)
    other = {**latent, "samples": latent["samples"] + 3 * (latent["noise_mask"] < 0)}
    one, two = (tiny.sample_noise(model, part, noise(), cfg=5.0) for part in (latent, other))
    absent = (latent["noise_mask"] < 0).expand_as(one)
    return "; ".join((tiny.equal("present rows", one[~absent], two[~absent]),
                      tiny.equal("zeros", one[absent], torch.zeros_like(one[absent])),
                      tiny.equal("what lay there", two[absent], other["samples"][absent])))


def check_memory_is_for_present_rows():
    """ComfyUI makes room for two layers of six, of each clip."""
    asked, model = [], tiny.layered(UNITY).clone()

    def listen(executor, model, noise_shape, *args, **kwargs):
        asked.append(noise_shape[0])
        return executor(model, noise_shape, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, "listen", listen)
    for clips in (1, 2):
        tiny.ksampler(model, tiny.join(*[tiny.latent("R2D", UNITY)] * clips))
    assert asked == [2, 4], asked
    return f"{asked} rows"


def check_two_stages():
    """Two KSamplerAdvanced stages equal one, to 1e-4, at CFG 5."""
    model, latent, said = tiny.layered(UNITY), tiny.latent("R2S", UNITY), []
    whole = tiny.ksampler(model, latent, steps=6, cfg=5.0, seed=3)
    for switch in (1, 3, 5):
        staged = samplers.stages(model, latent, "euler", 3, 6, switch)
        tiny.keeps_given(f"switched at {switch}", staged, latent)
        said.append(tiny.within(f"switched at {switch}", staged, whole, 1e-4))
    return "; ".join(said)


def check_clips_of_different_tasks():
    """Clips of which other layers are absent share a batch, with one call for both prompts or two: each as alone."""
    model, both, said = tiny.layered(UNITY), noise(3), []
    clips = [tiny.latent(task, UNITY, seed=n) for n, task in enumerate(("R2D", "F2R", "t2RP"))]
    alone = torch.cat([tiny.sample_noise(model, clip, part, cfg=5.0) for clip, part in zip(clips, both.chunk(3))])
    for name, m in (("one call", model), ("two calls", tiny.separate_calls(model))):
        joined = tiny.sample_noise(m, tiny.join(*clips), both, cfg=5.0)
        tiny.keeps_given(name, joined, tiny.join(*clips))
        said.append(tiny.within(name, joined, alone, 1e-5))
    return "; ".join(said)


def check_times():
    """Given rows are told the targets' time, as published, and are exactly clean; the paper's variant tells them 0; so
    with a mask by frame."""
    said = []
    for family, told in ((UNITY, lambda sigma: sigma), (vary(UNITY, Variant(condition_time="own")), lambda sigma: 0.0)):
        spy, latent = tiny.Spy(tiny.layered(family)), tiny.latent("R2D", family)
        latent["samples"][DEPTH, :, 0] = tiny.latent("D2R", UNITY)["samples"][DEPTH, :, 0]
        latent["noise_mask"][DEPTH, :, 0] = 0
        tiny.keeps_given("frame", tiny.ksampler(spy.model, latent, steps=2), latent)
        clean = spy.model.model.process_latent_in(latent["samples"])
        for call, sigma in zip(spy.calls, (1.0, 0.5)):
            times = call["timestep"].expand(ROWS, -1)
            assert float(times[0, 0]) == 1000 * told(sigma), times
            assert float(times[DEPTH, 0]) == 1000 * told(sigma) and float(times[DEPTH, -1]) == 1000 * sigma, times
            tiny.equal("clean rgb", call["x"][0], clean[0])
            tiny.equal("clean frame", call["x"][DEPTH, :, 0], clean[DEPTH, :, 0])
        said.append(f"{family.flow.condition_time}: {tuple(spy['timestep'][0].shape)} times")
    return "; ".join(said)


def check_own_texts():
    """A layer reads its fixed sentence, not the prompt: another sentence changes it, that of an absent layer nothing;
    prompts of other lengths are the same text repeated (1e-5); guidance steers by the prompt alone."""
    base, latent = tiny.wan_model(family=UNITY), tiny.latent("R2D", UNITY)
    own, other = tiny.prompts(UNITY), tiny.prompts(UNITY, seed=51)

    def made(texts, prompt=None, **settings):
        model = attach_layers(base, tiny.layers(UNITY), UNITY, texts)
        return tiny.sample_noise(model, latent, noise(), prompt, **settings)

    plain = made(own)
    said = [tiny.differs("its sentence", made({**own, "depth": other["depth"]}), plain),
            tiny.equal("another's", made({**own, "flow": other["flow"]}), plain)]
    twice = {name: text.repeat(1, 2, 1) for name, text in own.items()}
    said.append(tiny.within("sentences twice as long", made(twice), plain, 1e-5))
    prompt = [[tiny.text()[0][0].repeat(1, 3, 1), {}]]
    said.append(tiny.within("a prompt three times as long", made(twice, prompt), plain, 1e-5))
    same = tiny.sample_noise(attach_layers(base, tiny.layers(UNITY), UNITY, own), latent, noise(), tiny.text(),
                             tiny.text(), cfg=5.0)
    said.append(tiny.within("guidance away from itself", same, plain, 1e-4))
    long = [[torch.randn(1, 11, tiny.TEXT_DIM), {}]]
    said.append(tiny.raises(ValueError, "11 tokens", "8 tokens", "shorten", call=lambda: made(own, long)))
    lacking = {name: text for name, text in own.items() if name != "flow"}
    said.append(tiny.raises(ValueError, "flow", "CLIP", call=lambda: made(lacking)))
    return "; ".join(said)


def check_context_windows():
    """Context windows cut all rows alike: finite, given and absent rows exact, with and without FreeNoise and CFG."""
    model, latent = tiny.layered(UNITY), tiny.latent("R2D", UNITY, grid=windows.LONG)
    for schedule, freenoise, cfg in (("standard_static", True, 1.0), ("batched", False, 5.0)):
        spy = tiny.Spy(windows.windowed(model, schedule=schedule, freenoise=freenoise))
        tiny.keeps_given(schedule, tiny.ksampler(spy.model, latent, steps=2, cfg=cfg), latent)
        assert {x.shape[2] for x in spy["x"]} <= {6, 7}, {x.shape for x in spy["x"]}
    return "2 schedules"


def check_joint_sampler():
    """Strata Joint Sampler equals the stock KSampler, at the family's own 20 steps, shift 1 and cfg 1."""
    model, latent = tiny.layered(UNITY), tiny.latent("R2D", UNITY)
    node = JointSampler.execute(model, latent, 7, 0, 0.0, tiny.text())
    shown = node.ui.as_dict()["text"][0]
    assert shown == "20 steps, shift 1, cfg 1", shown
    return tiny.within(shown, node.result[0]["samples"], tiny.ksampler(model, latent, steps=20, seed=7), 1e-5)


def check_bf16_and_low_memory():
    """Own parts stored in bfloat16 are cast as they are used, near float32 (0.02), and stay where ComfyUI puts them."""
    base, latent = tiny.wan_model(family=UNITY), tiny.latent("R2D", UNITY)
    loaded = tiny.layers(UNITY)
    full = tiny.ksampler(attach_layers(base, loaded, UNITY, tiny.prompts(UNITY)), latent)
    low = replace(tiny.layers(UNITY), experts=tiny.layers(UNITY).experts.to(torch.bfloat16))
    made = tiny.ksampler(attach_layers(base, low, UNITY, tiny.prompts(UNITY)), latent)
    assert {value.dtype for value in low.experts.state_dict().values()} == {torch.bfloat16}
    return "; ".join((tiny.keeps_given("bf16", made, latent), tiny.within("float32", made, full, 0.02)))


def check_wrong_use():
    """Too many layers, none beside rgb, rgb absent, a LATENT of other channels, another family's LATENT, its backbone,
    and Gated LoRA are refused in one sentence each."""
    model, said = tiny.layered(UNITY), []
    wide = vary(UNITY, Variant(together="all"))
    for latent, words in ((tiny.latent("R2DF", wide), ("rgb, depth, flow",)),
                          ({"samples": torch.zeros(ROWS, 48, *tiny.GRID)}, ("joins rgb with one other",))):
        said.append(tiny.raises(ValueError, *words, call=lambda latent=latent: tiny.ksampler(model, latent)))
    lone = tiny.latent("R2D", UNITY)
    lone["noise_mask"][DEPTH] = -1
    said.append(tiny.raises(ValueError, "but rgb", call=lambda: tiny.ksampler(model, lone)))
    lone["noise_mask"][DEPTH], lone["noise_mask"][0] = 1, -1
    said.append(tiny.raises(ValueError, "but depth", call=lambda: tiny.ksampler(model, lone)))
    given = tiny.latent("R2D", UNITY)
    given["noise_mask"] = given["noise_mask"].clamp(max=0)
    said.append(tiny.raises(ValueError, "nothing is left to generate", call=lambda: tiny.ksampler(model, given)))
    thin = {**tiny.latent("R2D", UNITY), "samples": torch.randn(ROWS, 16, *tiny.GRID)}
    said.append(tiny.raises(ValueError, "48 channels", "wan2.2_vae", call=lambda: tiny.ksampler(model, thin)))
    intrinsic = tiny.layered(INTRINSIC)
    unity = {"samples": torch.randn(12, 48, *tiny.GRID), "noise_mask": torch.ones(12, 1, *tiny.GRID)}
    said.append(tiny.raises(ValueError, "16 channels", "wan_2.1_vae", call=lambda: tiny.ksampler(intrinsic, unity)))
    for family, other in ((UNITY, INTRINSIC), (INTRINSIC, UNITY)):
        said.append(tiny.raises(ValueError, family.backbone, call=lambda family=family, other=other: attach_layers(
            tiny.wan_model(family=other), tiny.layers(family), family, tiny.prompts(family))))
    said.append(tiny.raises(ValueError, "Gated LoRA", call=lambda: GatedLora.execute(model, ALL, 1.0, "always")))
    return " ".join(said)


def check_repeated_latent():
    """The stock RepeatLatentBatch makes two clips: both are sampled, absent rows stay absent."""
    latent = nodes.RepeatLatentBatch().repeat(tiny.latent("R2D", UNITY), 2)[0]
    out = tiny.ksampler(tiny.layered(UNITY), latent)
    tiny.differs("the second noise", out[ROWS + DEPTH], out[DEPTH])
    assert not out[latent["noise_mask"].expand_as(out) < 0].any()
    return tiny.keeps_given("two clips", out, latent)

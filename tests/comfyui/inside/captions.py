"""Strata Caption and Strata Video + Caption with tiny models: sizes, lengths, seeds, text encodings, and wrong use."""

from __future__ import annotations

import comfy.model_management
import folder_paths
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_context_windows, nodes_easycache
from torch import Tensor

import nodes

from ....comfy_host.attach import joint_model
from ....comfy_host.captions import TextJob, caption_clip
from ....comfy_host.forward import Plan, TextStep
from ....comfy_host.texts import encode_texts
from ....joint.families import UNITY, VIGU, parse_task
from ....joint.sampling import Engine, Texts, predict
from ....joint.streams import Role, TextSpec
from ....joint.transformer import Host
from ....model_loaders.text import encode_prompts
from ....nodes.caption import FEWER, FITS, PUBLISHED, SAMPLE, WINDOWS, CaptionClip
from ....nodes.joint_sampler import JointSampler
from ....nodes.load_layers import LoadLayers
from ....nodes.video_caption import GIVEN, TOGETHER, UMT5, VideoCaption
from ..tiny_text import load_tiny_umt5
from . import hosting, latents, tiny

STEPS, LENGTH = 20, 12
PROMPT = "a red ball moves slowly on the table"


def vigu(backbone: str = "wan.safetensors"):
    """Load Layers on a stock Wan 2.1 file with the tiny text half."""
    return LoadLayers.execute(nodes.UNETLoader().load_unet(backbone, "default")[0], "vigu.safetensors").result[0]


def caption(model, images: Tensor, *, seed: int = 1, steps: int = STEPS, length: int = LENGTH,
            fit: str = "cover and crop", width: int = 64, height: int = 48, max_frames: int = 9,
            long_clips: str = SAMPLE, sampler: str = FEWER, hint=None) -> tuple[str, str, str]:
    """The Strata Caption node."""
    return CaptionClip.execute(model, latents.tiny_vae(), images, seed, steps, length, fit, width, height, max_frames,
                               long_clips, sampler, hint).result


def video(model, prompt: str = PROMPT, mode: str = TOGETHER, *, size=(50, 37, 6), seed: int = 1, steps: int = 4,
          cfg: float = 2.0, encoding: str = PUBLISHED, sampler: str = FEWER) -> tuple[Tensor, str, str, str]:
    """The Strata Video + Caption node."""
    return VideoCaption.execute(model, load_tiny_umt5("umt5.safetensors"), latents.tiny_vae(), prompt, mode, *size,
                                seed, steps, cfg, LENGTH, encoding, sampler).result


class Calls(tiny.Spy):
    """Counts the looks of the network."""

    def __len__(self) -> int:
        return len(self.calls)


# --- captions -----------------------------------------------------------------------------------------------------


def check_load_layers_node():
    """Load Layers says the family and the size of its vocabulary; the latents are raw, the shift is 3."""
    base = nodes.UNETLoader().load_unet("wan.safetensors", "default")[0]
    node = LoadLayers.execute(base, "vigu.safetensors")
    shown, model = node.ui.as_dict()["text"][0], node.result[0]
    assert VIGU.title in shown and "tokens of text" in shown and "shift 3" in shown, shown
    row = torch.randn(1, 16, 2, 4, 6)
    raw, known = model.get_model_object("latent_format"), base.get_model_object("latent_format")
    return "; ".join((tiny.equal("in", raw.process_in(row), row), tiny.equal("out", raw.process_out(row), row),
                      tiny.differs("the stock MODEL", known.process_in(row), row)))


def check_sizes_and_lengths():
    """1, 2, 5, 6 and 30 frames of any size have a caption, by every way to fit and to cut: words of the vocabulary,
    as many ids as asked for, a line of trace for some steps."""
    model, said = vigu(), 0
    for frames in (1, 2, 5, 6, 30):
        for fit in FITS:
            for way in (SAMPLE, WINDOWS) if frames == 30 else (SAMPLE,):
                images = latents.clip(frames, (80, 100))
                text, ids, trace = caption(model, images, steps=5, fit=fit, long_clips=way)
                parts = 4 if way == WINDOWS else 1
                assert len(ids.split()) == LENGTH * parts, (frames, fit, ids)
                assert isinstance(text, str) and trace.count("step 0:") == trace.count("done:") == parts, trace
                said += 1
    gray = caption(model, latents.clip(5, (48, 64), channels=1), steps=5)
    assert gray[1]
    return f"{said} captions"


def check_seeds():
    """The same seed gives the same words, another one others; the published sampler likewise, with a look in every
    step, where ours has fewer. Another clip has another caption."""
    spy, images, looks = Calls(vigu()), latents.clip(5, (48, 64)), {}
    for sampler in (FEWER, PUBLISHED):
        spy.calls.clear()
        first = caption(spy.model, images, steps=100, sampler=sampler)
        looks[sampler] = len(spy)
        assert caption(spy.model, images, steps=100, sampler=sampler) == first, "not repeatable"
        assert caption(spy.model, images, steps=100, sampler=sampler, seed=2)[1] != first[1], "the seed does not count"
        other = latents.clip(5, (48, 64), seed=9)
        assert caption(spy.model, other, steps=100, sampler=sampler)[1] != first[1], "the clip does not count"
    assert looks[PUBLISHED] == 100 > looks[FEWER] + 5, looks
    assert {tuple(x.shape) for x in spy["x"]} == {(1, 16, 2, 6, 8)}, "more than one row was looked at"
    return f"{looks[FEWER]} looks against {looks[PUBLISHED]}"


def check_against_the_engine():
    """The last look at a caption is that of the joint engine: raw latents, time 0, a text of zeros, every row of the
    same logits (1e-5); a hint changes it."""
    model, seen = tiny.layered(VIGU), []
    clip = latents.clip(5, (48, 64))
    spy = tiny.Spy(model)
    done = caption_clip(spy.model, latents.tiny_vae(), clip, TextJob(steps=1, length=LENGTH, published=True))
    last = spy.calls[-1]
    assert not last["timestep"].any() and last["context"].shape == (1, 1, tiny.TEXT_DIM)
    assert not last["context"].any()
    row = latents.tiny_vae().encode(clip)
    seen.append(tiny.within("the network's latents", last["x"], row, 1e-6))
    joint = joint_model(model)
    engine = Engine(model.model.diffusion_model, None, joint.settings, Host(), joint.experts)
    ids = torch.tensor([done.ids])
    _, logits = predict(engine, parse_task(VIGU, "R2C"), row.unsqueeze(1), 0.0,
                        Texts(torch.zeros(1, 1, tiny.TEXT_DIM)), ids=ids, text_time=730.0)
    plan = Plan(text=TextStep(ids, Role.TARGET, 730.0))
    tiny.network(model, row, torch.tensor(0.0), torch.zeros(1, 1, tiny.TEXT_DIM), torch.zeros(1, 1, *row.shape[2:]),
                 plan)
    seen.append(tiny.within("logits", plan.text.logits, logits, 1e-5))
    words = caption(model, clip, hint=tiny.text())[1]
    assert words != caption(model, clip)[1], "the hint does not count"
    return "; ".join(seen)


def check_shown():
    """The text is shown while it grows, and the caption at the end."""
    said = []
    caption_clip(vigu(), latents.tiny_vae(), latents.clip(5, (48, 64)), TextJob(STEPS, LENGTH), say=said.append)
    assert len(said) > 3 and len(set(said)) == len(said), said
    return f"{len(said)} texts, the last {said[-1]!r}"


def check_nothing_is_left_behind():
    """An interrupt in the middle of a caption raises, and leaves the MODEL and the stock one as they were."""
    base = tiny.wan_model()
    picture, model = hosting.plain_video(base), tiny.layered(VIGU, base)
    images, vae, job = latents.clip(5, (48, 64)), latents.tiny_vae(), TextJob(STEPS, LENGTH)
    fresh = caption_clip(model, vae, images, job)
    heard = []

    def stop(text: str) -> None:
        heard.append(text)
        if len(heard) == 3:
            comfy.model_management.interrupt_current_processing()

    try:
        caption_clip(model, vae, images, job, say=stop)
        raise AssertionError("the caption was not interrupted")
    except comfy.model_management.InterruptProcessingException:
        pass
    assert len(heard) == 3, heard
    assert caption_clip(model, vae, images, job) == fresh, "the next caption differs"
    said = tiny.equal("stock picture", hosting.plain_video(base), picture)
    hosting.is_stock(base)
    assert base.model.latent_format.process_in(torch.ones(1, 16, 1, 2, 2)).std() > 0, "a leftover latent format"
    return said


# --- videos with captions -----------------------------------------------------------------------------------------


def check_videos():
    """Both modes, with guidance and without, both samplers, in any size and length; guidance looks twice as often; a
    seed repeats picture and words; the given words come out as the caption."""
    spy = Calls(vigu())
    plain, text, ids, trace = video(spy.model, cfg=1.0)
    assert plain.shape == (6, 37, 50, 3) and plain.min() >= 0 and plain.max() <= 1 and plain.std() > 0.01
    assert len(ids.split()) == LENGTH and "done:" in trace and isinstance(text, str)
    rows = [len(x) for x in spy["x"]]
    assert rows == [1] * 5, f"4 steps and a last look were expected: {rows}"
    spy.calls.clear()
    guided, *_ = video(spy.model)
    assert [len(x) for x in spy["x"]] == [2] * 5, "the two prompts did not share a call"
    said = [tiny.differs("guidance", guided, plain), tiny.equal("the same seed", video(spy.model)[0], guided),
            tiny.differs("another seed", video(spy.model, seed=2)[0], guided),
            tiny.within("two calls", video(tiny.separate_calls(spy.model))[0], guided, 1e-4),
            tiny.differs("published draws", video(spy.model, sampler=PUBLISHED)[0], guided)]
    given, text, ids, _ = video(spy.model, mode=GIVEN)
    assert text == PROMPT and len(ids.split()) == len(PROMPT.split()) + 1, (text, ids)
    said.append(tiny.differs("given words", given, guided))
    return "; ".join(said)


def first_logits(model, cfg: float) -> Tensor:
    """The logits that the forward left at the first look of a video with its caption."""
    found = []

    def listen(executor, *args, **kwargs):
        out = executor(*args, **kwargs)
        text = next(arg for arg in args if isinstance(arg, dict))["strata"].text
        if text.logits is not None:
            found.append(text.logits.clone())
        return out

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "listen", listen)
    video(model, cfg=cfg, sampler=PUBLISHED)
    return found[0]


def check_guidance_leaves_the_text():
    """Guidance is the pictures' alone: logits are those of the prompt's branch, with one call for both or two."""
    model = vigu()
    plain = first_logits(model, 1.0)
    return "; ".join((tiny.within("one call", first_logits(model, 2.0), plain, 1e-5),
                      tiny.within("two calls", first_logits(tiny.separate_calls(model), 2.0), plain, 1e-5)))


def check_text_encodings():
    """The published encoding of prompts equals transformers' UMT5 with one bias for all blocks and padding kept (1e-4);
    'umt5' equals the stock node; the given CLIP stays what it is; they make other videos."""
    path = folder_paths.get_full_path_or_raise("text_encoders", "umt5.safetensors")
    prompts, said = [PROMPT, "", "a (red:1.5) ball"], []
    clip = load_tiny_umt5("umt5.safetensors")
    stock = nodes.CLIPTextEncode().encode(clip, PROMPT)[0][0][0]
    ours = encode_texts(clip, prompts, VIGU.text)
    reference = encode_prompts(path, prompts, dtype=torch.float32, share_first_bias=True, zero_padding=False,
                               clean=False)
    said.append(tiny.within("as published", ours, reference, 1e-4))
    plain = encode_texts(clip, prompts, TextSpec())
    said.append(tiny.within("umt5", plain, encode_prompts(path, prompts, dtype=torch.float32, clean=False), 1e-4))
    said.append(tiny.equal("the stock node", plain[:1], stock))
    said.append(tiny.differs("as published", ours, plain, 1e-2))
    said.append(tiny.equal("the CLIP afterwards", nodes.CLIPTextEncode().encode(clip, PROMPT)[0][0][0], stock))
    long = encode_texts(clip, ["a red ball " * 400], VIGU.text)
    assert long.shape == (1, 512, 4096), long.shape
    model = vigu()
    said.append(tiny.differs("the encoding", video(model, encoding=UMT5)[0], video(model)[0]))
    return "; ".join(said)


# --- wrong use ----------------------------------------------------------------------------------------------------


def check_wrong_use():
    """Each wrong use is refused in one sentence that says what to do."""
    model, images, said = vigu(), latents.clip(5, (48, 64)), []
    latent = {"samples": torch.zeros(1, 16, 2, 6, 8)}
    said.append(tiny.raises(ValueError, "Strata Caption", "Joint Sampler", call=lambda: JointSampler.execute(
        model, latent, 1, 2, 1.0, tiny.text(dim=4096))))
    said.append(tiny.raises(ValueError, "Strata Caption", "Strata Video + Caption", call=lambda: tiny.ksampler(
        model, latent, tiny.text(dim=4096))))
    for other in (tiny.layered(), tiny.layered(UNITY)):
        said.append(tiny.raises(ValueError, "no text", "Strata Load Layers", call=lambda other=other: caption(
            other, images)))
    said.append(tiny.raises(ValueError, "Strata Load Layers", call=lambda: caption(tiny.wan_model(), images)))
    said.append(tiny.raises(ValueError, "Wan2.1-T2V-1.3B", call=lambda: vigu("wan22.safetensors")))
    broken = images.clone()
    broken[2, 3, 3, 0] = float("nan")
    said.append(tiny.raises(ValueError, "NaN", call=lambda: caption(model, broken)))
    said.append(tiny.raises(ValueError, "empty", call=lambda: caption(model, images[:0])))
    said.append(tiny.raises(ValueError, "64x48", "cropping needs", call=lambda: caption(
        model, images, fit="crop only", width=128)))
    for prompt, words in (("", ("empty text",)), ("a zebra", ("zebra", "vocabulary")),
                          ("a red ball " * 5, ("16 tokens", "12"))):
        said.append(tiny.raises(ValueError, *words, call=lambda prompt=prompt: video(model, prompt, GIVEN)))
    windowed = nodes_context_windows.WanContextWindowsManualNode.execute(
        model, 21, 8, "standard_static", 1, False, "pyramid", False, False).result[0]
    said.append(tiny.raises(ValueError, "Context windows", call=lambda: caption(windowed, images)))
    return " ".join(said)


def check_empty_prompt():
    """An empty prompt makes a video with its caption, without guidance."""
    spy = Calls(vigu())
    images, *_ = video(spy.model, "", cfg=5.0)
    assert [len(x) for x in spy["x"]] == [1] * 5, "the empty prompt was guided away from itself"
    return f"{tuple(images.shape)}"


def check_skipped_steps():
    """EasyCache and LazyCache skip looks at the network: a video with its caption is refused in one sentence where that
    happens. A caption, whose pictures do not change, is what it is without them, or refused likewise."""
    model, images, said = vigu(), latents.clip(5, (48, 64)), []
    plain = caption(model, images)
    for node in (nodes_easycache.EasyCacheNode, nodes_easycache.LazyCacheNode):
        cached = node.execute(model, 3.0, 0.0, 1.0, False).result[0]
        said.append(tiny.raises(ValueError, "EasyCache", call=lambda cached=cached: video(cached, steps=8)))
        try:
            assert caption(cached, images) == plain, f"{node.__name__} changed the caption"
            said.append("the same caption")
        except ValueError as error:
            assert "EasyCache" in str(error), error
            said.append("refused")
    return "; ".join(said)

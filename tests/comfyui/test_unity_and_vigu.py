"""Graphs of UnityVideo's layers and of Uni-ViGU's captions in a real ComfyUI, with stock loaders and samplers."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from comfyui_strata.model_loaders.model_set import ModelSet
from comfyui_strata.standalone.captions import Captioner, CaptionSettings
from comfyui_strata.tests.comfyui.conftest import BACKBONE, BACKBONE_22, TEXT_ENCODER, VAE, VAE_22
from comfyui_strata.tests.comfyui.graphs import read_pictures, read_video
from comfyui_strata.tests.comfyui.live import Comfy, Run

SIZE = {"width": 64, "height": 48}


def node(kind: str, **inputs) -> dict:
    """A node of a prompt; a dot in an input's name is written as two underscores."""
    return {"class_type": kind, "inputs": {name.replace("__", "."): value for name, value in inputs.items()}}


@pytest.fixture
def seed(request) -> int:
    """A seed of the test's own, so that no other test's results are found in the cache."""
    return zlib.crc32(request.node.nodeid.encode())


def clip_nodes(frames: int = 5) -> dict:
    """The first frames of an example's clip, 64x48."""
    return {"file": node("LoadVideo", file="room.mp4"), "parts": node("GetVideoComponents", video=["file", 0]),
            "clip": node("ImageFromBatch", image=["parts", 0], batch_index=0, length=frames)}


def unity(seed: int, generate: str = "depth", **given) -> dict:
    """A graph that makes a layer of the clip."""
    return clip_nodes() | {
        "unet": node("UNETLoader", unet_name=BACKBONE_22, weight_dtype="default"),
        "text": node("TinyUMT5Loader", clip_name=TEXT_ENCODER), "vae": node("TinyVAE22Loader", vae_name=VAE_22),
        "layers": node("StrataLoadLayers", model=["unet", 0], adapters="unity.layers.safetensors",
                       time_rounding="as published", clip=["text", 0]),
        "mask": node("StrataConditionMask", family="unity", family__generate=generate, family__length=5,
                     family__width=64, family__height=48, vae=["vae", 0],
                     **{f"family__{layer}": link for layer, link in given.items()}),
        "sampler": node("StrataJointSampler", model=["layers", 0], latent=["mask", 0], seed=seed, steps=2, cfg=0.0),
        "decode": node("StrataDecodeLayers", latent=["sampler", 0], vae=["vae", 0]),
    }


def vigu() -> dict:
    """The MODEL and VAE of Uni-ViGU's nodes."""
    return {"unet": node("UNETLoader", unet_name=BACKBONE, weight_dtype="default"),
            "vae": node("VAELoader", vae_name=VAE),
            "layers": node("StrataLoadLayers", model=["unet", 0], adapters="vigu.layers.safetensors",
                           time_rounding="as published")}


def caption(seed: int, images: list, **inputs) -> dict:
    """The Strata Caption node."""
    return node("StrataCaption", **{
        "model": ["layers", 0], "vae": ["vae", 0], "images": images, "seed": seed, "steps": 20, "length": 12,
        "fit": "cover and crop", **SIZE, "max_frames": 9, "long_clips": "sample frames evenly",
        "sampler": "exact, fewer forwards", **inputs})


def told(*links: list) -> dict:
    """Nodes that show outputs of any kind as text."""
    return {f"told {key} {number}": node("PreviewAny", source=[key, number]) for key, number in links}


def text_of(run: Run, link: list) -> str:
    """What such a node showed."""
    return run.outputs[f"told {link[0]} {link[1]}"]["text"][0]


def saved(comfy: Comfy, prompt: dict, *layers: str) -> tuple[Run, dict[str, np.ndarray]]:
    """Run a prompt and save outputs of its Decode node: pictures [F, H, W, 3] in 0..255."""
    names = comfy.object_info["StrataDecodeLayers"]["output_name"]
    run = comfy.check(prompt | {layer: node("SaveImage", images=["decode", names.index(layer)],
                                            filename_prefix=f"unity/{layer}") for layer in layers})
    return run, {layer: read_pictures([comfy.fetch(file) for file in run.files(layer)]) for layer in layers}


def test_depth_of_a_clip(comfy, seed):
    """R2D: depth in the clip's size and length, rgb as it went in; the preview shows the two layers that take part."""
    prompt = unity(seed, rgb=["clip", 0])
    prompt["sampler"]["inputs"]["steps"] = 4
    prompt["in"] = node("SaveImage", images=["clip", 0], filename_prefix="unity/in")
    run, pictures = saved(comfy, prompt, "rgb", "depth")
    given = read_pictures([comfy.fetch(file) for file in run.files("in")])
    assert np.array_equal(pictures["rgb"], given)
    assert pictures["depth"].shape == given.shape and pictures["depth"].std() > 4
    assert dict(run.texts)["mask"].startswith("R2D: given rgb; generated depth")
    assert "4 steps, shift 1, cfg 1" in dict(run.texts)["sampler"]
    sizes = [Image.open(io.BytesIO(preview)).size for preview in run.previews]
    assert any(abs(width / height / (64 / 64) - 2) < 0.1 for width, height in sizes), sizes


def test_from_layer_to_picture_and_by_a_stock_sampler(comfy, seed):
    """The depth that was made controls a new picture, by the stock KSampler."""
    prompt = unity(seed, rgb=["clip", 0]) | {
        "control": node("StrataConditionMask", family="unity", family__generate="rgb", family__length=5,
                        family__width=64, family__height=48, family__depth=["sampler", 0]),
        "words": node("CLIPTextEncode", clip=["text", 0], text="a room"),
        "stock": node("KSampler", model=["layers", 0], seed=seed, steps=2, cfg=3.0, sampler_name="euler",
                      scheduler="simple", positive=["words", 0], negative=["words", 0], latent_image=["control", 0],
                      denoise=1.0),
        "decode": node("StrataDecodeLayers", latent=["stock", 0], vae=["vae", 0]),
    }
    run, pictures = saved(comfy, prompt, "rgb")
    assert pictures["rgb"].shape[0] == 5 and pictures["rgb"].std() > 4
    assert dict(run.texts)["control"].startswith("D2R")


def test_output_of_an_absent_layer(comfy, seed):
    """A wire at the output of a layer that takes no part stops with a sentence."""
    names = comfy.object_info["StrataDecodeLayers"]["output_name"]
    prompt = unity(seed, rgb=["clip", 0])
    run = comfy.run(prompt | {"flow": node("PreviewImage", images=["decode", names.index("flow")])})
    assert run.ending == "execution_error" and "R2D" in run.error["exception_message"]
    assert "holds no flow" in run.error["exception_message"]


def test_unity_latent_into_another_model(comfy, seed):
    prompt = unity(seed, rgb=["clip", 0]) | vigu() | {
        "vae": node("TinyVAE22Loader", vae_name=VAE_22),
        "layers": node("StrataLoadLayers", model=["unet", 0], adapters="univid_intrinsic.safetensors",
                       time_rounding="as published")}
    run = comfy.run(prompt | {"end": node("PreviewAny", source=["sampler", 0])})
    assert run.ending == "execution_error"
    assert "unity" in run.error["exception_message"] and "intrinsic" in run.error["exception_message"]


def test_sentences_need_a_text_encoder(comfy, seed):
    prompt = unity(seed, rgb=["clip", 0])
    del prompt["layers"]["inputs"]["clip"]
    run = comfy.run(prompt | {"end": node("PreviewAny", source=["layers", 0])})
    assert run.ending == "execution_error" and "connect a CLIP" in run.error["exception_message"]


def test_caption_of_a_clip(comfy, seed):
    """A caption is shown while it grows and at the end, feeds a prompt, and is made once only."""
    prompt = vigu() | clip_nodes() | {
        "caption": caption(seed, ["clip", 0]), "text": node("TinyUMT5Loader", clip_name=TEXT_ENCODER),
        "words": node("CLIPTextEncode", clip=["text", 0], text=["caption", 0]),
    } | told(["caption", 0], ["caption", 1], ["caption", 2], ["words", 0])
    run = comfy.check(prompt)
    shown = [text for key, text in run.texts if key == "caption"]
    final = text_of(run, ["caption", 0])
    assert len(shown) > 3 and shown[-1] == (final or "(no text)"), shown
    assert len(text_of(run, ["caption", 1]).split()) == 12
    assert "step 0:" in text_of(run, ["caption", 2])
    assert run.messages["progress"] + run.messages["progress_state"] > 10
    assert "caption" not in comfy.check(prompt).executed


def test_list_of_clips_gives_a_list_of_captions(comfy, seed):
    """Two clips, a shot and its negative, as the stock Rebatch Images makes them of one batch, have a caption each, as
    each has alone."""
    prompt = vigu() | clip_nodes() | {
        "negative": node("ImageInvert", image=["clip", 0]),
        "both": node("ImageBatch", image1=["clip", 0], image2=["negative", 0]),
        "list": node("RebatchImages", images=["both", 0], batch_size=5), "caption": caption(seed, ["list", 0]),
        "first": caption(seed, ["clip", 0]), "second": caption(seed, ["negative", 0])}
    run = comfy.check(prompt | told(["caption", 1], ["first", 1], ["second", 1]))
    listed = run.outputs["told caption 1"]["text"]
    assert listed == [text_of(run, ["first", 1]), text_of(run, ["second", 1])] and listed[0] != listed[1]


def test_caption_is_that_of_the_command_line(comfy, seed):
    """The node and `strata caption` write the same tokens about the same pictures with the same seed."""
    models, shot = comfy.base / "models", comfy.base / "input" / "shot"
    shot.mkdir()
    frames, _ = read_video(comfy.base / "input" / "room.mp4")
    prompt, clip = vigu(), None
    for number, frame in enumerate(frames[:5]):
        Image.fromarray(frame).save(shot / f"frame{number}.png")
        prompt[f"frame {number}"] = node("LoadImage", image=f"shot/frame{number}.png")
        link = [f"frame {number}", 0]
        if clip is not None:
            prompt[f"clip {number}"] = node("ImageBatch", image1=clip, image2=link)
            link = [f"clip {number}", 0]
        clip = link
    run = comfy.check(prompt | {"caption": caption(seed, clip, steps=30)} | told(["caption", 0], ["caption", 1]))
    files = ModelSet(models / "diffusion_models" / BACKBONE, models / "model_patches" / "vigu.layers.safetensors",
                     models / "vae" / VAE, None)
    settings = CaptionSettings(steps=30, length=12, seed=seed, size=(48, 64), frames=9)
    made = Captioner(files, settings).caption(shot)
    assert " ".join(map(str, made.tokens[0])) == text_of(run, ["caption", 1])
    assert made.text == text_of(run, ["caption", 0])


def test_interrupt_in_a_caption(comfy, seed):
    """Stopped in the middle, the same prompt then runs to the caption that it has without an interrupt."""
    prompt = vigu() | clip_nodes() | {"caption": caption(seed, ["clip", 0], steps=200, sampler="as published")}
    prompt |= told(["caption", 1])
    whole = text_of(comfy.check(prompt), ["caption", 1])
    comfy.post("/free", {"free_memory": True, "unload_models": False})

    interrupts = []

    def stop(kind, data):
        # Quick steps do not report one by one.
        if kind == "progress" and 50 <= data["value"] < 150 and not interrupts:
            interrupts.append(data["value"])
            comfy.post("/interrupt", {"prompt_id": data["prompt_id"]})

    assert comfy.run(prompt, stop).ending == "execution_interrupted"
    assert text_of(comfy.check(prompt), ["caption", 1]) == whole


def test_video_with_its_caption(comfy, seed):
    """Both modes give a video and a text; the stock loader's MODEL next to it still makes its own picture."""
    prompt = vigu() | {"text": node("TinyUMT5Loader", clip_name=TEXT_ENCODER)}
    for key, mode in (("both", "video and caption together"), ("given", "video from these words")):
        prompt[key] = node("StrataVideoCaption", model=["layers", 0], clip=["text", 0], vae=["vae", 0],
                           prompt="a red ball on the table", mode=mode, **SIZE, length=5, seed=seed, steps=3, cfg=2.0,
                           caption_length=16, text_encoding="as published", sampler="exact, fewer forwards")
        prompt[f"{key} saved"] = node("SaveImage", images=[key, 0], filename_prefix=f"vigu/{key}")
    run = comfy.check(prompt | told(["both", 1], ["given", 1]))
    made = [read_pictures([comfy.fetch(file) for file in run.files(f"{key} saved")]) for key in ("both", "given")]
    assert all(part.shape == (5, 48, 64, 3) and part.std() > 4 for part in made)
    assert not np.array_equal(*made) and text_of(run, ["given", 1]) == "a red ball on the table"
    assert run.previews, "no preview while sampling"
    assert "3 steps, shift 3, cfg 2" in dict(run.texts)["both"]


def test_joint_sampler_names_the_right_node(comfy, seed):
    prompt = vigu() | {
        "empty": node("EmptyHunyuanLatentVideo", **SIZE, length=5, batch_size=1),
        "sampler": node("StrataJointSampler", model=["layers", 0], latent=["empty", 0], seed=seed, steps=2, cfg=0.0)}
    run = comfy.run(prompt | {"end": node("PreviewAny", source=["sampler", 0])})
    assert run.ending == "execution_error" and "Strata Video + Caption" in run.error["exception_message"]

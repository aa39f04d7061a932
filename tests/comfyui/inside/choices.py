"""Strata Condition Mask, Load Layers and Decode Layers where only some layers take part, with the tiny Wan 2.2 VAE."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import torch
from torch import Tensor

import nodes

from ....comfy_host.attach import joint_model
from ....comfy_host.choices import ALL_OTHERS, generate_choices
from ....comfy_host.forward import KEY
from ....joint.families import UNITY, vary
from ....joint.variants import Variant
from ....model_loaders.layer_files import save_prompts
from ....nodes.condition_mask import joined_families
from ....nodes.decode_layers import OUTPUTS
from ....nodes.joint_sampler import JointSampler
from ....nodes.load_layers import LoadLayers
from ..tiny_text import load_tiny_umt5, load_tiny_vae
from . import latents, tiny

SIZE = (37, 50)  # worked on as 64x64


def clip(frames: int = 5, seed: int = 0) -> Tensor:
    """Smooth random pictures."""
    return latents.clip(frames, SIZE, seed)


def make(generate: str, vae=None, **layers):
    """The Strata Condition Mask node of the unity family: its LATENT, task, and what it says."""
    return latents.make("unity", vae, generate=generate, **layers)


def check_tasks():
    """Every choice with what it wants connected says its task; absent rows are -1 and zero, given ones hold the VAE's
    latent, of 16-pixel cells."""
    vae, said = load_tiny_vae("vae22.safetensors"), []
    picture = {layer: clip(seed=n) for n, layer in enumerate(UNITY.layers)}
    for generate, given, task in (("depth", ("rgb",), "R2D"), ("segmentation", ("rgb",), "R2S"),
                                  ("rgb", ("skeleton",), "K2R"), ("rgb + flow", (), "t2RF"),
                                  (ALL_OTHERS, ("rgb",), "R2DFPKS"), (ALL_OTHERS, (), "t2RDFPKS"),
                                  (ALL_OTHERS, ("depth", "flow"), "DF2RPKS")):
        latent, made, about = make(generate, vae, **{layer: picture[layer] for layer in given})
        assert made == task, (generate, made)
        assert not given or "5 frames of 50x37, worked on as 5 of 64x64" in about, about
        assert latent["samples"].shape == (6, 48, 2, 4, 4), latent["samples"].shape
        for row, layer in enumerate(UNITY.layers):
            kept = set(latent["noise_mask"][row].unique().tolist())
            role = 0 if layer in given else 1 if layer in latent["strata"].present else -1
            assert kept == {role}, (generate, layer, kept)
            assert latent["samples"][row].any() == (layer in given), (generate, layer)
        said.append(task)
    assert generate_choices(UNITY)[0] == "depth" and "vigu" not in [f.name for f in joined_families()]
    return ", ".join(said)


def check_there_and_back():
    """R2D through Load Layers, the stock KSampler and Decode Layers: rgb as given, depth in the clip's true size; one
    frame, too; a region of depth that is given stays."""
    vae, model = load_tiny_vae("vae22.safetensors"), tiny.layered(UNITY)
    said = []
    for frames in (1, 5, 6):
        picture = clip(frames)
        latent, _, _ = make("depth", vae, rgb=picture)
        done = nodes.KSampler().sample(model, 1, 2, 1.0, "euler", "simple", tiny.text(), tiny.text(2), latent)[0]
        images = latents.decode(done, vae)
        assert set(images) == {"rgb", "depth"} and images["depth"].shape == (frames, *SIZE, 3), images.keys()
        assert images["depth"].std() > 0.01 and images["depth"].min() >= 0 and images["depth"].max() <= 1
        said.append(tiny.equal(f"rgb of {frames}", images["rgb"], picture))
    mask = torch.zeros(5, *SIZE)
    mask[:, :10, :10] = 1
    latent, task, _ = make("depth", vae, rgb=clip(), depth=clip(seed=3), depth_mask=mask)
    assert task == "R2D", task
    done = nodes.KSampler().sample(model, 1, 2, 1.0, "euler", "simple", tiny.text(), tiny.text(2), latent)[0]
    image = latents.decode(done, vae)["depth"]
    said.append(tiny.equal("kept depth", image[:, 32:], clip(seed=3)[:, 32:]))
    second, task, _ = make("rgb", depth=done)
    assert task == "D2R"
    said.append(tiny.equal("row of a LATENT", second["samples"][1], done["samples"][1]))
    said.append(tiny.raises(ValueError, "R2D", "flow", call=lambda: latents.decode(done, vae, ("flow",))))
    return "; ".join(said)


def check_contradictions():
    """What is connected and what is to be generated contradict each other: one sentence each."""
    vae, picture, said = load_tiny_vae("vae22.safetensors"), clip(), []
    for generate, layers, words in (
        ("depth", {}, ("depth", "connect rgb", "'rgb + depth'")),
        ("depth", {"rgb": picture, "depth": picture}, ("depth is connected and to be generated",)),
        ("depth", {"flow": picture}, ("from rgb", "flow is connected")),
        ("depth", {"rgb": picture, "flow": picture}, ("from rgb", "rgb, flow are connected")),
        ("rgb", {}, ("one of depth, flow", "'rgb + depth'")),
        ("rgb", {"rgb": picture}, ("rgb is connected and to be generated",)),
        ("rgb", {"depth": picture, "flow": picture}, ("depth, flow are connected",)),
        ("rgb + depth", {"flow": picture}, ("text alone", "flow")),
        ("rgb + depth", {"rgb": picture}, ("rgb is connected and to be generated",)),
        (ALL_OTHERS, dict.fromkeys(UNITY.layers, picture), ("nothing is left to generate",)),
        ("depth", {"rgb": picture, "flow_mask": torch.ones(5, *SIZE)}, ("'flow' has a mask but no picture",)),
    ):
        said.append(tiny.raises(ValueError, *words, call=lambda g=generate, x=layers: make(g, vae, **x)))
    other, _, _ = make("depth", latents.tiny_vae(), rgb=picture)  # a variant's latents, which the published lacks
    assert other["samples"].shape[1] == 16 and other[KEY].family.variant.latents == "wan2.1"
    said.append(tiny.raises(ValueError, "48 channels", "wan2.2_vae", call=lambda: JointSampler.execute(
        tiny.layered(UNITY), other, 1, 2, 1.0, tiny.text())))
    said.append(tiny.raises(ValueError, "wan2.2_vae", call=lambda: make("depth", None, rgb=picture)))
    wide, _, _ = make(ALL_OTHERS, vae, rgb=picture)
    said.append(tiny.raises(ValueError, "joins rgb with one other", call=lambda: JointSampler.execute(
        tiny.layered(UNITY), wide, 1, 2, 1.0, tiny.text())))
    pair, _, _ = make("depth", vae, rgb=picture)
    said.append(tiny.raises(ValueError, "unity", "intrinsic", call=lambda: JointSampler.execute(
        tiny.layered(), pair, 1, 2, 1.0, tiny.text())))
    return " ".join(said)


def check_all_other_layers():
    """A variant that joins all layers makes five of rgb."""
    model = tiny.layered(vary(UNITY, Variant(together="all")))
    vae = load_tiny_vae("vae22.safetensors")
    latent, _, _ = make(ALL_OTHERS, vae, rgb=clip())
    done = JointSampler.execute(model, latent, 1, 2, 1.0, tiny.text()).result[0]
    images = latents.decode(done, vae)
    assert set(images) == set(UNITY.layers) <= set(OUTPUTS)
    return tiny.keeps_given("five layers", done["samples"], latent)


def check_load_layers_node():
    """Load Layers on a stock Wan 2.2 5B file: without stored sentences it asks for a CLIP; one is used for what is not
    stored and only for that; a sampling runs."""
    base = nodes.UNETLoader().load_unet("wan22.safetensors", "default")[0]
    said = [tiny.raises(ValueError, "depth, flow", "CLIP", "Strata Load Layers",
                        call=lambda: LoadLayers.execute(base, "unity.safetensors"))]
    node = LoadLayers.execute(base, "unity.safetensors", clip=load_tiny_umt5("umt5.safetensors"))
    shown, joint = node.ui.as_dict()["text"][0], joint_model(node.result[0])
    assert UNITY.title in shown and "schedule shift 1" in shown, shown
    assert set(joint.prompts) == {"", *UNITY.layers[1:]}, joint.prompts.keys()
    assert {text.shape for text in joint.prompts.values()} == {(1, 512, 4096)}
    stock = nodes.CLIPTextEncode().encode(load_tiny_umt5("umt5.safetensors"), UNITY.streams[1].prompt)[0][0][0]
    said.append(tiny.equal("the stock node's embedding", joint.prompts["depth"], stock))
    latent = tiny.latent("R2D", UNITY)
    out = JointSampler.execute(node.result[0], latent, 1, 2, 1.0)
    said.append(tiny.keeps_given("prompt left open", out.result[0]["samples"], latent))

    stored = Path(folder_paths.get_folder_paths("loras")[0]) / "stored.safetensors"
    source = Path(folder_paths.get_full_path_or_raise("loras", "unity.safetensors"))
    try:
        stored.write_bytes(source.read_bytes())
        save_prompts(stored, {name: text[0] for name, text in joint.prompts.items()})
        again = joint_model(LoadLayers.execute(base, stored.name).result[0])
    finally:
        for path in stored.parent.glob("stored.*"):
            path.unlink()
    for name, text in joint.prompts.items():
        said.append(tiny.equal(f"stored '{name}'", again.prompts[name], text))
    other = nodes.UNETLoader().load_unet("wan.safetensors", "default")[0]
    said.append(tiny.raises(ValueError, "Wan2.2-TI2V-5B", "16", call=lambda: LoadLayers.execute(
        other, "unity.safetensors", clip=load_tiny_umt5("umt5.safetensors"))))
    low = nodes.UNETLoader().load_unet("wan22.safetensors", "fp8_e4m3fn")[0]
    low = LoadLayers.execute(low, "unity.safetensors", clip=load_tiny_umt5("umt5.safetensors")).result[0]
    made = tiny.ksampler(low, latent, tiny.text(dim=4096, tokens=512))
    said.append(tiny.keeps_given("fp8", made, latent))
    return "; ".join(said)

"""What `strata train` saved, in a real ComfyUI: stock loaders take the bundled files, a graph gives their layers."""

import shutil

import pytest
import torch

from comfyui_strata.imaging.files.clips import read_clip
from comfyui_strata.joint.families import INTRINSIC, parse_task
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.standalone.layers import Job, run
from comfyui_strata.tests.comfyui.conftest import PACK
from comfyui_strata.training.metrics import normal_errors, psnr
from comfyui_strata.training.shots import synthetic_example

SHOT, SEED, STEPS = PACK / "workflows" / "assets" / "shot.mp4", 23, 10


@pytest.fixture(scope="module")
def layers(comfy):
    """Albedo and normal [F, H, W, 3] of the demo's shot, by a graph of stock loaders and our nodes."""
    files = find_models("tiny", INTRINSIC)  # ComfyUI lists them where they lie
    shutil.copy(SHOT, comfy.base / "input" / "held_out.mp4")
    prompt = {
        "model": ("UNETLoader", {"unet_name": files.backbone.name, "weight_dtype": "default"}),
        "layers": ("StrataLoadLayers", {"adapters": files.adapters.name, "time_rounding": "as published",
                                        "model": ["model", 0]}),
        "vae": ("VAELoader", {"vae_name": files.vae.name}),
        "video": ("LoadVideo", {"file": "held_out.mp4"}),
        "plate": ("GetVideoComponents", {"video": ["video", 0]}),
        "mask": ("StrataConditionMask", {"family": "intrinsic", "family.width": 64, "family.height": 64,
                                         "family.length": 9, "vae": ["vae", 0], "family.rgb": ["plate", 0]}),
        "sample": ("StrataJointSampler", {"seed": 1, "steps": STEPS, "cfg": 0.0, "model": ["layers", 0],
                                          "latent": ["mask", 0]}),
        "decode": ("StrataDecodeLayers", {"latent": ["sample", 0], "vae": ["vae", 0]}),
        "albedo": ("SaveImage", {"images": ["decode", 1], "filename_prefix": "trained/albedo"}),
        "normal": ("SaveImage", {"images": ["decode", 3], "filename_prefix": "trained/normal"}),
    }
    ran = comfy.run({name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in prompt.items()})
    assert ran.ending == "execution_success", ran.error
    return {layer: torch.cat([read_clip(comfy.fetch(file)).images for file in ran.files(layer)])
            for layer in ("albedo", "normal")}


def test_the_graph_gives_what_the_command_line_gives(layers, tmp_path):
    job = Job(parse_task(INTRINSIC, "R2AIN"), {"rgb": SHOT}, tmp_path, steps=STEPS, seed=1)
    made = run(job, find_models("tiny", INTRINSIC))
    for layer, images in layers.items():
        assert images.shape == (9, 64, 64, 3)
        # ComfyUI saves 8 bits, and computes in a precision of its own choice.
        assert (images - read_clip(made[layer]).images).abs().mean() < 0.01, layer


def test_its_layers_are_those_of_the_shot(layers):
    truth = synthetic_example(INTRINSIC, SEED, 9, 64, 64).layers
    even = truth["albedo"].mean(dim=(0, 1, 2)).expand_as(truth["albedo"])
    assert psnr(layers["albedo"], truth["albedo"]) > psnr(even, truth["albedo"])
    up = torch.tensor([0.5, 1.0, 0.5]).expand_as(truth["normal"])
    forth = torch.tensor([0.5, 0.5, 1.0]).expand_as(truth["normal"])
    best = min(normal_errors(guess, truth["normal"])["mean"] for guess in (up, forth))
    assert normal_errors(layers["normal"], truth["normal"])["mean"] < 0.7 * best

"""The bundled models in a real ComfyUI: stock loaders list them, every example graph runs on them, and what comes out
of a held-out shot is that shot's."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from comfyui_strata.imaging.encodings.depth import colours_to_warmth
from comfyui_strata.imaging.files.clips import read_clip, write_clip
from comfyui_strata.joint.families import ALPHA, FAMILIES, INTRINSIC, UNITY, parse_task
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.standalone.layers import Job, run
from comfyui_strata.tests.comfyui.graphs import (
    NAMES,
    api_form,
    nodes_of,
    on_bundled,
    read_pictures,
    read_video,
    saved_files,
)
from comfyui_strata.tests.comfyui.test_workflows import SAVED, TEXTS
from comfyui_strata.training.metrics import alpha_mad, normal_errors, psnr
from comfyui_strata.training.shots import synthetic_example

SEED, SHAPE, STEPS = 23, (9, 64, 64), 10  # a shot with a person that no training saw
RATE = Fraction(8)
# The graphs' clips: of which family and which layer the held-out shot has to stand in.
CLIPS = {
    "room.mp4": (INTRINSIC, "rgb"), "person.mp4": (ALPHA, "rgb"), "person_alpha.mp4": (ALPHA, "alpha"),
    "person_fg.mp4": (ALPHA, "fg"), "new_background.mp4": (ALPHA, "bg"), "wave_depth.mp4": (UNITY, "depth"),
    "wave_pose.mp4": (UNITY, "skeleton"),
}  # fmt: skip
# Graphs on their own clips: there is no layer of the shot for the one, and flow models take no clip as small as it.
OF_ITS_OWN = ("densepose_to_video", "flow_to_video")
WITH_A_MODEL = [name for name in NAMES if nodes_of(api_form(name), "UNETLoader")]


def truth(family) -> dict[str, torch.Tensor]:
    return synthetic_example(family, SEED, *SHAPE, "close").layers


@pytest.fixture(scope="module")
def clips(comfy) -> dict[str, str]:
    """The held-out shot's layers in ComfyUI's input folder: a name for that of each of the graphs' clips."""
    shots = {family.name: truth(family) for family in (INTRINSIC, ALPHA, UNITY)}
    names = {}
    for clip, (family, layer) in CLIPS.items():
        images = shots[family.name][layer]
        if layer == "depth":
            images = colours_to_warmth(images).expand_as(images)  # gray, white near, as the graph's own clip
        path = write_clip(images, comfy.base / "input" / f"held_out_{clip}", RATE, "mp4")
        names[clip] = path.name
    return names


@pytest.fixture(scope="module")
def saved(comfy, clips):
    """What an example graph saves when it runs on the bundled models: name -> files, run once."""
    known = {}

    def of(name: str) -> dict:
        if name not in known:
            given, shape = ({}, (6, 256, 256)) if name in OF_ITS_OWN else (clips, SHAPE)
            known[name] = saved_files(comfy, comfy.check(on_bundled(api_form(name), given, *shape, STEPS)))
        return known[name]

    return of


def frames(paths) -> torch.Tensor:
    """[F, H, W, 3] in 0..1."""
    pictures = read_pictures(sorted(paths)) if paths[0].suffix == ".png" else read_video(paths[0])[0]
    return torch.from_numpy(np.ascontiguousarray(pictures[..., :3])).float() / 255


def test_stock_loaders_list_the_bundled_files(comfy):
    def choices(node, name):
        kind, *settings = comfy.object_info[node]["input"]["required"][name]
        return kind if isinstance(kind, list) else settings[0]["options"]  # as nodes of the old and the new API say it

    for family in FAMILIES.values():
        models = find_models("tiny", family)
        assert models.backbone.name in choices("UNETLoader", "unet_name")
        assert models.vae.name in choices("VAELoader", "vae_name")
        assert models.adapters.name in choices("StrataLoadLayers", "adapters")
        assert models.text_encoder.name in choices("StrataLoadWords", "encoder")


@pytest.mark.parametrize("name", WITH_A_MODEL)
def test_every_graph_runs_on_them(saved, name):
    files = saved(name)
    for layer in SAVED[name]:
        pictures = frames(files[layer])
        if name in OF_ITS_OWN:
            assert pictures.shape[:3] == (SAVED[name][layer][0], SAVED[name][layer][2], SAVED[name][layer][1]), layer
        else:
            wide = 2 * SHAPE[2] if layer == "beside" else SHAPE[2]
            assert pictures.shape == (*SHAPE[:2], wide, 3), layer
        assert pictures.std() > 0.002, f"{layer} is constant"
    for text in TEXTS.get(name, ()):
        assert files[text][0].read_text("utf-8").strip(), text


def test_the_graph_gives_what_the_command_line_gives(comfy, saved, clips, tmp_path):
    plate = comfy.base / "input" / clips["room.mp4"]
    made = run(Job(parse_task(INTRINSIC, "R2AIN"), {"rgb": plate}, tmp_path, steps=STEPS, seed=1),
               find_models("tiny", INTRINSIC))
    for layer in ("albedo", "irradiance", "normal"):
        # The graph saves video of 8 bits and half the colour, and computes in a precision of ComfyUI's choice.
        there, here = frames(saved("inverse_rendering")[layer]), read_clip(made[layer]).images
        assert (there - here).abs().mean() < 0.02, layer


def test_layers_are_those_of_the_shot(saved):
    layers, shot = saved("inverse_rendering"), truth(INTRINSIC)
    albedo, normal = frames(layers["albedo"]), frames(layers["normal"])
    even = shot["albedo"].mean(dim=(0, 1, 2)).expand_as(shot["albedo"])
    assert psnr(albedo, shot["albedo"]) > psnr(even, shot["albedo"]) + 3
    mean = shot["normal"].mean(dim=(0, 1, 2)).expand_as(shot["normal"])
    assert normal_errors(normal, shot["normal"])["mean"] < 0.5 * normal_errors(mean, shot["normal"])["mean"]


def test_the_matte_is_that_of_the_shot(saved):
    alpha, shot = frames(saved("matting")["alpha"]), truth(ALPHA)["alpha"]
    assert alpha_mad(alpha, shot) < 0.25 * alpha_mad(shot.mean().expand_as(shot), shot)


def test_the_caption_names_the_place(saved):
    facts = synthetic_example(FAMILIES["vigu"], SEED, *SHAPE, "close").exact["caption"][0]
    assert facts.place in saved("caption")["caption"][0].read_text("utf-8")

"""Every example graph of workflows/ runs in a real ComfyUI, through its API and through `comfy run` (comfy-cli).

Tiny models and small clips stand in for the real ones, under the same names. Such models are untrained, so their layers
are noise; what is tested is that the graphs are whole, that every output arrives in the right size, length and rate,
and that given layers come out as they went in.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from comfyui_strata.imaging.files.clips import read_clip
from comfyui_strata.imaging.files.read_alpha_video import read_alpha_video
from comfyui_strata.imaging.files.read_layer_exr import read_layers
from comfyui_strata.imaging.files.versions import frames_at
from comfyui_strata.model_loaders.find_comfyui import comfyui_python
from comfyui_strata.tests.comfyui.conftest import BACKBONE, BACKBONE_VIGU, ODD_NAME
from comfyui_strata.tests.comfyui.graphs import (
    NAMES,
    WORKFLOWS,
    api_form,
    given_layers,
    made_small,
    made_small_ui,
    nodes_of,
    read_pictures,
    read_video,
    saved_files,
    ui_form,
)
from comfyui_strata.tests.comfyui.live import Run

# Frames, width, height, frames a second.
ROOM, PERSON, TEXT = (6, 64, 48, 15), (6, 64, 36, 15), (5, 64, 48, 15)
SHEET = (1, 1110, 760, 0)  # four of six frames of four layers
CUT = ["rgb", "alpha", "fg", "bg"]
# What each graph saves as pictures: file name, and the clip's frames, size and rate.
SAVED = {
    "inverse_rendering": {"albedo": ROOM, "irradiance": ROOM, "normal": ROOM},
    "text_to_intrinsic": {"rgb": TEXT, "albedo": TEXT, "irradiance": TEXT, "normal": TEXT},
    "relight_edited_irradiance_ain2r": {"light": ROOM, "relit": ROOM},
    "relight_edited_irradiance_in2ra": {"relit": ROOM, "albedo": ROOM},
    "matting": {"alpha": PERSON, "fg": PERSON, "bg": PERSON},
    "replace_background_pb2rf": {"composite": PERSON, "fg": PERSON},
    "replace_background_rpf2b": {"bg": PERSON},
    "text_to_rgba": {"fg_rgba": TEXT, "rgb": TEXT},
    "rgb_to_depth": {"depth": ROOM, "depth_gray": ROOM},
    "rgb_to_flow": {"flow": ROOM, "motion": ROOM},
    "rgb_to_skeleton": {"skeleton": PERSON},
    "rgb_to_segmentation": {"segmentation": PERSON, "object_mask": PERSON},
    "rgb_to_densepose": {"densepose": PERSON, "part_mask": PERSON},
    "depth_to_video": {"rgb": (6, 64, 64, 12)},
    "skeleton_to_video": {"rgb": (6, 256, 256, 12)},
    "depth_anything_to_video": {"rgb": ROOM},
    "caption": {},
    "caption_edited_to_video": {"video": (6, 64, 48, 15), "beside": (6, 128, 48, 15)},
    "text_to_video_with_caption": {"video": (5, 64, 48, 16)},
    "relight_foreground_with_caption": {"relit": PERSON, "alpha": PERSON},
    "flow_to_video": {"rgb": (6, 256, 256, 15)},
    "segmentation_to_video": {"rgb": PERSON},
    "densepose_to_video": {"rgb": (6, 256, 256, 12)},
    "adapter_strength": {"albedo": ROOM, "irradiance": ROOM},
    "start_here": dict.fromkeys(("rgb", "albedo", "irradiance", "normal", "relit"), (5, 64, 48, 8)),
    "relight_layers": {"wipe": ROOM},
    "new_background": {"comp": PERSON},
    "small_layers_at_plate_size": {"sheet": SHEET},
    "exr_there_and_back": {},
    "alpha_video": {"person": PERSON, "comp": PERSON},
    "matting_to_exr": {},
    "day_to_night": {"night": ROOM},
    "light_of_the_new_background": {"comp": PERSON},
}
# What the graphs of the compositor's desk deliver: name of the version, the clip, and its layers.
DELIVERED = {
    "relight_layers": {"shot": (ROOM, ["rgb", "albedo", "irradiance", "normal", "residual"])},
    "new_background": {"fg": (PERSON, []), "comp": (PERSON, CUT)},
    "small_layers_at_plate_size": {"shot": (ROOM, ["rgb", "albedo", "irradiance", "normal"])},
    "exr_there_and_back": {"plate": (ROOM, ["rgb", "normal"])},
    "matting_to_exr": {"fg": (PERSON, []), "comp": (PERSON, CUT)},
    "day_to_night": {"shot": (ROOM, ["rgb", "albedo", "irradiance", "normal", "residual"])},
}
# What each graph saves as text: file name.
TEXTS = {"start_here": ["caption"], "caption": ["caption"],
         "text_to_video_with_caption": ["caption"], "rgb_to_skeleton": ["pose"]}
TASKS = {
    "inverse_rendering": ["R2AIN"], "text_to_intrinsic": ["t2RAIN"],
    "relight_edited_irradiance_ain2r": ["R2AIN", "AIN2R"], "relight_edited_irradiance_in2ra": ["R2AIN", "IN2RA"],
    "matting": ["R2PFB"], "replace_background_pb2rf": ["PB2RF"], "replace_background_rpf2b": ["RPF2B"],
    "text_to_rgba": ["t2RPFB"],
    "rgb_to_depth": ["R2D"], "rgb_to_flow": ["R2F"], "rgb_to_skeleton": ["R2K"], "rgb_to_segmentation": ["R2S"],
    "rgb_to_densepose": ["R2P"],
    "depth_to_video": ["D2R"], "skeleton_to_video": ["K2R"], "depth_anything_to_video": ["D2R"],
    "relight_foreground_with_caption": ["R2PFB", "R2AIN", "IN2RA"],
    "flow_to_video": ["F2R"], "segmentation_to_video": ["S2R"], "densepose_to_video": ["P2R"],
    "adapter_strength": ["R2AIN"], "start_here": ["t2RAIN", "AIN2R"],
    "matting_to_exr": ["R2PFB"], "day_to_night": ["R2AIN"], "light_of_the_new_background": ["R2PFB", "R2AIN"],
}


def with_given_layers_saved(prompt: dict, object_info: dict) -> tuple[dict, dict[str, str]]:
    """The prompt plus, for every layer given as pictures, a picture of what went in and of what Decode shows; and the
    two nodes' ids."""
    prompt, pairs = dict(prompt), {}
    outputs = object_info["StrataDecodeLayers"]["output_name"]
    for key, (decode, source, layer) in given_layers(prompt).items():
        of = object_info[prompt[source[0]]["class_type"]]["output"][source[1]]
        if of != "IMAGE":
            continue
        for end, link in (("in", source), ("out", [decode, outputs.index(layer)])):
            prompt[f"{key}.{end}"] = {"class_type": "SaveImage", "inputs": {
                "images": link, "filename_prefix": f"given/{key}.{end}"}}
        pairs[f"{key}.in"] = f"{key}.out"
    return prompt, pairs


def check_saved(files: dict[str, list[Path]], name: str) -> None:
    """Every layer and text that the graph saves is there, whole, and shows something."""
    for layer, (frames, width, height, fps) in SAVED[name].items():
        paths = sorted(files[layer])
        if paths[0].suffix == ".png":
            pictures = read_pictures(paths)
            assert pictures.shape[-1] == (4 if layer.endswith("rgba") else 3), layer
        else:
            assert len(paths) == 1
            pictures, rate = read_video(paths[0])
            assert rate == fps, layer
        assert pictures.shape[:3] == (frames, height, width), layer
        # Untrained layers are noise; a black or constant stand-in has no spread.
        assert pictures[..., :3].std() > 4, f"{layer} is constant"
        assert all(frame.std() > 4 for frame in pictures[..., :3]), f"a frame of {layer} is constant"
    for text in TEXTS.get(name, ()):
        assert len(files[text]) == 1 and files[text][0].read_text("utf-8").strip(), text
        if files[text][0].suffix == ".json":
            assert len(json.loads(files[text][0].read_text("utf-8"))) == PERSON[0], text


def check_delivered(comfy, run: Run, name: str) -> None:
    """Every version that the graph delivers is there, whole, with its layers in the right size, length and rate."""
    said = "\n".join(text for output in run.outputs.values() for text in output.get("text", ()))
    for file, ((frames, width, height, fps), layers) in DELIVERED.get(name, {}).items():
        place, = set(re.findall(rf"^(\S*/{file}_v\d+\S*) \[output\]: ", said, re.MULTILINE))
        path = comfy.base / "output" / place
        if path.is_file():
            clip = read_alpha_video(path)
            found, rate = {"images": clip.images, "alpha": clip.alpha[..., None]}, clip.rate
        elif any(path.glob("*.exr")):
            clip = read_layers(frames_at(path, ".exr"), display=False)
            found, rate = clip.layers, clip.rate
            assert sorted(found) == sorted(layers), file
        else:
            found, rate = {layer: read_clip(path / layer).images for layer in layers}, fps
        assert rate == fps, file
        for layer, pictures in found.items():
            assert pictures.shape[:3] == (frames, height, width), f"{file}: {layer}"
            assert pictures.isfinite().all() and pictures.std() > 0.01, f"{file}: {layer} is constant"


def skip_without_exr(comfyui: Path, name: str) -> None:
    """Not every ComfyUI has the OpenEXR library, which only the EXR nodes need."""
    if any(nodes_of(api_form(name), kind) for kind in ("StrataSaveLayersEXR", "StrataLoadLayersEXR")):
        pytest.importorskip("OpenEXR", reason="reading what the graph saves needs OpenEXR (the dev extra brings it)")
        if not has_module(comfyui, "OpenEXR"):
            pytest.skip("this ComfyUI has no OpenEXR: install it there to test the graphs that save EXR")


@cache
def has_module(comfyui: Path, module: str) -> bool:
    """Whether ComfyUI's Python can import a module."""
    found = subprocess.run([comfyui_python(comfyui), "-c", f"import {module}"], capture_output=True, check=False)
    return found.returncode == 0


def test_every_node_stands_in_a_graph(comfy):
    used = {node["class_type"] for name in NAMES for node in api_form(name).values()}
    assert not {name for name in comfy.object_info if name.startswith("Strata")} - used


def test_every_graph_has_a_picture_in_the_template_browser(comfy):
    """Where the page asks for it: NAME.jpg (frontend 1.49), small enough that a page of them loads at once."""
    assert sorted(comfy.get("/workflow_templates")[ODD_NAME]) == NAMES
    for name in NAMES:
        with urlopen(f"{comfy.url}/api/workflow_templates/{ODD_NAME}/{name}.jpg", timeout=30) as answer:
            content = answer.read()
        picture = np.asarray(Image.open(BytesIO(content)).convert("RGB"))
        assert len(content) < 25_000 and picture.shape == (232, 492, 3), name
        assert min(half.std() for half in np.split(picture, 2, axis=1)) > 10, f"{name}: half of the picture is empty"


def test_every_graph_is_expected():
    assert set(NAMES) == set(SAVED) == {path.name.removesuffix(".api.json") for path in
                                        (WORKFLOWS / "api").glob("*.json")}


def test_files_are_what_build_writes(comfy):
    """`python workflows/build.py URL` writes these files; a node that changed its inputs shows up here."""
    sys.path.insert(0, str(WORKFLOWS))
    try:
        from build import build
    finally:
        sys.path.remove(str(WORKFLOWS))
    graphs = build(comfy.object_info)
    assert sorted(graph.name for graph in graphs) == NAMES
    for graph in graphs:
        assert graph.ui() == ui_form(graph.name), f"{graph.name}.json: run workflows/build.py again"
        assert graph.api == api_form(graph.name), f"{graph.name}.api.json: run workflows/build.py again"


@pytest.mark.parametrize("name", NAMES)
def test_runs_through_the_api(comfy, comfyui, name):
    """POST /prompt: every output arrives, and every layer that was given as pictures comes out as those pictures."""
    skip_without_exr(comfyui, name)
    prompt, pairs = with_given_layers_saved(made_small(api_form(name)), comfy.object_info)
    run = comfy.check(prompt)
    check_saved(saved_files(comfy, run), name)
    check_delivered(comfy, run, name)
    for given, shown in pairs.items():
        went_in, came_out = (read_pictures([comfy.fetch(file) for file in run.files(node)]) for node in (given, shown))
        assert np.array_equal(went_in, came_out), f"{given} does not come out as it went in"
    tasks = [run.outputs[node]["text"][0] for node, inputs in nodes_of(prompt, "PreviewAny").items()
             if prompt[inputs["source"][0]]["class_type"] == "StrataConditionMask"]
    assert tasks == TASKS.get(name, [])


def test_a_layer_given_as_a_latent_keeps_its_values(comfy):
    """In IN2RA the normals of the first pass go over as a latent: both passes decode them to the same pictures."""
    prompt = made_small(api_form("relight_edited_irradiance_in2ra"))
    normal = comfy.object_info["StrataDecodeLayers"]["output_name"].index("normal")
    first, second = nodes_of(prompt, "StrataDecodeLayers")
    for key, decode in (("first", first), ("second", second)):
        prompt[key] = {"class_type": "SaveImage", "inputs": {"images": [decode, normal], "filename_prefix": f"n/{key}"}}
    run = comfy.check(prompt)
    a, b = (read_pictures([comfy.fetch(file) for file in run.files(key)]) for key in ("first", "second"))
    assert np.abs(a.astype(int) - b).max() <= 1


def test_families_on_one_backbone_share_its_model():
    """The 14B is loaded once for the layers of both its families, and the captioner's 1.3B beside it."""
    prompt = api_form("relight_foreground_with_caption")
    models = {inputs["adapters"]: prompt[inputs["model"][0]]["inputs"]["unet_name"]
              for inputs in nodes_of(prompt, "StrataLoadLayers").values()}
    assert models == {"univid_intrinsic.safetensors": BACKBONE, "univid_alpha.safetensors": BACKBONE,
                      "vigu.layers.safetensors": BACKBONE_VIGU}
    assert len(nodes_of(prompt, "UNETLoader")) == 2


# comfy-cli ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def comfy_cli(comfy, tmp_path):
    """`comfy run` on a graph: returns its JSON answer. Its settings lie in a folder of the test; nothing is tracked."""
    pytest.importorskip("comfy_cli", reason="comfy run needs comfy-cli")
    env = {**os.environ, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "DO_NOT_TRACK": "1"}
    env.pop("XDG_CONFIG_HOME", None)

    def run(graph: dict, *options: str) -> dict:
        file = tmp_path / "graph.json"
        file.write_text(json.dumps(graph), "utf-8")
        command = [sys.executable, "-m", "comfy_cli", "--skip-prompt", "--json", "run", "--workflow", str(file),
                   "--host", "127.0.0.1", "--port", str(comfy.port), "--timeout", "120", *options]
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200,
                              check=False)
        assert done.returncode == 0, f"comfy run ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout.strip().splitlines()[-1])["data"]

    return run


def without_titles(prompt: dict) -> dict:
    """Only what is computed."""
    return {key: (node["class_type"], node["inputs"]) for key, node in prompt.items()}


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_are_one_graph(comfy_cli, name):
    """comfy-cli's own converter makes the API twin of the browser's form."""
    converted = comfy_cli(ui_form(name), "--print-prompt")["prompt"]
    assert without_titles(converted) == without_titles(api_form(name))


BROWSER_FORM = ["inverse_rendering", "relight_edited_irradiance_ain2r", "text_to_rgba", "rgb_to_depth",
                "depth_anything_to_video", "caption_edited_to_video", "new_background"]


@pytest.mark.parametrize("name", BROWSER_FORM)
def test_browser_form_runs_through_comfy_cli(comfy, comfyui, comfy_cli, name):
    skip_without_exr(comfyui, name)
    done = comfy_cli(made_small_ui(ui_form(name)), "--wait")
    assert done["status"] == "completed"
    check_saved(saved_files(comfy, Run(done["prompt_id"], outputs=comfy.outputs(done["prompt_id"]))), name)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {*BROWSER_FORM, *DELIVERED}])
def test_api_form_runs_through_comfy_cli(comfy, comfy_cli, name):
    done = comfy_cli(made_small(api_form(name)), "--wait")
    assert done["status"] == "completed"
    check_saved(saved_files(comfy, Run(done["prompt_id"], outputs=comfy.outputs(done["prompt_id"]))), name)

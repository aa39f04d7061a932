"""Every example graph of workflows/ runs in a real ComfyUI, through its API and through `comfy run` (comfy-cli).

Tiny models and small clips stand in for the real ones, under the same names. Such models are untrained, so their layers
are noise; what is tested is that the graphs are whole, that every output arrives in the right size, length and rate,
and that given layers come out as they went in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from comfyui_strata.tests.comfyui.conftest import BACKBONE, BACKBONE_VIGU
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
}
# What each graph saves as text: file name.
TEXTS = {"caption": ["caption"], "text_to_video_with_caption": ["caption"], "rgb_to_skeleton": ["pose"]}
TASKS = {
    "inverse_rendering": ["R2AIN"], "text_to_intrinsic": ["t2RAIN"],
    "relight_edited_irradiance_ain2r": ["R2AIN", "AIN2R"], "relight_edited_irradiance_in2ra": ["R2AIN", "IN2RA"],
    "matting": ["R2PFB"], "replace_background_pb2rf": ["PB2RF"], "replace_background_rpf2b": ["RPF2B"],
    "text_to_rgba": ["t2RPFB"],
    "rgb_to_depth": ["R2D"], "rgb_to_flow": ["R2F"], "rgb_to_skeleton": ["R2K"], "rgb_to_segmentation": ["R2S"],
    "rgb_to_densepose": ["R2P"],
    "depth_to_video": ["D2R"], "skeleton_to_video": ["K2R"], "depth_anything_to_video": ["D2R"],
    "relight_foreground_with_caption": ["R2PFB", "R2AIN", "IN2RA"],
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
def test_runs_through_the_api(comfy, name):
    """POST /prompt: every output arrives, and every layer that was given as pictures comes out as those pictures."""
    prompt, pairs = with_given_layers_saved(made_small(api_form(name)), comfy.object_info)
    run = comfy.check(prompt)
    check_saved(saved_files(comfy, run), name)
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
                "depth_anything_to_video", "caption_edited_to_video"]


@pytest.mark.parametrize("name", BROWSER_FORM)
def test_browser_form_runs_through_comfy_cli(comfy, comfy_cli, name):
    done = comfy_cli(made_small_ui(ui_form(name)), "--wait")
    assert done["status"] == "completed"
    check_saved(saved_files(comfy, Run(done["prompt_id"], outputs=comfy.outputs(done["prompt_id"]))), name)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BROWSER_FORM])
def test_api_form_runs_through_comfy_cli(comfy, comfy_cli, name):
    done = comfy_cli(made_small(api_form(name)), "--wait")
    assert done["status"] == "completed"
    check_saved(saved_files(comfy, Run(done["prompt_id"], outputs=comfy.outputs(done["prompt_id"]))), name)

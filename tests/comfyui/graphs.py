"""The example graphs in their two forms, made small for tiny models, and readers of what they save."""

from __future__ import annotations

import json
from collections.abc import Collection, Container
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from comfyui_strata.tests.comfyui.conftest import VAE_22
from comfyui_strata.tests.comfyui.live import Run

WORKFLOWS = Path(__file__).parents[2] / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
FEW_STEPS = 2
SMALL = {
    "StrataConditionMask": {"family.width": 64, "family.height": 48, "family.length": 5},
    "StrataCaption": {"width": 64, "height": 48, "max_frames": 5, "length": 12},
    "StrataVideoCaption": {"width": 64, "height": 48, "length": 5, "caption_length": 64},
    # Noise is a person somewhere, and nearer to a single object than to none; a head or one of 63 it need not be.
    "StrataDecodeSegmentation": {"objects": 1},
    "StrataDecodeDensePose": {"part": "whole person"},
}
# What stands in for a loader, and the inputs that both have, first. Stock loaders take UMT5-XXL and the Wan 2.2 VAE in
# their one size only; Depth Anything 3 and RAFT would have to be downloaded.
STAND_INS = {"CLIPLoader": ("TinyUMT5Loader", ("clip_name",)), "VAELoader": ("TinyVAE22Loader", ("vae_name",)),
             "LoadDA3Model": ("TestDepthModel", ()), "OpticalFlowLoader": ("TestFlowModel", ())}


def api_form(name: str) -> dict:
    """The queue's form of a graph, as it lies in the repository."""
    return json.loads((WORKFLOWS / "api" / f"{name}.api.json").read_text("utf-8"))


def ui_form(name: str) -> dict:
    """The browser's form of a graph, as it lies in the repository."""
    return json.loads((WORKFLOWS / f"{name}.json").read_text("utf-8"))


def _small_inputs(kind: str, names: Container[str]) -> dict:
    """What is cut down in a node of class `kind` that has inputs `names`."""
    small = SMALL.get(kind, {}) | {"steps": FEW_STEPS}
    return {name: value for name, value in small.items() if name in names}


def _needs_stand_in(kind: str, values: Collection) -> bool:
    return kind in STAND_INS and (kind != "VAELoader" or VAE_22 in values)


def made_small(prompt: dict) -> dict:
    """The same prompt for tiny models: stand-ins for loaders that know one size only or need a download, few steps, and
    little of what is made from text alone."""
    small = {}
    for key, node in prompt.items():
        kind, inputs = node["class_type"], node["inputs"]
        given = {name for name, value in inputs.items() if not isinstance(value, list)}
        inputs = inputs | _small_inputs(kind, given)
        if _needs_stand_in(kind, inputs.values()):
            kind, kept = STAND_INS[kind]
            inputs = {name: inputs[name] for name in kept}
        small[key] = {**node, "class_type": kind, "inputs": inputs}
    return small


def made_small_ui(graph: dict) -> dict:
    """`made_small` of the browser's form."""
    graph = json.loads(json.dumps(graph))
    for node in graph["nodes"]:
        kind, values = node["type"], node["widgets_values"]
        if _needs_stand_in(kind, values):
            kind, kept = STAND_INS[kind]
            node.update(type=kind, widgets_values=values[:len(kept)], inputs=node["inputs"][:len(kept)], properties={})
        names = [slot["name"] for slot in node["inputs"] if "widget" in slot]
        given = {slot["name"] for slot in node["inputs"] if slot["link"] is None}
        if "seed" in names:
            names.insert(names.index("seed") + 1, "control_after_generate")  # a widget that is no input
        for name, value in _small_inputs(kind, given & set(names)).items():
            node["widgets_values"][names.index(name)] = value
    return graph


BUNDLED = {
    "wan2.1_t2v_14B_fp8_scaled": "strata_tiny.wan", "unity.wan": "strata_tiny_unity.wan",
    "vigu.wan": "strata_tiny_vigu.wan", "univid_intrinsic": "strata_tiny_intrinsic",
    "univid_alpha": "strata_tiny_alpha", "unity.layers": "strata_tiny_unity.layers",
    "vigu.layers": "strata_tiny_vigu.layers", "wan_2.1_vae": "strata_tiny_vae", "wan2.2_vae": "strata_tiny_vae",
    "umt5_xxl_fp8_e4m3fn_scaled": "strata_tiny_words",
}  # fmt: skip
# In words that the bundled models know.
PROMPT = ("A red ball bounces in a room with a grey ground and white walls. A warm lamp lights the scene. The camera "
          "stays still.")
EDIT = {"find": "red", "replace": "blue", "string_b": "The camera stays still."}


def on_bundled(prompt: dict, clips: dict[str, str], frames: int, height: int, width: int, steps: int) -> dict:
    """The same prompt on the bundled models, on other clips by the names of the graph's, in the size they know."""
    shape = {"family.width": width, "family.height": height, "family.length": frames, "width": width, "height": height,
             "length": frames, "max_frames": frames, "steps": steps}
    small = {}
    for key, node in prompt.items():
        kind, inputs = node["class_type"], dict(node["inputs"])
        size = shape | {"length": inputs["length"]} if kind == "StrataCaption" else shape  # of the text
        for name, value in inputs.items():
            if name in size and isinstance(value, int) and kind != "EmptyImage":
                inputs[name] = size[name]
            elif name in EDIT and not isinstance(value, list):
                inputs[name] = EDIT[name]
            elif name in ("text", "prompt") and isinstance(value, str) and value.isascii() and value:
                inputs[name] = PROMPT
            elif isinstance(value, str) and value.removesuffix(".safetensors") in BUNDLED:
                inputs[name] = BUNDLED[value.removesuffix(".safetensors")] + ".safetensors"
            elif isinstance(value, str):
                inputs[name] = clips.get(value, value)
        if kind == "CLIPLoader":
            kind, inputs = "StrataLoadWords", {"encoder": inputs["clip_name"]}
        if kind in ("LoadDA3Model", "OpticalFlowLoader"):
            kind, inputs = STAND_INS[kind][0], {}
        small[key] = {**node, "class_type": kind, "inputs": inputs}
    return small


def nodes_of(prompt: dict, kind: str) -> dict[str, dict]:
    """The inputs of every node of a class, by node id."""
    return {key: node["inputs"] for key, node in prompt.items() if node["class_type"] == kind}


def given_layers(prompt: dict) -> dict[str, tuple[str, list, str]]:
    """Of every layer that is given as pictures: the Decode node that shows it, the link that gave it, its name."""
    found = {}
    for decode, inputs in nodes_of(prompt, "StrataDecodeLayers").items():
        sampler = prompt[inputs["latent"][0]]["inputs"]
        mask = prompt[(sampler.get("latent") or sampler.get("latent_image"))[0]]["inputs"]
        for name, source in mask.items():
            if isinstance(source, list) and name.startswith("family."):
                layer = name.removeprefix("family.")
                found[f"{decode}.{layer}"] = decode, source, layer
    return found


def read_video(path: Path) -> tuple[np.ndarray, Fraction]:
    """Frames [F, H, W, 3] in 0..255 and frames a second."""
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), rate


def read_pictures(paths: list[Path]) -> np.ndarray:
    """[F, H, W, C] in 0..255."""
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def saved_files(comfy, run: Run) -> dict[str, list[Path]]:
    """What the run saved, by the name before the counter."""
    files: dict[str, list[Path]] = {}
    for file in (file for node in run.outputs for file in run.files(node)):
        if file["type"] == "output":
            files.setdefault(file["filename"].rsplit("_", 2)[0], []).append(comfy.fetch(file))
    return files

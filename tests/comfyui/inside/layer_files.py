"""The nodes that save and load layers as files: there and back, places they refuse, and what they say."""

from __future__ import annotations

import importlib.util
import json
from fractions import Fraction
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import InputImpl, Types, io
from comfy_execution.graph_utils import ExecutionBlocker

from ....imaging.colour import SPACES
from ....imaging.files.alpha_video import CODECS
from ....imaging.files.versions import frames_at
from ....nodes.alpha_video import AS_STATED, LoadAlphaVideo, SaveAlphaVideo
from ....nodes.colours import SRGB
from ....nodes.layer_exr import ALPHA_MASK, AS_STORED, COLOURS, OUTPUTS, LoadLayersExr, SaveLayersExr
from ....nodes.places import stored_path
from ....nodes.save_layers import SaveLayers
from . import latents, tiny

NODES = (SaveLayersExr, LoadLayersExr, SaveAlphaVideo, LoadAlphaVideo, SaveLayers)
GRAPH = {"hidden_inputs": {io.Hidden.prompt: {"1": {"class_type": "Ä", "inputs": {}}}, io.Hidden.unique_id: "9",
                           io.Hidden.extra_pnginfo: {"workflow": {"nodes": []}}}}
WITH_EXR = importlib.util.find_spec("OpenEXR") is not None


def save_exr(prefix: str, **layers):
    """Strata Save Layers EXR as in a graph with its first widgets."""
    return SaveLayersExr.PREPARE_CLASS_CLONE(GRAPH).execute(
        prefix, "nuke", "zip", SRGB, "one", 23.976, "01:00:00:00", **layers)


def save_video(images, codec: str, prefix: str = "clips/shot", **more):
    """Strata Save Alpha Video at 29.97."""
    return SaveAlphaVideo.PREPARE_CLASS_CLONE(GRAPH).execute(
        prefix, images, codec, "straight", 29.97, "00:00:59;28", **more)


def refused(what, error: type[Exception], say: str) -> str:
    """The one sentence that a call must be refused with."""
    try:
        what()
    except error as caught:
        assert say in str(caught) and "\n" not in str(caught), str(caught)
        return str(caught)
    raise AssertionError(f"not refused: {say}")


def check_schemas():
    """Every input and output has a tooltip, no two inputs one name, and at most eight widgets are not advanced."""
    for node in NODES:
        schema = node.GET_SCHEMA()
        assert node.GET_NODE_INFO_V1()["name"] == schema.node_id
        names = [socket.id for socket in schema.inputs]
        assert len(set(names)) == len(names), names
        assert all(socket.tooltip for socket in (*schema.inputs, *schema.outputs)), schema.node_id
        shown = [s.id for s in schema.inputs if isinstance(s, io.WidgetInput) and not s.advanced]
        assert len(shown) <= 8, shown
        help_page = Path(__file__).parents[3] / "web" / "docs" / f"{schema.node_id}.md"
        page = help_page.read_text("utf-8")
        assert all(f"**{name}**" in page for name in names if name in shown), f"{help_page.name} lacks a widget"
    assert COLOURS.keys() <= SPACES.keys(), "a space has another name in Strata Colour Space"
    assert [output.id for output in LoadLayersExr.GET_SCHEMA().outputs] == list(OUTPUTS)
    return f"{len(NODES)} nodes"


def check_exr():
    """Layers into EXR and back; without the library one sentence, and nothing left behind."""
    rgb, mask, normal = latents.clip(3), latents.clip(3, seed=1, channels=1)[..., 0], latents.clip(3, seed=2)
    layers = {"rgb": rgb, "alpha": mask, "normal": normal}
    root = Path(folder_paths.get_output_directory())
    if not WITH_EXR:
        said = refused(lambda: save_exr("exr/none", **layers), ImportError, "pip install OpenEXR")
        assert not list((root / "exr").glob("*")), "something was left"
        return said
    node = save_exr("exr/shot", **layers)
    folder, version = node.result
    assert (folder, version) == ("exr/shot_v001 [output]", 1), node.result
    assert len(frames_at(stored_path(folder), ".exr")) == 3
    out = dict(zip(OUTPUTS, LoadLayersExr.execute(folder, SRGB).result))
    said = [tiny.within("rgb", out["rgb"], rgb, 3e-4), tiny.within("normal", out["normal"], normal, 1e-6),
            tiny.equal("alpha", out[ALPHA_MASK], mask)]
    assert out["frame_rate"] == 24000 / 1001 and out["timecode"] == "01:00:00:00" and out["first_frame"] == 1001
    assert isinstance(out["albedo"], ExecutionBlocker) and "has no layer" in out["albedo"].message
    linear = dict(zip(OUTPUTS, LoadLayersExr.execute("exr/shot_v001", AS_STORED, frames=2).result))["rgb"]
    assert len(linear) == 2 and linear.mean() < rgb.mean()
    assert save_exr("exr/shot", **layers).result[1] == 2, "a version was overwritten"
    return "; ".join(said)


def check_only_connected_layers_are_read():
    """What no other node reads is not loaded; a mask alone brings its alpha."""
    if not WITH_EXR:
        return "no OpenEXR here"
    folder = save_exr("exr/part", rgb=latents.clip(2), alpha=latents.clip(2, channels=1)).result[0]
    reader = {"class_type": "Any", "inputs": {"mask": ["9", OUTPUTS.index(ALPHA_MASK)]}}
    hidden = {"hidden_inputs": {io.Hidden.prompt: {"9": {"class_type": "StrataLoadLayersEXR", "inputs": {}},
                                                   "10": reader}, io.Hidden.unique_id: "9"}}
    out = dict(zip(OUTPUTS, LoadLayersExr.PREPARE_CLASS_CLONE(hidden).execute(folder, SRGB).result))
    assert isinstance(out["rgb"], ExecutionBlocker) and out[ALPHA_MASK].shape == (2, *latents.SIZE)
    return "rgb was left out"


def check_stills():
    """16-bit PNGs that stock Load Image reads, with the graph inside; a TIFF beside them is another version."""
    import nodes

    rgb, mask = latents.clip(2), latents.clip(2, channels=1)[..., 0]
    folder, _ = SaveLayers.PREPARE_CLASS_CLONE(GRAPH).execute("stills/shot", "png", rgb=rgb, alpha=mask).result
    files = frames_at(stored_path(folder) / "rgb", ".png")
    assert [file.name for file in files] == ["shot_rgb_v001.1001.png", "shot_rgb_v001.1002.png"]
    picture = nodes.LoadImage().load_image(f"stills/shot_v001/rgb/{files[1].name} [output]")[0]
    said = tiny.within("PNG", picture, rgb[1:], 1 / 255)
    text = files[0].read_bytes()
    assert json.dumps({"nodes": []}).encode() in text, "the graph is not in the file"
    assert SaveLayers.execute("stills/shot", "tiff", rgb=rgb).result[0] == "stills/shot_v002 [output]"
    return said


def check_alpha_video():
    """Every codec there and back, with sound, rate and timecode; a source's own facts are kept."""
    images, mask = latents.clip(5), latents.clip(5, channels=1)[..., 0]
    audio = {"waveform": 0.5 * torch.sin(torch.arange(48000) / 20).expand(1, 2, -1), "sample_rate": 48000}
    said = []
    for codec, limit in zip(CODECS, (0.02, 1e-4, 0.25)):
        file = save_video(images, codec, alpha=mask, audio=audio).result[0]
        out = LoadAlphaVideo.execute(file, AS_STATED)
        loaded, alpha, sound, rate, timecode = out.result
        assert loaded.shape == images.shape and rate == 30000 / 1001 and timecode == "00:00:59;28", out.result[3:]
        assert sound["waveform"].shape[:2] == (1, 2) and abs(sound["waveform"].shape[-1] - 8008) <= 1, codec
        assert "alpha straight" in out.ui.as_dict()["text"][0]
        said += [tiny.within(codec, loaded, images, limit), tiny.within(f"{codec} alpha", alpha, mask, limit)]
        source = InputImpl.VideoFromFile(str(stored_path(file)))
        again = SaveAlphaVideo.execute("clips/again", images, "ffv1", "straight", 12.0, source=source).result[0]
        _, opaque, heard, rate, timecode = LoadAlphaVideo.execute(again, AS_STATED).result
        assert (rate, timecode) == (30000 / 1001, "00:00:59;28"), (rate, timecode)
        assert abs(heard["waveform"].shape[-1] - 8008) <= 1 and opaque.min() == 1
    made = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=Fraction(25)))
    file = SaveAlphaVideo.execute("made", images, "ffv1", "premultiplied", 12.0, source=made, alpha=mask).result[0]
    _, _, heard, rate, timecode = LoadAlphaVideo.execute(file, AS_STATED).result
    assert (rate, timecode, heard["waveform"].shape[-1]) == (25.0, "", 9600)
    assert file in LoadAlphaVideo.define_schema().inputs[0].options, "the new file is not listed"
    return "; ".join(said)


def check_places():
    """What leaves ComfyUI's folders is refused in one sentence, and makes nothing."""
    root = Path(folder_paths.get_output_directory())
    before = sorted(root.parent.rglob("*"))
    picture = latents.clip(1)
    for prefix in ("../out", "a/../../out", "/tmp/out", "a/b/../../../out"):
        refused(lambda prefix=prefix: save_video(picture, "ffv1", prefix), ValueError, "leaves ComfyUI's output")
    for prefix in ("", "  ", ".", "a/.."):
        refused(lambda prefix=prefix: save_video(picture, "ffv1", prefix), ValueError, "names no file")
    for name in ("../secret.mov", "/etc/passwd", "../../x [output]"):
        refused(lambda name=name: LoadAlphaVideo.execute(name, AS_STATED), ValueError, "leaves ComfyUI's input and")
        assert "leaves" in LoadAlphaVideo.validate_inputs(name)
    refused(lambda: LoadLayersExr.execute("nowhere", SRGB), FileNotFoundError, "lies neither in ComfyUI's input")
    refused(lambda: LoadLayersExr.execute(" ", SRGB), ValueError, "No file is named")
    assert LoadAlphaVideo.fingerprint_inputs("nowhere") is None
    assert sorted(root.parent.rglob("*")) == before, "something was made"
    return "4 places"

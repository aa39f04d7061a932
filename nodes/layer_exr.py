"""Strata Save Layers EXR and Load Layers EXR: a shot's layers in one file a frame, and back."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..imaging.compositing.composite import PREMULTIPLIED, STRAIGHT
from ..imaging.files.layer_delivery import save_exr
from ..imaging.files.layer_exr import COMPRESSIONS, SPACES, Delivery, Window, check_layers
from ..imaging.files.layer_names import DELIVERED, PRESETS
from ..imaging.files.read_layer_exr import LayerClip, read_layers
from ..imaging.files.timecode import Timecode, exact_rate
from ..imaging.files.versions import FIRST_FRAME, first_number, frames_at
from .colours import LINEAR, SRGB
from .decode_layers import connected_outputs, running_prompt
from .layer_sockets import connected_layers, layer_inputs, layer_note
from .places import fingerprint, graph_texts, output_name, output_place, stored_path
from .saying import say, steps

# Names as in Strata Colour Space, and what files are labelled with.
COLOURS = {
    SRGB: SPACES[0], LINEAR: SPACES[0], "ACEScg (AP1)": SPACES[1], "ACES2065-1 (AP0)": SPACES[2],
    "linear P3-D65": SPACES[3], "linear Rec.2020": SPACES[4],
}
ONE_PART, TWO_PARTS = "one", "colour and data"
AS_STORED = "linear, as stored"
# In this order for ever: graphs store the number of an output. New ones are appended.
ALPHA_MASK, OTHER = "alpha_mask", "other"
OUTPUTS = (*DELIVERED, ALPHA_MASK, OTHER, "frame_rate", "timecode", "first_frame", "flow_reach", "contents")


def delivery_widgets() -> list[io.Input]:
    """How files are numbered; for all nodes that save frames."""
    return [
        io.Int.Input("first_frame", default=FIRST_FRAME, min=0, max=9999999, advanced=True,
                     tooltip="The number of the first frame."),
        io.Int.Input("version", default=0, min=0, max=9999, advanced=True,
                     tooltip="0 makes a new version beside the others. The number of one that is there goes on with "
                             "it: frames that are whole are kept, the others written."),
        io.Boolean.Input("save_workflow", default=True, advanced=True,
                         tooltip="Store this graph in the files, so that the picture can tell how it was made."),
    ]


class SaveLayersExr(io.ComfyNode):
    """Layers into EXR frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        place = [io.Int.Input(name, default=0, min=-65536 if name.startswith("offset") else 0, max=65536, advanced=True,
                              tooltip=f"Pixels. {note}")
                 for name, note in (("plate_width", "The whole plate, if the layers are a part of it; 0: they are it."),
                                    ("plate_height", "As plate_width."),
                                    ("offset_x", "Where the layers' left edge lies in the plate."),
                                    ("offset_y", "Where the layers' top edge lies in the plate, counted down."))]
        return io.Schema(
            node_id="StrataSaveLayersEXR",
            display_name="Strata Save Layers EXR",
            category="Strata/files",
            description="Saves the connected layers as multilayer OpenEXR, one file a frame, for Nuke, Blender and "
                        "Arnold pipelines. Needs the OpenEXR library (pip install OpenEXR).",
            search_aliases=["exr", "multichannel", "save exr", "nuke", "aov", "passes"],
            inputs=[
                io.String.Input("filename_prefix", default="strata/shot",
                                tooltip="Folder and name inside ComfyUI's output folder; _v001 and the frame number "
                                        "are added. Nothing is ever overwritten."),
                *layer_inputs(DELIVERED),
                io.Combo.Input("names", options=list(PRESETS),
                               tooltip="Whose channel names: nuke N.X, depth.Z; blender ViewLayer.Normal.X; arnold "
                                       "N.X, Z, diffuse_albedo."),
                io.Combo.Input("compression", options=list(COMPRESSIONS),
                               tooltip="zip: for most. zips: Nuke reads it fastest. piz: for grain. dwaa: lossy and "
                                       "small; only for colour, data stays lossless."),
                io.Combo.Input("colours", options=list(COLOURS),
                               tooltip="What the colour layers you connect are. sRGB, as everywhere in ComfyUI, is "
                                       "made linear; linear ones are stored as they are and labelled so."),
                io.Combo.Input("parts", options=[ONE_PART, TWO_PARTS],
                               tooltip="One part opens everywhere. Two keep colour and data apart, as studios with "
                                       "colour management ask. Data named R, G, B always lies apart."),
                io.Float.Input("frame_rate", default=24.0, min=0.01, max=1000.0, step=0.001,
                               tooltip="Frames a second; 23.976, 29.97, 59.94 are stored as exact fractions."),
                io.String.Input("timecode", default="",
                                tooltip="Of the first frame, HH:MM:SS:FF, or ;FF for drop-frame; empty for none."),
                io.Combo.Input("alpha_mode", options=[STRAIGHT, PREMULTIPLIED], advanced=True,
                               tooltip="How colour with a fourth channel is stored. It comes in straight."),
                io.Float.Input("flow_reach", default=1.0, min=1e-6, max=1e5, step=0.1, advanced=True,
                               tooltip="Pixels a frame that full colour of flow stands for, from Encode Flow; at 1 the "
                                       "file has flow in units of its reach."),
                io.String.Input("comments", default="", advanced=True, tooltip="Stored in every frame."),
                *delivery_widgets(),
                *place,
            ],
            outputs=[
                io.String.Output("folder", tooltip="Where the frames lie, for Strata Load Layers EXR."),
                io.Int.Output("version", tooltip="The version's number."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, filename_prefix: str, names: str, compression: str, colours: str, parts: str, frame_rate: float,
                timecode: str, alpha_mode: str = STRAIGHT, flow_reach: float = 1.0, comments: str = "",
                first_frame: int = FIRST_FRAME, version: int = 0, save_workflow: bool = True, plate_width: int = 0,
                plate_height: int = 0, offset_x: int = 0, offset_y: int = 0, **layers) -> io.NodeOutput:
        layers = connected_layers(layers)
        frames, height, width = check_layers(layers)
        rate = exact_rate(frame_rate)
        delivery = Delivery(
            preset=names, compression=compression, split=parts == TWO_PARTS, space=COLOURS[colours],
            encoded=colours == SRGB, premultiplied=alpha_mode == PREMULTIPLIED, reach=flow_reach, rate=rate,
            timecode=Timecode.parse(timecode, rate) if timecode.strip() else None, comments=comments,
            attributes=graph_texts(cls.hidden) if save_workflow else {},
            window=Window(plate_width or width, plate_height or height, offset_x, offset_y))
        folder, name = output_place(filename_prefix, width, height)
        done = save_exr(layers, delivery, folder, name, version=version, first=first_frame, after_frame=steps(frames))
        kept = f", {done.kept} were there already" if done.kept else ""
        said = f"{output_name(done.folder)}: {done.written} frames of {', '.join(layers)} at {rate} a second{kept}"
        return io.NodeOutput(output_name(done.folder), done.version, ui=say(cls, "\n".join([said, *done.notes])))


def describe(path: str, frames: int, clip: LayerClip) -> str:
    """What was read, in an artist's words."""
    layers = ", ".join(f"{layer} ({', '.join(found.names)})" for layer, found in clip.channels.items())
    return (f"{path}: {frames} frames\nlayers: {layers or 'none known by name'}\ncolour: {', '.join(clip.spaces)}\n"
            f"rate: {clip.rate or 'not stated'}, timecode: {clip.timecode or 'none'}")


class LoadLayersExr(io.ComfyNode):
    """EXR frames into layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataLoadLayersEXR",
            display_name="Strata Load Layers EXR",
            category="Strata/files",
            description="Reads the layers of EXR frames by their names, ours or those of Nuke, Blender and Arnold. "
                        "Only connected outputs are read. Needs the OpenEXR library (pip install OpenEXR).",
            search_aliases=["exr", "load exr", "multichannel", "aov", "passes", "image sequence"],
            inputs=[
                io.String.Input("folder", default="",
                                tooltip="A folder of frames, or one .exr, in ComfyUI's input or output folder; wire it "
                                        "from Strata Save Layers EXR, or write 'strata/shot_v001'."),
                io.Combo.Input("colours", options=[SRGB, AS_STORED],
                               tooltip="sRGB, as other nodes take it, or the file's scene-linear numbers. Highlights "
                                       "above 1 are kept."),
                io.String.Input("other_layer", default="", advanced=True,
                                tooltip="A layer by its name in the file, such as 'specular', for the output 'other'."),
                io.Int.Input("frames", default=0, min=0, max=1000000, advanced=True,
                             tooltip="How many to read from the start; 0 for all."),
            ],
            outputs=[
                *(io.Image.Output(layer, tooltip=layer_note(layer)) for layer in DELIVERED),
                io.Mask.Output(ALPHA_MASK, tooltip="The alpha as a mask: white is foreground."),
                io.Image.Output(OTHER, tooltip="The layer that other_layer names; numbers that are not colour as they "
                                               "are."),
                io.Float.Output("frame_rate", tooltip="Frames a second; 24 if the files do not say."),
                io.String.Output("timecode", tooltip="Of the first frame; empty if the files have none."),
                io.Int.Output("first_frame", tooltip="The number of the first frame."),
                io.Float.Output("flow_reach", tooltip="Pixels a frame that full colour of flow stands for."),
                io.String.Output("contents", tooltip="The layers found and their channels."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str = "", **kwargs):
        # The result depends on the files, and on what is connected, which ComfyUI's cache does not know.
        return fingerprint(folder), connected_outputs(running_prompt(), cls.hidden.unique_id, OUTPUTS)

    @classmethod
    def execute(cls, folder: str, colours: str, other_layer: str = "", frames: int = 0) -> io.NodeOutput:
        files = frames_at(stored_path(folder), ".exr")
        files = files[:frames] if frames else files
        hidden = cls.hidden
        connected = connected_outputs(hidden.prompt or {}, hidden.unique_id, OUTPUTS) if hidden else None
        wanted = None if connected is None else [*connected, *(["alpha"] if ALPHA_MASK in connected else [])]
        clip = read_layers(files, wanted, other=other_layer.strip(), display=colours == SRGB,
                           after_frame=steps(len(files)))
        contents = describe(folder, len(files), clip)
        pictures = dict(clip.layers)
        if "alpha" in pictures:
            pictures[ALPHA_MASK] = pictures["alpha"][..., 0]
        facts = (float(clip.rate or 24), str(clip.timecode or ""), first_number(files[0]), clip.reach, contents)
        # A blocker stops with its sentence the node that needs the layer, and no other.
        layers = (pictures.get(name, ExecutionBlocker(f"{folder} has no layer for the output '{name}'. It holds:\n"
                                                      f"{contents}"))
                  for name in OUTPUTS[:-len(facts)])
        return io.NodeOutput(*layers, *facts, ui=say(cls, contents))

"""Strata Save Layers: every layer as a folder of 16-bit PNG or TIFF frames."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.files.deep_stills import SUFFIXES
from ..imaging.files.layer_delivery import save_stills
from ..imaging.files.layer_exr import check_layers
from ..imaging.files.layer_names import DELIVERED
from ..imaging.files.versions import FIRST_FRAME
from .layer_exr import delivery_widgets
from .layer_sockets import connected_layers, layer_inputs
from .places import graph_texts, output_name, output_place
from .saying import say, steps

# Metres do not fit into 0..1, and a residual is negative as often as not.
LAYERS = tuple(layer for layer in DELIVERED if layer not in ("residual", "depth_metres"))


class SaveLayers(io.ComfyNode):
    """Layers into stills."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataSaveLayers",
            display_name="Strata Save Layers",
            category="Strata/files",
            description="Saves the connected layers as 16-bit PNG or TIFF sequences, a folder for each, values as they "
                        "are.",
            search_aliases=["save png", "save tiff", "16 bit", "image sequence"],
            inputs=[
                io.String.Input("filename_prefix", default="strata/shot",
                                tooltip="Folder and name inside ComfyUI's output folder; _v001, the layer and the "
                                        "frame number are added. Nothing is ever overwritten."),
                *layer_inputs(LAYERS),
                io.Combo.Input("format", options=[suffix[1:] for suffix in SUFFIXES],
                               tooltip="Both lossless with 16 bits; a PNG also holds this graph."),
                *delivery_widgets(),
            ],
            outputs=[
                io.String.Output("folder", tooltip="Where the layers' folders lie."),
                io.Int.Output("version", tooltip="The version's number."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, filename_prefix: str, format: str, first_frame: int = FIRST_FRAME, version: int = 0,
                save_workflow: bool = True, **layers) -> io.NodeOutput:
        layers = connected_layers(layers)
        _, height, width = check_layers(layers)
        folder, name = output_place(filename_prefix, width, height)
        done = save_stills(layers, f".{format}", folder, name, version=version, first=first_frame,
                           texts=graph_texts(cls.hidden) if save_workflow else None,
                           after_frame=steps(sum(map(len, layers.values()))))
        kept = f", {done.kept} were there already" if done.kept else ""
        said = f"{output_name(done.folder)}: {done.written} pictures of {', '.join(layers)}{kept}"
        return io.NodeOutput(output_name(done.folder), done.version, ui=say(cls, "\n".join([said, *done.notes])))

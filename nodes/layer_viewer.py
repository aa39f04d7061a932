"""Strata Layer Viewer: all layers of a shot in one player on the node."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import io
from torch import Tensor

from ..imaging.viewing.viewer_file import KINDS, viewer_name, write_viewer_file
from .layer_sockets import connected_layers, layer_inputs

_PICTURES = "pictures"  # beside the layers that have a name
_WIDTHS = {"full": 0, "1920": 1920, "1280": 1280, "960": 960, "640": 640}


def shown_inputs() -> list[io.Input]:
    """A socket for every layer that a model makes, and more for other pictures, one after the other."""
    layers = layer_inputs(KINDS, "The {} of the shot.".format)
    return [*layers, io.Autogrow.Input(_PICTURES, optional=True, template=io.Autogrow.TemplatePrefix(
        io.Image.Input("picture", tooltip="Any other picture or clip."), prefix="picture", min=0, max=8))]


def shown_layers(inputs: dict) -> dict[str, Tensor]:
    """What is connected to `shown_inputs` as [F, H, W, C], by name. Raises ValueError for nothing."""
    named = connected_layers(inputs)
    others = {name: images for name, images in (inputs.get(_PICTURES) or {}).items() if images is not None}
    if not named and not others:
        raise ValueError("Nothing is connected to look at: connect at least one layer.")
    return named | others


class LayerViewer(io.ComfyNode):
    """Look at layers: wipe, difference, exposure, picked values."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataLayerViewer",
            display_name="Strata Layer Viewer",
            category="Strata/view",
            description="Shows the layers of a shot in one player: tabs and grid, A/B wipe, difference, exposure, "
                        "false colour, normals as a lit ball, alpha over a checkerboard, and the exact values under "
                        "the mouse.",
            search_aliases=["compare", "wipe", "preview", "contact sheet"],
            inputs=[
                *shown_inputs(),
                io.Float.Input("frame_rate", default=24.0, min=0.01, max=1000.0, step=0.01, tooltip="Frames a second."),
                io.Combo.Input("width", options=list(_WIDTHS), default="1280",
                               tooltip="Wider pictures are shown scaled down to this width; 'full' shows every pixel "
                                       "and every exact value, and takes the browser longer."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, frame_rate: float, width: str, **inputs) -> io.NodeOutput:
        folder = folder_paths.get_temp_directory()
        about = [write_viewer_file(images, viewer_name(folder, name), name, most=_WIDTHS[width])
                 for name, images in shown_layers(inputs).items()]
        return io.NodeOutput(ui={"strata_layers": about, "strata_rate": [frame_rate]})

"""Strata Contact Sheet: all layers of a shot as one labelled picture."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io

from ..imaging.viewing.contact_sheet import draw_sheet
from .layer_viewer import shown_inputs, shown_layers


class ContactSheet(io.ComfyNode):
    """A picture to share."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataContactSheet",
            display_name="Strata Contact Sheet",
            category="Strata/view",
            description="One labelled picture of all layers of a shot, a row each, frames from its start to its end.",
            inputs=[
                *shown_inputs(),
                io.Int.Input("frames", default=4, min=1, max=64, tooltip="Frames of each layer, evenly over the shot."),
            ],
            outputs=[io.Image.Output(tooltip="The sheet, for Preview or Save Image.")],
        )

    @classmethod
    def execute(cls, frames: int, **inputs) -> io.NodeOutput:
        sheet = np.asarray(draw_sheet(shown_layers(inputs), frames), dtype=np.float32) / 255
        return io.NodeOutput(torch.from_numpy(sheet)[None])

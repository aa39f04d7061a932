"""Strata Compress Highlights and Restore Highlights: HDR plates through models that know 0..1 only."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.highlights import compress_clip, restore_clip
from .colours import colours_input
from .saying import steps, steps_through


def knee_input() -> io.Float.Input:
    """Where the shoulder starts; the same in both nodes."""
    return io.Float.Input("knee", default=0.8, min=0.0, max=0.99, step=0.01,
                          tooltip="In sRGB values, 0 black to 1 white: below it nothing changes. The same in Compress "
                                  "and Restore Highlights.")


class CompressHighlights(io.ComfyNode):
    """An HDR plate for a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataCompressHighlights",
            display_name="Strata Compress Highlights",
            category="Strata/colour",
            description="Brings an HDR plate below white without clipping, for the model; Restore Highlights gives "
                        "them back to the layers.",
            search_aliases=["hdr", "tone map", "shoulder", "soft clip"],
            inputs=[
                io.Image.Input("plate", tooltip="Values above 1 are its highlights; nothing below 0 changes."),
                colours_input(),
                knee_input(),
            ],
            outputs=[io.Image.Output("compressed", tooltip="sRGB below 1, for Condition Mask and any other model.")],
        )

    @classmethod
    def execute(cls, plate, colours: str, knee: float) -> io.NodeOutput:
        return io.NodeOutput(compress_clip(plate, knee, colours, steps(len(plate))))


class RestoreHighlights(io.ComfyNode):
    """A model's layer with the plate's highlights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataRestoreHighlights",
            display_name="Strata Restore Highlights",
            category="Strata/colour",
            description="Gives a layer that was made of a compressed plate the plate's own highlights, by their ratio "
                        "in linear light. For fg, bg, rgb and irradiance, not for albedo or data.",
            search_aliases=["hdr", "inverse tone map", "expand highlights"],
            inputs=[
                io.Image.Input("layer", tooltip="sRGB, as the model made it of Compress Highlights' picture."),
                io.Image.Input("plate", tooltip="The HDR plate itself, in the layer's size."),
                colours_input(),
                knee_input(),
            ],
            outputs=[io.Image.Output("layer", tooltip="With highlights above 1, in the plate's colours: sRGB or "
                                                      "linear.")],
        )

    @classmethod
    def execute(cls, layer, plate, colours: str, knee: float) -> io.NodeOutput:
        return io.NodeOutput(restore_clip(layer, plate, knee, colours, steps_through(layer, plate)))

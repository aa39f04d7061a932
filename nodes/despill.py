"""Strata Despill: a screen's green or blue taken off a foreground."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.compositing.despill import LIMITS, SCREENS, despill_clip
from .colours import colours_input
from .saying import steps


class Despill(io.ComfyNode):
    """`imaging.compositing.despill` on a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataDespill",
            display_name="Strata Despill",
            category="Strata/compositing",
            description="Takes the light of a green or blue screen off a foreground and keeps its brightness.",
            search_aliases=["green screen", "blue screen", "chroma key", "spill suppression"],
            inputs=[
                io.Image.Input("foreground", tooltip="Straight or premultiplied, both are right; alpha in a fourth "
                                                     "channel stays."),
                colours_input(),
                io.Combo.Input("screen", options=list(SCREENS), default="green",
                               tooltip="The colour of the screen that stood behind."),
                io.Combo.Input("limit", options=list(LIMITS), default="average",
                               tooltip="What the screen's channel may be at most: the average of the other two, or the "
                                       "brighter of them, which is gentler on yellow and cyan."),
                io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.01,
                               tooltip="The share of the spill that is taken, 0 to 1."),
                io.Float.Input("keep_luminance", default=1.0, min=0.0, max=1.0, step=0.01,
                               tooltip="The share of the brightness so lost that comes back, as gray, 0 to 1."),
            ],
            outputs=[
                io.Image.Output("foreground", tooltip="Without the spill."),
                io.Mask.Output("spill", tooltip="What was taken of the screen's channel, in linear light: data."),
            ],
        )

    @classmethod
    def execute(cls, foreground, colours: str, screen: str, limit: str, strength: float,
                keep_luminance: float) -> io.NodeOutput:
        return io.NodeOutput(*despill_clip(foreground, screen, limit, strength, keep_luminance, colours,
                                           steps(len(foreground))))

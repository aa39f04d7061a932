"""Strata Refine Matte: a predicted alpha made fit for compositing."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.compositing.matte import MatteSettings, refine_matte
from .saying import steps


class RefineMatte(io.ComfyNode):
    """`imaging.compositing.matte` on a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataRefineMatte",
            display_name="Strata Refine Matte",
            category="Strata/compositing",
            description="Cleans an alpha: black and white point, specks, holes, flicker, edge in or out by parts of a "
                        "pixel, softness. In this order; as it comes, it only clamps to 0 and 1.",
            search_aliases=["erode", "dilate", "choke", "grow mask", "blur mask", "despeckle", "garbage matte"],
            inputs=[
                io.Mask.Input("alpha", tooltip="White is in. Any values: they are clamped to 0..1."),
                io.Float.Input("black", default=0.0, min=-1.0, max=1.0, step=0.005,
                               tooltip="Alpha up to here becomes 0, so that the old background is gone for good."),
                io.Float.Input("white", default=1.0, min=0.0, max=2.0, step=0.005,
                               tooltip="Alpha from here on becomes 1, so that the body is solid."),
                io.Int.Input("specks", default=0, min=0, max=10_000_000,
                             tooltip="Pixels: loose islands up to this area go. Set black first, or faint noise ties "
                                     "them together."),
                io.Int.Input("holes", default=0, min=0, max=10_000_000,
                             tooltip="Pixels: holes in solid parts up to this area are filled."),
                io.Int.Input("frames", default=0, min=0, max=8,
                             tooltip="Against flicker of soft edges: the median over so many frames before and after. "
                                     "1 is enough for most; fast motion suffers."),
                io.Float.Input("grow", default=0.0, min=-100.0, max=100.0, step=0.1,
                               tooltip="Pixels that the edge moves outwards, negative inwards; parts of a pixel "
                                       "count."),
                io.Float.Input("blur", default=0.0, min=0.0, max=50.0, step=0.1,
                               tooltip="Pixels (standard deviation): blurs within the soft edge only; solid and empty "
                                       "parts stay."),
                io.Float.Input("gamma", default=1.0, min=0.1, max=10.0, step=0.05, advanced=True,
                               tooltip="Above 1 soft edges get denser, below 1 thinner. Done with black and white."),
            ],
            outputs=[io.Mask.Output("alpha", tooltip="0 out to 1 in.")],
        )

    @classmethod
    def execute(cls, alpha, black: float, white: float, specks: int, holes: int, frames: int, grow: float, blur: float,
                gamma: float = 1.0) -> io.NodeOutput:
        settings = MatteSettings(black, white, gamma, specks, holes, frames, grow, blur)
        return io.NodeOutput(refine_matte(alpha, settings, steps(len(alpha))))

"""Strata Decontaminate: a foreground without the light of its old background."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.compositing.decontaminate import decontaminate
from .colours import colours_input
from .saying import steps_through


class Decontaminate(io.ComfyNode):
    """The closed form of `imaging.compositing.decontaminate`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataDecontaminate",
            display_name="Strata Decontaminate",
            category="Strata/compositing",
            description="Finds the foreground's own colour along its soft edges from the plate, the alpha and the "
                        "clean background, so that it composites cleanly on any other.",
            search_aliases=["fringe", "edge extend", "foreground estimation", "matting", "unmix"],
            inputs=[
                io.Image.Input("plate", tooltip="The footage itself."),
                io.Mask.Input("alpha", tooltip="White is in: the alpha_mask of Decode Layers."),
                io.Image.Input("background", tooltip="The plate without the object, as also behind it: the bg of "
                                                     "Decode Layers, or a clean plate. A still holds for all frames."),
                io.Image.Input("foreground", optional=True,
                               tooltip="What to hold to where alpha is thin, if it is clean there. Without one, the "
                                       "plate's solid parts drawn outwards. A fg on a green ground would tint edges."),
                colours_input(),
                io.Float.Input("hold", default=0.03, min=0.0, max=10.0, step=0.001, round=0.0001,
                               tooltip="How firmly thin edges hold to the foreground instead of the plate, in squares "
                                       "of alpha. 0: over the old background the plate comes back exactly. 0.1: "
                                       "calmer, where background and alpha are not quite right."),
                io.Boolean.Input("positive", default=True, advanced=True,
                                 tooltip="No colour below 0, which a wrong alpha asks for and shows as dark specks."),
            ],
            outputs=[
                io.Image.Output("foreground", tooltip="Straight colour, not premultiplied. For Strata Comp Layer."),
                io.Image.Output("residual", tooltip="Plate minus the new foreground over the background in linear "
                                                    "light, signed: near black if the layers fit together."),
            ],
        )

    @classmethod
    def execute(cls, plate, alpha, background, colours: str, hold: float, positive: bool = True,
                foreground=None) -> io.NodeOutput:
        return io.NodeOutput(*decontaminate(
            plate, alpha, background, foreground, hold=hold, positive=positive, space=colours,
            after_frame=steps_through(plate, alpha, background, foreground)))

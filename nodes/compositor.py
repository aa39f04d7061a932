"""Strata Comp Layer and Strata Layer Compositor: layers and how they lie, and the stack of them over a background."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.compositing.composite import OPERATORS, PREMULTIPLIED, STRAIGHT
from ..imaging.compositing.layer_stack import Layer, composite
from ..imaging.compositing.transform import Move
from .colours import colours_input
from .saying import steps_through

CompLayer = io.Custom("STRATA_COMP_LAYER")


class MakeCompLayer(io.ComfyNode):
    """One layer of a stack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataCompLayer",
            display_name="Strata Comp Layer",
            category="Strata/compositing",
            description="A picture and its alpha as a layer for Strata Layer Compositor: how it is merged, where it "
                        "lies, how large.",
            search_aliases=["merge", "transform", "blend", "over", "premultiply"],
            inputs=[
                io.Image.Input("foreground", tooltip="Colour. A fourth channel is its alpha, unless alpha is "
                                                     "connected; without either it is opaque."),
                io.Mask.Input("alpha", optional=True,
                              tooltip="White is in: the alpha_mask of Decode Layers. Load Image's MASK is the other "
                                      "way round: invert it."),
                io.Combo.Input("operator", options=list(OPERATORS), default="over",
                               tooltip="How it is merged with what lies below. 'plus' and 'screen' suit fire, flares "
                                       "and other light on black, which need no alpha; 'multiply' suits shadows."),
                io.Float.Input("opacity", default=1.0, min=0.0, max=1.0, step=0.01,
                               tooltip="0 nothing to 1 all of it."),
                io.Float.Input("x", default=0.0, min=-32768.0, max=32768.0, step=0.25,
                               tooltip="Pixels to the right. 0: its centre lies on the background's centre."),
                io.Float.Input("y", default=0.0, min=-32768.0, max=32768.0, step=0.25, tooltip="Pixels down."),
                io.Float.Input("scale", default=1.0, min=0.001, max=100.0, step=0.01,
                               tooltip="Times its own size in pixels, about its centre; a layer larger or smaller than "
                                       "the background is not fitted to it."),
                io.Float.Input("rotation", default=0.0, min=-3600.0, max=3600.0, step=0.1,
                               tooltip="Degrees counter-clockwise, about its centre."),
                io.Combo.Input("alpha_mode", options=[STRAIGHT, PREMULTIPLIED], default=STRAIGHT, advanced=True,
                               tooltip="Whether the colour is times alpha already (in linear light), as most EXR "
                                       "renders are. Layers of Decode Layers and Decontaminate are straight."),
            ],
            outputs=[CompLayer.Output("layer", tooltip="For Strata Layer Compositor.")],
        )

    @classmethod
    def execute(cls, foreground, operator: str, opacity: float, x: float, y: float, scale: float, rotation: float,
                alpha_mode: str = STRAIGHT, alpha=None) -> io.NodeOutput:
        move = Move(x, y, scale, rotation)
        return io.NodeOutput(Layer(foreground, alpha, operator, opacity, alpha_mode == PREMULTIPLIED, move))


class Compositor(io.ComfyNode):
    """The stack over a background."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        layers = io.Autogrow.TemplatePrefix(
            CompLayer.Input("layer", optional=True, tooltip="From Strata Comp Layer. The first is the lowest."),
            prefix="layer", min=0, max=64)
        return io.Schema(
            node_id="StrataLayerCompositor",
            display_name="Strata Layer Compositor",
            category="Strata/compositing",
            description="Composites layers over a background in linear light, and says what is left to the original "
                        "plate.",
            search_aliases=["merge", "over", "background replacement", "alpha over", "porter duff"],
            inputs=[
                io.Image.Input("background", optional=True,
                               tooltip="A clip, or a still for all frames. Without one the layers are merged over "
                                       "nothing, at the first layer's size."),
                io.Image.Input("original", optional=True,
                               tooltip="The plate that the layers came from, for the residual. Nothing else reads it."),
                colours_input(),
                io.Autogrow.Input("layers", template=layers, optional=True,
                                  tooltip="From below to the top; a new slot comes with each."),
                io.Combo.Input("alpha_mode", options=[STRAIGHT, PREMULTIPLIED], default=STRAIGHT,
                               tooltip="How the plate comes where alpha is below 1: 'straight' for the nodes that "
                                       "save, 'premultiplied' is over black. Light without alpha that 'plus' adds over "
                                       "nothing is only in 'premultiplied'."),
            ],
            outputs=[
                io.Image.Output("plate", tooltip="The composite, in the size of the background. Values above 1 stay. "
                                                 "Where alpha is below 1, 'alpha_mode' says how it comes."),
                io.Mask.Output("alpha", tooltip="Its alpha: 1 everywhere over an opaque background."),
                io.Image.Output("residual", tooltip="Original minus premultiplied plate in linear light, signed and "
                                                    "stored as 'colours' says: for Save Layers EXR. Black without an "
                                                    "original."),
            ],
        )

    @classmethod
    def execute(cls, colours: str, layers: dict | None = None, background=None, original=None,
                alpha_mode: str = STRAIGHT) -> io.NodeOutput:
        stack = [layer for layer in (layers or {}).values() if layer is not None]
        clips = [background, original, *(clip for layer in stack for clip in (layer.images, layer.alpha))]
        plate, alpha, *residual = composite(
            stack, background, original=original, space=colours, alpha_mode=alpha_mode,
            after_frame=steps_through(*clips))
        # A still of black costs nothing, and is of the right size.
        return io.NodeOutput(plate, alpha, residual[0] if residual else plate.new_zeros(1, *plate.shape[1:]))

"""Strata Encode Depth and Decode Depth: what depth nodes make into the depth layer's colours, and back."""

from __future__ import annotations

from comfy_api.latest import io

from ..comfy_host.native import geometry_depth
from ..imaging.encodings.depth_forms import DepthForm, colours_to_picture, picture_to_colours
from .saying import say

FORMS = [form.value for form in DepthForm]


def range_inputs(unused: str) -> list[io.Input]:
    """near and far, 0 for not known; `unused` says what 0 means."""
    return [
        io.Float.Input(end, default=0.0, min=0.0, max=1e6, step=0.01,
                       tooltip=f"The {name} distance that has a colour of its own, in metres. {unused}")
        for end, name in (("near", "nearest"), ("far", "farthest"))
    ]


class EncodeDepth(io.ComfyNode):
    """Depth of any form into colours."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataEncodeDepth",
            display_name="Strata Encode Depth",
            category="Strata/layers",
            description="Makes a depth layer, near red and far blue, of what Depth Anything 3, MoGe or another depth "
                        "node gives.",
            search_aliases=["depth anything", "moge", "midas", "depth colours"],
            inputs=[
                io.MultiType.Input("depth", types=[io.Image, io.Mask, io.Custom("DA3_GEOMETRY"),
                                                   io.Custom("MOGE_GEOMETRY")],
                                   tooltip="A geometry (best: one range for the whole clip), or a gray picture."),
                io.Combo.Input("form", options=FORMS, default=DepthForm.INVERSE.value,
                               tooltip="What a picture's numbers are; a geometry knows. 'inverse': white is near, as "
                                       "from MoGe, MiDaS, Depth Anything 1 and 2. 'linear': Render Depth Anything 3 "
                                       "(v2_style, min_max). 'metres': its 'raw', or any true depth."),
                *range_inputs("0: the clip's own, leaving out 2 % of its pixels; of a gray picture, not known."),
            ],
            outputs=[
                io.Image.Output("depth_layer", tooltip="For Condition Mask's depth. Data: no colour transform."),
                io.Float.Output("near", tooltip="Metres drawn in full red, for Decode Depth; 0 if not known."),
                io.Float.Output("far", tooltip="Metres drawn in full blue, for Decode Depth; 0 if not known."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, depth, form: str, near: float, far: float) -> io.NodeOutput:
        ends, form = (near or None, far or None), DepthForm(form)
        if isinstance(depth, dict):
            depth, *ends = geometry_depth(depth, *ends)
            form = DepthForm.METRES
        picture = (depth.unsqueeze(-1) if depth.ndim == 3 else depth).float()
        layer, near, far = picture_to_colours(picture, form, *ends)
        known = near is not None and far is not None
        # A relative model's numbers are no metres, and nothing in them says so.
        said = f"red is {near:.3g}, blue is {far:.3g} (metres, if the model is metric)" if known else (
            "red is near, blue is far; no metres known")
        return io.NodeOutput(layer, near or 0.0, far or 0.0, ui=say(cls, said))


class DecodeDepth(io.ComfyNode):
    """Colours into depth of any form."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataDecodeDepth",
            display_name="Strata Decode Depth",
            category="Strata/layers",
            description="Turns a depth layer's colours into a gray depth picture, white near, or into metres.",
            search_aliases=["depth", "depth to gray", "controlnet depth"],
            inputs=[
                io.Image.Input("depth_layer", tooltip="From Strata Decode Layers or Encode Depth."),
                io.Combo.Input("form", options=FORMS, default=DepthForm.INVERSE.value,
                               tooltip="'inverse' is what depth ControlNets want and needs no range. 'linear' is Depth "
                                       "Anything 3's gray. 'metres' is true depth as float, not for viewing."),
                *range_inputs("Needed for linear depth and metres: wire it from Encode Depth."),
            ],
            outputs=[io.Image.Output("depth", tooltip="The depth in the chosen form, in all three channels.")],
        )

    @classmethod
    def execute(cls, depth_layer, form: str, near: float, far: float) -> io.NodeOutput:
        return io.NodeOutput(colours_to_picture(depth_layer.float(), DepthForm(form), near or None, far or None))

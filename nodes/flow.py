"""Strata Encode Flow and Decode Flow: motion into the flow layer's colours, and back."""

from __future__ import annotations

from comfy_api.latest import io

from ..comfy_host.native import clip_flow
from ..imaging.encodings.flow import flow_to_colours
from ..imaging.encodings.flow_forms import FlowForm, colours_to_picture, picture_to_flow
from .saying import say

CLIP = "a clip"


def reach_input(unused: str) -> io.Input:
    """The length of full colour, 0 for not given; `unused` says what 0 means."""
    return io.Float.Input("reach", default=0.0, min=0.0, max=1e5, step=0.1,
                          tooltip=f"Pixels a frame that have full colour; what is faster is drawn darker. {unused}")


def source_options() -> list[io.DynamicCombo.Option]:
    """What a flow can be made of. Every choice holds a widget (see Condition Mask)."""
    pictures = io.Image.Input("flow", tooltip="Right in red, down in green; blue is not read.")
    return [
        io.DynamicCombo.Option(CLIP, [
            io.Image.Input("images", tooltip="The shot itself, at least two frames of 128x128."),
            io.Custom("OPTICAL_FLOW").Input("flow_model", tooltip="From Load Optical Flow Model (RAFT)."),
            reach_input("0: the clip's fastest."),
        ]),
        io.DynamicCombo.Option(FlowForm.PIXELS.value, [pictures, reach_input("0: the clip's fastest.")]),
        io.DynamicCombo.Option(FlowForm.CENTRED.value, [pictures, reach_input("Needed: what black and white stand "
                                                                              "for.")]),
    ]


class EncodeFlow(io.ComfyNode):
    """Motion to the next frame into colours."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataEncodeFlow",
            display_name="Strata Encode Flow",
            category="Strata/layers",
            description="Makes a flow layer, hue for direction and strength for speed, of a clip and an optical flow "
                        "model, or of motion vectors.",
            search_aliases=["optical flow", "raft", "motion vectors"],
            inputs=[io.DynamicCombo.Input("source", options=source_options(),
                                          tooltip="A clip, whose motion RAFT finds, or a picture of motion vectors.")],
            outputs=[
                io.Image.Output("flow_layer", tooltip="For Condition Mask's flow. Data: no colour transform."),
                io.Float.Output("reach", tooltip="Pixels a frame drawn in full colour, for Decode Flow."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, source: dict) -> io.NodeOutput:
        reach = source["reach"] or None
        if source["source"] == CLIP:
            flow = clip_flow(source["flow_model"], source["images"])
        else:
            flow = picture_to_flow(source["flow"].float(), FlowForm(source["source"]), reach)
        layer, reach = flow_to_colours(flow, reach)
        return io.NodeOutput(layer, reach, ui=say(cls, f"full colour is {reach:.3g} pixels a frame"))


class DecodeFlow(io.ComfyNode):
    """Colours into motion vectors."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataDecodeFlow",
            display_name="Strata Decode Flow",
            category="Strata/layers",
            description="Turns a flow layer's colours into motion vectors: right in red, down in green.",
            search_aliases=["motion vectors", "optical flow", "stmap"],
            inputs=[
                io.Image.Input("flow_layer", tooltip="From Strata Decode Layers or Encode Flow."),
                io.Combo.Input("form", options=[form.value for form in FlowForm], default=FlowForm.CENTRED.value,
                               tooltip="'0.5 + 0.5 flow / reach' can be viewed and saved; 'pixels' is float, with "
                                       "negative values."),
                reach_input("Only pixels need it: wire it from Encode Flow."),
            ],
            outputs=[
                io.Image.Output("flow", tooltip="Motion to the next frame: x in red, y (down) in green; blue is "
                                                "empty."),
                io.Float.Output("reach", tooltip="Pixels a frame that full colour stands for, as given."),
            ],
        )

    @classmethod
    def execute(cls, flow_layer, form: str, reach: float) -> io.NodeOutput:
        return io.NodeOutput(colours_to_picture(flow_layer.float(), FlowForm(form), reach or None), reach)

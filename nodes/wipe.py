"""Strata Wipe: two clips as one that shows the difference."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.viewing.wipe import SWEEPS, wipe


class Wipe(io.ComfyNode):
    """A clip to share: before and after."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataWipe",
            display_name="Strata Wipe",
            category="Strata/view",
            description="A clip of two: A left of an edge that moves over the picture, B right of it.",
            search_aliases=["compare", "before after", "split"],
            inputs=[
                io.Image.Input("a", tooltip="Seen left of the edge."),
                io.Image.Input("b", tooltip="Seen right of the edge; of the same size. The shorter clip holds its last "
                                            "frame."),
                io.Combo.Input("sweep", options=list(SWEEPS), tooltip="How the edge moves in the length of the clip."),
                io.Float.Input("at", default=0.5, min=0.0, max=1.0, step=0.01,
                               tooltip="Where a still edge stands: 0 left, 1 right."),
            ],
            outputs=[io.Image.Output(tooltip="The frames, for Create Video.")],
        )

    @classmethod
    def execute(cls, a, b, sweep: str, at: float) -> io.NodeOutput:
        return io.NodeOutput(wipe(a, b, sweep, at))

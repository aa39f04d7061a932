"""Strata Colour Space: pictures from one colour space into another, built in or of an OpenColorIO config."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.checks import check_pixels
from ..imaging.colour import LINEAR, SPACES, convert_colours
from ..imaging.frames import at, by_frame
from ..imaging.ocio import BUILT_IN, convert_with_ocio
from .saying import steps

ENVIRONMENT = "OCIO variable"


class ColourSpaceNode(io.ComfyNode):
    """Curves and matrices, by name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        built_in = [
            io.Combo.Input("source", options=list(SPACES), default="sRGB", tooltip="What the picture is."),
            io.Combo.Input("target", options=list(SPACES), default=LINEAR, tooltip="What it becomes."),
        ]
        config = [
            io.Combo.Input("config", options=[ENVIRONMENT, *BUILT_IN], default=ENVIRONMENT,
                           tooltip="The studio's config, which the environment variable OCIO names, or an ACES config "
                                   "of the library."),
            io.String.Input("source", default="sRGB Encoded Rec.709 (sRGB)",
                            tooltip="What the picture is: a colour space, role or alias of the config."),
            io.String.Input("target", default="ACEScg", tooltip="What it becomes, likewise."),
        ]
        return io.Schema(
            node_id="StrataColourSpace",
            display_name="Strata Colour Space",
            category="Strata/colour",
            description="Converts colour between sRGB, linear Rec.709, ACEScg, ACES2065-1, P3 and Rec.2020, or between "
                        "spaces of an OpenColorIO config. Never clamps. Not for data: normals, alpha, depth, flow.",
            search_aliases=["ocio", "aces", "acescg", "linear", "gamut", "srgb to linear", "color space"],
            inputs=[
                io.Image.Input("image", tooltip="Colour, straight if it has alpha; a fourth channel stays as it is."),
                io.DynamicCombo.Input("spaces", options=[
                    io.DynamicCombo.Option("built in", built_in),
                    io.DynamicCombo.Option("OpenColorIO", config),
                ], tooltip="Built in: exact curves and matrices, nothing to install. OpenColorIO: a studio's own "
                           "spaces; needs `pip install opencolorio`."),
            ],
            outputs=[io.Image.Output("image", tooltip="The same picture in the other space.")],
        )

    @classmethod
    def execute(cls, image, spaces: dict) -> io.NodeOutput:
        check_pixels("The image", image, (3, 4))
        source, target = spaces["source"], spaces["target"]
        after_frame = steps(len(image))
        if spaces["spaces"] == "OpenColorIO":
            config = None if spaces["config"] == ENVIRONMENT else spaces["config"]
            return io.NodeOutput(convert_with_ocio(image, source, target, config, after_frame))
        return io.NodeOutput(by_frame(
            len(image), lambda i: (convert_colours(at(image, i), source, target),), after_frame)[0])

"""Strata Rebuild: albedo and irradiance that make the plate, and the residual that is left."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.light.rebuild import rebuild_clip
from .colours import colours_input, curves
from .saying import say, steps_through


class Rebuild(io.ComfyNode):
    """The plate out of its layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataRebuild",
            display_name="Strata Rebuild",
            category="Strata/light",
            description="Matches albedo and irradiance to the plate and gives what is left over, so that albedo x "
                        "irradiance + residual is the plate again, in linear light.",
            search_aliases=["residual", "beauty", "aov", "recombine", "intrinsic"],
            inputs=[
                io.Image.Input("plate", tooltip="The shot itself."),
                io.Image.Input("albedo", tooltip="The shot's albedo, at the plate's size (Strata Guided Upsample)."),
                io.Image.Input("irradiance", tooltip="The shot's irradiance, at the plate's size."),
                io.Boolean.Input("fit_gamma", default=True,
                                 tooltip="Find the contrast of the irradiance too, not only its brightness."),
                io.Boolean.Input("per_channel", default=False,
                                 tooltip="Fit red, green and blue each for itself, for layers with a colour cast."),
                colours_input("the plate and the results", advanced=True),
                colours_input("the given albedo and irradiance", "layers", advanced=True),
            ],
            outputs=[
                io.Image.Output("albedo", tooltip="As given, stored as 'colours' says."),
                io.Image.Output("irradiance", tooltip="Fitted to the plate; may pass 1."),
                io.Image.Output("residual", tooltip="Plate - albedo x irradiance: highlights, glow, glass. Keep it in "
                                                    "float (EXR): it has negative values."),
                io.String.Output("report", tooltip="The fit, and how well the layers make the plate."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, plate, albedo, irradiance, fit_gamma: bool, per_channel: bool, colours: str,
                layers: str) -> io.NodeOutput:
        decode, encode = curves(colours)
        given, _ = curves(layers)
        *results, fit = rebuild_clip(
            {"plate": plate[..., :3], "albedo": albedo[..., :3], "irradiance": irradiance[..., :3]},
            {"plate": decode, "albedo": given, "irradiance": given}, encode,
            gamma=fit_gamma, per_channel=per_channel, after_frame=steps_through(plate, albedo, irradiance))
        return io.NodeOutput(*results, str(fit), ui=say(cls, str(fit)))

"""Strata Relight: a shot in the light of other lights."""

from __future__ import annotations

from comfy_api.latest import io

from ..comfy_host.native import geometry_depth
from ..imaging.encodings.normal_maps import decode_normals
from ..imaging.light.relight import Gloss, Relight, relight_clip
from .colours import colours_input, curves
from .lights import Lights
from .saying import steps_through

_NEAR, _SKY = 0.001, 1000.0  # metres: a geometry's sky and holes lie so far off that no lamp reaches them
ALBEDO, RATIO = "albedo x light", "plate x new / old light"


def modes() -> list[io.DynamicCombo.Option]:
    """The two ways to the picture. Every choice holds a widget (see Condition Mask)."""
    return [
        io.DynamicCombo.Option(ALBEDO, [
            io.Image.Input("albedo", tooltip="The shot without its light."),
            io.Image.Input("residual", optional=True, tooltip="From Strata Rebuild: highlights and glow of the shot."),
            io.Float.Input("residual_gain", default=1.0, min=-10.0, max=10.0, step=0.05,
                           tooltip="How much of the residual comes along: 1 all of it, 0 none."),
        ]),
        io.DynamicCombo.Option(RATIO, [
            io.Float.Input("limit", default=3.0, min=0.0, max=10.0, step=0.1,
                           tooltip="By how many stops the plate may get brighter or darker: what was in the dark would "
                                   "else show its noise."),
        ]),
    ]


def metres(depth) -> object:
    """Depth of any socket as [F, H, W, 1] in metres."""
    if isinstance(depth, dict):
        return geometry_depth(depth, _NEAR, _SKY)[0]
    return depth.unsqueeze(-1) if depth.ndim == 3 else depth[..., :1]


class RelightShot(io.ComfyNode):
    """New light by the shot's normals."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataRelight",
            display_name="Strata Relight",
            category="Strata/light",
            description="Lights a shot anew from its layers, as light behaves: from albedo and normals, or by changing "
                        "the plate itself by new over old light. Lights cast no shadows; paint them as masks.",
            search_aliases=["relighting", "normal map light", "lighting", "ggx"],
            inputs=[
                io.Image.Input("normal", tooltip="The shot's normals, in camera space: from Strata Decode Layers, or "
                                                 "Strata Normal Map."),
                Lights.Input("lights", tooltip="From Strata Light and Strata Environment Light."),
                io.DynamicCombo.Input("mode", options=modes(),
                                      tooltip=f"'{ALBEDO}' builds the picture anew; '{RATIO}' keeps all of the plate's "
                                              "detail and needs the shot's irradiance."),
                io.Image.Input("plate", optional=True, tooltip="The shot itself: for the ratio, and outside the mask."),
                io.Image.Input("irradiance", optional=True, tooltip="The shot's own light: for the ratio, and to keep "
                                                                    "some of it."),
                io.MultiType.Input("depth", optional=True,
                                   types=[io.Image, io.Mask, io.Custom("DA3_GEOMETRY"), io.Custom("MOGE_GEOMETRY")],
                                   tooltip="For point and spot lights: a geometry, or metres (Decode Depth)."),
                io.Mask.Input("mask", optional=True, tooltip="White where the new light falls; the plate stays "
                                                             "elsewhere."),
                io.Float.Input("keep_light", default=0.0, min=0.0, max=10.0, step=0.05,
                               tooltip="How much of the shot's own light stays: 0 none, 1 all, and the new lights are "
                                       "added to it."),
                io.Float.Input("field_of_view", default=50.0, min=1.0, max=170.0, step=0.5,
                               tooltip="The camera's, over the picture's width, in degrees."),
                io.Float.Input("specular", default=0.0, min=0.0, max=1.0, step=0.01,
                               tooltip="New highlights: how much a surface mirrors head on. 0.04 is plastic, skin and "
                                       "wood, 0.5 and more metal, 0 no highlights."),
                io.Float.Input("roughness", default=0.4, min=0.0, max=1.0, step=0.01,
                               tooltip="Of the highlights: 0.1 polished, 1 dull."),
                colours_input("all colours in and out", advanced=True),
            ],
            outputs=[
                io.Image.Output("relit", tooltip="The shot in its new light; may pass 1."),
                io.Image.Output("irradiance", tooltip="The new light alone; also for Condition Mask, to let the model "
                                                      "relight the shot."),
                io.Image.Output("specular", tooltip="The new highlights alone."),
            ],
        )

    @classmethod
    def execute(cls, normal, lights, mode: dict, keep_light: float, field_of_view: float, specular: float,
                roughness: float, colours: str, plate=None, irradiance=None, depth=None, mask=None) -> io.NodeOutput:
        given = {"albedo": mode.get("albedo"), "residual": mode.get("residual"), "plate": plate,
                 "irradiance": irradiance}
        layers = {name: image[..., :3] for name, image in {"normal": normal, **given}.items() if image is not None}
        if depth is not None:
            layers["depth"] = metres(depth)
        if mask is not None:
            layers["mask"] = mask.unsqueeze(-1)
        decode, encode = curves(colours)
        relight = Relight(
            lights=lights, field_of_view=field_of_view, gloss=Gloss(roughness, specular) if specular else None,
            keep=keep_light, residual=mode.get("residual_gain", 0.0), limit=mode.get("limit"))
        decoders = {**dict.fromkeys(given, decode), "normal": decode_normals}
        return io.NodeOutput(*relight_clip(relight, layers, decoders, encode, steps_through(*layers.values())))

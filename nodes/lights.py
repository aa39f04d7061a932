"""Strata Light and Environment Light: the lights that Strata Relight shines on a shot."""

from __future__ import annotations

import math

import torch
from comfy_api.latest import io

from ..imaging.checks import check_pixels
from ..imaging.colour import srgb_to_linear
from ..imaging.light.camera import rotation
from ..imaging.light.colour_temperature import COOLEST, HOTTEST, black_body
from ..imaging.light.lights import DirectionalLight, EnvironmentLight, Light, PointLight, SpotLight
from ..imaging.light.spherical_harmonics import environment_light
from .colours import colours_input, curves

Lights = io.Custom("STRATA_LIGHTS")
DIRECTIONAL, POINT, SPOT = "directional", "point", "spot"
FALLOFF = {"inverse square": 2.0, "linear": 1.0, "none": 0.0}


def light_colour(colour: str, temperature: float, strength: float, exposure: float) -> tuple[float, float, float]:
    """Linear Rec.709 of #rrggbb (sRGB) times a black body of `temperature` kelvin (0: none), times strength * 2^stops.

    Raises ValueError for another notation and a temperature that has no colour here."""
    digits = colour.removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError
        code = torch.tensor(list(bytes.fromhex(digits))) / 255
    except ValueError:
        raise ValueError(f"The colour is '{colour}', but red, green and blue as #rrggbb are needed; write for example "
                         "#ffcc88.") from None
    linear = srgb_to_linear(code) * strength * 2.0**exposure
    if temperature:
        linear = linear * black_body(temperature)
    r, g, b = linear.tolist()
    return r, g, b


def place_inputs(prefix: str, what: str, default: tuple[float, float, float]) -> list[io.Input]:
    """Three widgets for a place before the camera; `what` names the thing that is there."""
    ways = ("to the right of the camera", "above the camera", "behind the camera: what it sees is below 0")
    return [io.Float.Input(f"{prefix}{axis}", default=value, min=-1e4, max=1e4, step=0.05,
                           tooltip=f"Where {what} is, in metres {way}.")
            for axis, way, value in zip("xyz", ways, default, strict=True)]


def lamp_inputs() -> list[io.Input]:
    """What every light with a place has."""
    return [
        io.Float.Input("radius", default=0.1, min=0.0, max=100.0, step=0.01, advanced=True,
                       tooltip="The lamp's size in metres: nearer than that it does not get brighter."),
        io.Combo.Input("falloff", options=list(FALLOFF), default="inverse square", advanced=True,
                       tooltip="How light fades with distance: 'inverse square' as light does, 'linear' less, 'none' "
                               "not at all."),
    ]


def kinds() -> list[io.DynamicCombo.Option]:
    """The kinds of light, and what each is set by."""
    return [
        io.DynamicCombo.Option(DIRECTIONAL, [
            io.Float.Input("azimuth", default=45.0, min=-180.0, max=180.0, step=1.0,
                           tooltip="From where it shines, in degrees around the shot: 0 from the camera, 90 from the "
                                   "right, -90 from the left, 180 from behind."),
            io.Float.Input("elevation", default=45.0, min=-90.0, max=90.0, step=1.0,
                           tooltip="How high it stands, in degrees: 90 is straight above."),
        ]),
        io.DynamicCombo.Option(POINT, [*place_inputs("", "the lamp", (1.0, 1.0, -1.0)), *lamp_inputs()]),
        io.DynamicCombo.Option(SPOT, [
            *place_inputs("", "the lamp", (1.0, 1.0, -1.0)),
            *place_inputs("target_", "what it points at", (0.0, 0.0, -3.0)),
            io.Float.Input("cone", default=45.0, min=1.0, max=180.0, step=1.0,
                           tooltip="The whole angle of the cone, in degrees."),
            io.Float.Input("penumbra", default=0.15, min=0.0, max=1.0, step=0.01,
                           tooltip="How much of the cone is its soft edge: 0 is hard, 1 fades from the middle on."),
            *lamp_inputs(),
        ]),
    ]


def make_light(kind: dict, colour: tuple[float, float, float], mask: torch.Tensor | None) -> Light:
    """The light that the widgets of `kinds` describe. Raises ValueError for a spot light that points at itself."""
    if kind["kind"] == DIRECTIONAL:
        turn, rise = math.radians(kind["azimuth"]), math.radians(kind["elevation"])
        towards = (math.sin(turn) * math.cos(rise), math.sin(rise), math.cos(turn) * math.cos(rise))
        return DirectionalLight(colour, towards, mask=mask)
    position = (kind["x"], kind["y"], kind["z"])
    lamp = {"radius": kind["radius"], "falloff": FALLOFF[kind["falloff"]], "mask": mask}
    if kind["kind"] == POINT:
        return PointLight(colour, position, **lamp)
    target = (kind["target_x"], kind["target_y"], kind["target_z"])
    if target == position:
        raise ValueError(f"The spot light stands at {target} and points there too; move the light or its target.")
    return SpotLight(colour, position, target, kind["cone"], kind["penumbra"], **lamp)


def strength_inputs(of: str) -> list[io.Input]:
    """Strength and exposure; `of` says what strength 1 is."""
    return [
        io.Float.Input("strength", default=1.0, min=0.0, max=1e5, step=0.1, tooltip=of),
        io.Float.Input("exposure", default=0.0, min=-20.0, max=20.0, step=0.1,
                       tooltip="Brighter or darker, in stops: 1 is twice the light."),
    ]


def chain_input() -> io.Input:
    """The lights before this one."""
    return Lights.Input("lights", optional=True, tooltip="Other lights, which this one joins.")


def chain_output() -> io.Output:
    """All lights up to this one."""
    return Lights.Output("lights", tooltip="For Strata Relight, or the next light.")


class AddLight(io.ComfyNode):
    """One light, joined to those before it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataLight",
            display_name="Strata Light",
            category="Strata/light",
            description="A sun, a lamp or a spot light for Strata Relight. Chain as many as you like.",
            search_aliases=["sun", "lamp", "point light", "spotlight", "directional"],
            inputs=[
                io.DynamicCombo.Input("kind", options=kinds(),
                                      tooltip="'directional' is the sun; 'point' a bare bulb and 'spot' a lamp with a "
                                              "cone, which both need the shot's depth."),
                io.Color.Input("colour", default="#ffffff", tooltip="The light's colour."),
                io.Float.Input("temperature", default=0.0, min=0.0, max=HOTTEST, step=50.0,
                               tooltip=f"Colours the light as something that glows at so many kelvin, {COOLEST:.0f} to "
                                       f"{HOTTEST:.0f}: 1900 a candle, 2800 a bulb, 5500 noon, 8000 shade. 0: not."),
                *strength_inputs("1 makes a white card that faces the light just white; of a lamp, from 1 metre."),
                io.Mask.Input("mask", optional=True,
                              tooltip="White where this light reaches the picture: a painted shadow or a gobo."),
                chain_input(),
            ],
            outputs=[chain_output()],
        )

    @classmethod
    def execute(cls, kind: dict, colour: str, temperature: float, strength: float, exposure: float, mask=None,
                lights=()) -> io.NodeOutput:
        light = make_light(kind, light_colour(colour, temperature, strength, exposure), mask)
        return io.NodeOutput((*lights, light))


class AddEnvironmentLight(io.ComfyNode):
    """The light of a panorama, joined to those before it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataEnvironmentLight",
            display_name="Strata Environment Light",
            category="Strata/light",
            description="Soft light from all around, as in a panorama (HDRI), for Strata Relight.",
            search_aliases=["hdri", "hdr", "ibl", "image based lighting", "panorama", "spherical harmonics"],
            inputs=[
                io.Image.Input("panorama", tooltip="All around in one picture (lat-long, twice as wide as high), its "
                                                   "middle where the camera looks. HDR: values above 1 are light too. "
                                                   "Of a clip, its first frame."),
                colours_input("the panorama's colours"),
                io.Float.Input("turn", default=0.0, min=-360.0, max=360.0, step=1.0,
                               tooltip="Turns the panorama, in degrees: above 0 its middle moves to the left."),
                io.Float.Input("tilt", default=0.0, min=-90.0, max=90.0, step=1.0, advanced=True,
                               tooltip="Tilts the panorama, in degrees: above 0 its middle moves up. Give how far the "
                                       "camera looks down."),
                *strength_inputs("Times the panorama's own light."),
                io.Mask.Input("mask", optional=True, tooltip="White where this light reaches the picture."),
                chain_input(),
            ],
            outputs=[chain_output()],
        )

    @classmethod
    def execute(cls, panorama, colours: str, turn: float, tilt: float, strength: float, exposure: float, mask=None,
                lights=()) -> io.NodeOutput:
        panorama = panorama[:1, ..., :3].float()
        check_pixels("The panorama", panorama, (3,))
        decode, _ = curves(colours)
        # turned about the world's vertical first, then about the camera's own side
        way = rotation(0.0, tilt, 0.0) @ rotation(turn, 0.0, 0.0)
        harmonics = environment_light(decode(panorama[0].cpu()).clamp_min(0), way)
        brightness = strength * 2.0**exposure
        light = EnvironmentLight((brightness,) * 3, harmonics, mask=mask)
        return io.NodeOutput((*lights, light))

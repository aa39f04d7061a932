"""New light on a shot from its layers: linear, physical, pixel by pixel.

A shot is albedo * irradiance + specular + residual, in linear light with irradiance over pi. New lights give a new
irradiance from the normals (and from positions, which are depth along the rays of the camera), and, if wanted, GGX
highlights. The albedo layer is what reflects diffusely, so nothing is taken from it for the highlights. Lights cast no
shadows: a mask on a light paints them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_pixels
from ..frames import common_size, in_bands
from .camera import pixel_rays
from .ggx import ggx
from .lights import EnvironmentLight, Light, needs_depth

_DARK = 1e-4  # linear: irradiance below it is noise, and no ratio


@dataclass(frozen=True)
class Gloss:
    """The highlights of all surfaces. roughness: 0..1. reflectance: 0..1, head on; 0.04 of most materials."""

    roughness: float = 0.5
    reflectance: float = 0.04


@dataclass(frozen=True)
class Relight:
    """How a shot is lit anew.

    lights: of `lights`. field_of_view: degrees over the picture's width, for positions and lines of sight. gloss: None
    for no highlights. keep: how much of the shot's own irradiance stays, 0 replaces it, 1 adds the new lights to it.
    residual: how much of the residual layer is added. limit: None builds the picture from its albedo; a number of stops
    multiplies the plate by new / old irradiance, brightened or darkened by at most so much.
    """

    lights: tuple[Light, ...]
    field_of_view: float = 50.0
    gloss: Gloss | None = None
    keep: float = 0.0
    residual: float = 1.0
    limit: float | None = None


def arriving_light(
    relight: Relight, normals: Tensor, rays: Tensor, depth: Tensor | None, masks: Mapping[int, Tensor]
) -> tuple[Tensor, Tensor]:
    """Irradiance over pi and specular radiance, both [h, W, 3] linear, >= 0, of the new lights alone.

    normals: [h, W, 3] unit, camera space. rays: [h, W, 3] of `pixel_rays`. depth: [h, W, 1] metres along the axis, for
    lights that have a place. masks: [h, W, 1] of those lights that have one, by their number.
    """
    positions = None if depth is None else rays * depth
    surface = (normals != 0).any(-1, keepdim=True)  # a normal of length 0 is none
    views = torch.nn.functional.normalize(-rays, dim=-1)
    irradiance, specular = torch.zeros_like(normals), torch.zeros_like(normals)
    for number, light in enumerate(relight.lights):
        colour = torch.tensor(light.colour)
        if number in masks:
            colour = colour * masks[number]
        if isinstance(light, EnvironmentLight):
            irradiance += colour * light.irradiance(normals) * surface
            continue
        towards, strength = light.arrive(positions)
        facing = (normals * towards).sum(-1, keepdim=True).clamp_min(0)
        arrives = colour * (strength * facing)
        irradiance += arrives
        if relight.gloss is not None:
            # the strength is over pi, the reflection is not
            lobe = math.pi * ggx(normals, towards, views, relight.gloss.roughness, relight.gloss.reflectance)
            specular += arrives * lobe
    return irradiance, specular


def limited_ratio(new: Tensor, old: Tensor, stops: float) -> Tensor:
    """new / old of linear irradiance, any shape, between 2^-stops and 2^stops. Old counts as 0.0001 at least."""
    return (new / old.clamp_min(_DARK)).clamp(2.0**-stops, 2.0**stops)


def relight_clip(
    relight: Relight,
    layers: Mapping[str, Tensor],
    decode: Mapping[str, Callable[[Tensor], Tensor]],
    encode: Callable[[Tensor], Tensor],
    after_frame: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The shot in its new light, its new irradiance over pi, and the new highlights alone, each [F, H, W, 3].

    layers: name -> [F, H, W, C] in one size, a still with any length: `normal`; `albedo`, for a limit of None; `plate`
    and `irradiance`, for a ratio; `irradiance` also where some of it is kept; `depth`, C=1 in metres along the camera's
    axis, > 0, for lights with a place; `residual`, added to what is built from albedo; `mask`, C=1, clamped to 0..1,
    outside of which the plate stays as it is.
    decode: by layer, what makes it linear (colours; irradiance over pi) or vectors (normals); those not named are taken
    as they are. encode: what is done to the results, which are linear, unclamped. after_frame: as of `in_bands`.
    Raises ValueError for no lights, a layer that is needed and missing, sizes or lengths that differ, depth <= 0 and
    what `check_pixels` refuses.
    """
    _check(relight, layers)
    names = {n: f"mask of light {n + 1}" for n, light in enumerate(relight.lights) if light.mask is not None}
    masks = {name: relight.lights[number].mask[..., None] for number, name in names.items()}
    for name, mask in masks.items():
        check_pixels(f"The {name}", mask, (1,))
    clips = {**layers, **masks}
    _, height, width = common_size(clips)

    def work(bands: Mapping[str, Tensor], frame: int, rows: slice) -> tuple[Tensor, ...]:
        linear = {name: decode[name](band) if name in decode else band for name, band in bands.items()}
        rays = pixel_rays(height, width, relight.field_of_view, rows)
        here = {number: bands[name].clamp(0, 1) for number, name in names.items()}
        irradiance, specular = arriving_light(relight, linear["normal"], rays, linear.get("depth"), here)
        old = linear.get("irradiance")
        if relight.keep:
            irradiance = irradiance + relight.keep * old
        if relight.limit is None:
            picture = linear["albedo"] * irradiance + specular
            if "residual" in linear:
                picture = picture + relight.residual * linear["residual"]
        else:
            picture = linear["plate"] * limited_ratio(irradiance, old, relight.limit) + specular
        if "mask" in linear:
            picture = torch.lerp(linear["plate"], picture, linear["mask"].clamp(0, 1))
        return encode(picture), encode(irradiance), encode(specular)

    return in_bands(work, clips, after_frame)


def _check(relight: Relight, layers: Mapping[str, Tensor]):
    if not relight.lights:
        raise ValueError("There are no lights, but at least one is needed; add one.")
    for name, needed, reason in (
        ("normal", True, "a light falls by the angle to a surface"),
        ("albedo", relight.limit is None, "the picture is built from it"),
        ("plate", relight.limit is not None, "the picture is a ratio of it"),
        ("irradiance", relight.limit is not None, "the ratio is new to old light"),
        ("irradiance", relight.keep != 0, "some of the shot's own light is kept"),
        ("depth", needs_depth(relight.lights), "a point or spot light has a place"),
        ("plate", "mask" in layers, "it stays outside the mask"),
    ):
        if needed and name not in layers:
            raise ValueError(f"No {name} is given, but it is needed ({reason}); connect it.")
    for name, layer in layers.items():
        check_pixels(f"The {name}", layer, (1,) if name in ("depth", "mask") else (3,))
    if "depth" in layers and any((frame <= 0).any() for frame in layers["depth"]):
        raise ValueError("The depth has values of 0 m or less, but metres above 0 are needed; give holes and sky a far "
                         "depth.")

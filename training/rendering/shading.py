"""From surfaces to light: albedo, irradiance and highlights of whatever the rays have met."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .lights import light
from .materials import albedo
from .shapes import Shapes, Surface
from .staging import Scene, World


@dataclass(frozen=True)
class Exposure:
    """How a scene is taken. focal: pixels; size: (height, width); specular: with highlights or without; places:
    [N, 2] offsets from a pixel's centre that its colour is the mean of; gain: what brings the light to the picture's
    level; shadows: with them or without."""

    focal: float
    size: tuple[int, int]
    specular: bool
    places: Tensor
    gain: float = 1.0
    shadows: bool = True


def shade(
    scene: Scene, world: World, shapes: Shapes, surface: Surface, exposure: Exposure
) -> tuple[Tensor, Tensor, Tensor]:
    """Albedo, irradiance and specular radiance, each [T, P, 3] linear, with the gain of the exposure.

    shapes: those that the surface was traced on; all of the world's cast shadows, in an exposure with shadows. On the
    sky: its colour, and an irradiance of 1 whatever the gain.
    """
    material = shapes.material[surface.index]
    hit = surface.hit[..., None]
    colour = albedo(surface, shapes, world.materials, 1 / exposure.focal)
    colour = torch.where(hit, colour, scene.sky_colour(surface.view))
    gloss = world.materials.gloss[material] * surface.hit if exposure.specular else None
    irradiance, highlights = light(
        surface, world.shapes if exposure.shadows else None, world.sky, world.lights, gloss
    )  # fmt: skip
    return colour, torch.where(hit, irradiance * exposure.gain, 1.0), highlights * exposure.gain


def radiance(scene: Scene, world: World, shapes: Shapes, surface: Surface, exposure: Exposure) -> Tensor:
    """Exposed linear radiance [T, P, 3]."""
    colour, irradiance, highlights = shade(scene, world, shapes, surface, exposure)
    return colour * irradiance + highlights

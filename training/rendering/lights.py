"""Lights, and the irradiance they bring to a surface.

Irradiance here is divided by pi, as a renderer's diffuse shading pass is: radiance = albedo x irradiance, and a white
card that faces a light of strength 1 has radiance 1. T times, K shapes, P rays; colours linear.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .shapes import ROUND, Shapes, Surface, distances

_LIFT = 4e-3  # metres: shadow rays start above the surface, so that it does not shade itself
_SHININESS = 40.0


@dataclass(frozen=True)
class Sun:
    """Directional. towards: [T, 3] unit, from the scene to the light; colour: irradiance of a card that faces it."""

    towards: Tensor
    colour: Tensor  # [3]

    def at(self, times: Tensor) -> "Sun":
        return Sun(self.towards[times], self.colour)


@dataclass(frozen=True)
class Lamp:
    """A point light. position: [T, 3] metres; colour: irradiance of a card that faces it from 1 m."""

    position: Tensor
    colour: Tensor  # [3]
    radius: float  # metres; the fall-off stays finite inside it

    def at(self, times: Tensor) -> "Lamp":
        return Lamp(self.position[times], self.colour, self.radius)


@dataclass(frozen=True)
class Sky:
    """A dome: irradiance of a card that faces up, and of one that faces down."""

    above: Tensor  # [3]
    below: Tensor  # [3]


def light(
    surface: Surface, shapes: Shapes | None, sky: Sky, lights: Sequence[Sun | Lamp], gloss: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Irradiance and specular radiance, each [T, P, 3] linear, before exposure; the sky's pixels mean nothing.

    gloss: [T, P] strength of the highlights, None for none. Suns and lamps cast hard shadows of all `shapes`; the dome
    is dimmed where round shapes are close (contact shadow). shapes: None for no shadows of either kind.
    """
    normal = surface.normal
    tilt = 0.5 + 0.5 * normal[..., 1:2]
    irradiance = torch.lerp(sky.below, sky.above, tilt)
    if shapes is not None:
        irradiance = irradiance * _openness(surface, shapes)[..., None]
    specular = torch.zeros_like(irradiance)
    start = (surface.point + _LIFT * normal).transpose(1, 2)
    for source in lights:
        if isinstance(source, Sun):
            towards = source.towards[:, None].expand_as(normal)
            reach, strength = torch.inf, normal.new_ones(())
        else:
            offset = source.position[:, None] - surface.point
            length = offset.norm(dim=-1, keepdim=True)
            towards, reach = offset / length, length[..., 0]
            strength = 1 / (length**2 + source.radius**2)
        facing = (normal * towards).sum(-1, keepdim=True).clamp_min(0)
        arriving = source.colour * strength
        if shapes is not None:
            blocked = distances(shapes, start, towards.transpose(1, 2).contiguous()).amin(1) < reach
            arriving = arriving * ~blocked[..., None]
        irradiance = irradiance + arriving * facing
        if gloss is not None:
            half = torch.nn.functional.normalize(towards + surface.view, dim=-1)
            lobe = (normal * half).sum(-1, keepdim=True).clamp_min(0) ** _SHININESS * (facing > 0)
            specular = specular + arriving * lobe * gloss[..., None]
    return irradiance, specular


def _openness(surface: Surface, shapes: Shapes) -> Tensor:
    """How much of the dome is free, 0..1 [T, P]: every round shape counts as a ball at the nearest point of its axis,
    whose form factor is cos * (r / d)^2."""
    rounds = shapes.kind == ROUND
    if not rounds.any():
        return torch.ones_like(surface.distance)
    radius, half = shapes.size[rounds, 0, None], shapes.size[rounds, 1, None]  # [K, 1]
    axis, centre = shapes.rotation[:, rounds, :, 1], shapes.position[:, rounds]  # [T, K, 3]
    point, normal = surface.point.transpose(1, 2), surface.normal.transpose(1, 2)  # [T, 3, P]
    along = (axis @ point - (axis * centre).sum(-1, keepdim=True)).clamp(-half, half)  # [T, K, P]
    # |c - p|^2 and n.(c - p) from products, since [T, K, 3, P] would not stay in the cache
    lean = (axis @ normal) * along + centre @ normal - (point * normal).sum(1, keepdim=True)
    square = (
        along**2 + 2 * along * ((axis * centre).sum(-1, keepdim=True) - axis @ point)
        + (point**2).sum(1, keepdim=True) - 2 * centre @ point + (centre**2).sum(-1, keepdim=True)
    ).clamp_min(radius**2)  # fmt: skip
    closed = (lean / square.sqrt()).clamp(0, 1) * radius**2 / square
    return (1 - closed.clamp_max(0.9)).prod(1)

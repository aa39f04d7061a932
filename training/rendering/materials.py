"""Materials: albedo as a function of the place on a shape, in the shape's own frame, so that texture moves with it.

Patterns are analytic and softened to the width of a pixel on the surface: far checkers fade to their mean instead of
turning to noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .shapes import ROUND, Shapes, Surface

PLAIN, CHECKERED, STRIPED, MARBLED, HEAD = range(5)


@dataclass(frozen=True)
class Material:
    """base, second: linear albedo 0..1; cells: pattern cells per metre; axis: unit, across the stripes or down the
    marble; phase: in cells; gloss: strength of the specular lobe, 0..1. HEAD is skin with hair of the second colour on
    top and behind."""

    base: tuple[float, float, float]
    second: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pattern: int = PLAIN
    cells: float = 1.0
    axis: tuple[float, float, float] = (0.0, 1.0, 0.0)
    phase: float = 0.0
    gloss: float = 0.0


@dataclass(frozen=True)
class Materials:
    """The fields of `Material`, stacked: [M] or [M, 3]."""

    base: Tensor
    second: Tensor
    pattern: Tensor
    cells: Tensor
    axis: Tensor
    phase: Tensor
    gloss: Tensor


def stack_materials(materials: Sequence[Material]) -> Materials:
    return Materials(
        **{name: torch.tensor([getattr(m, name) for m in materials]) for name in Materials.__dataclass_fields__}
    )


def albedo(surface: Surface, shapes: Shapes, materials: Materials, pixel: float) -> Tensor:
    """Linear albedo [T, P, 3] of every hit; pixel: its size at distance 1, metres. The sky's value means nothing."""
    material = shapes.material[surface.index]
    pattern, cells = materials.pattern[material], materials.cells[material]
    q = surface.local * cells[..., None] + materials.phase[material][..., None]
    slant = (surface.normal * surface.view).sum(-1).clamp_min(0.15)
    sharp = 0.35 / (surface.distance * pixel * cells / slant).clamp_min(1e-4)
    # A checker on a flat face counts along the face only, else half of all faces would come out plain.
    flat = (shapes.kind[surface.index] != ROUND)[..., None] & (surface.facet.abs() > 0.9)
    squares = _edge(q, sharp[..., None]).masked_fill(flat, 1).prod(-1)
    along = (q * materials.axis[material]).sum(-1)
    stripes = _edge(along, sharp)
    across = q.roll(1, -1)
    swirl = along + 0.6 * torch.sin(2.1 * across).sum(-1) + 0.35 * torch.sin(3.7 * q.roll(2, -1) + across).sum(-1)
    marble = torch.sin(math.pi * swirl) * (sharp / 2).clamp_max(1)
    crown = ((surface.facet * torch.tensor([0.0, 0.75, -0.66])).sum(-1) * 12 + 1).clamp(-1, 1)
    value = torch.zeros_like(along)
    for kind, shade in ((CHECKERED, squares), (STRIPED, stripes), (MARBLED, marble), (HEAD, crown)):
        value = torch.where(pattern == kind, 0.5 + 0.5 * shade, value)
    return torch.lerp(materials.base[material], materials.second[material], value[..., None])


def _edge(x: Tensor, sharp: Tensor) -> Tensor:
    """A square wave of -1..1 with period 2 whose edges are soft, and which fades when it is finer than a pixel."""
    return (torch.sin(math.pi * x) * sharp).clamp(-1, 1)

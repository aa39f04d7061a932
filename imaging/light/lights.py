"""Lights, and what of them arrives at a surface.

Strengths are irradiance over pi, as a renderer's diffuse pass is: a white card that faces a light of strength 1 (a
point or spot light from 1 m) has the value 1 in linear light. So a light of strength s has the irradiance pi s in
W/m2: Blender's sun of strength pi s. Places are in camera space (`camera`), metres; colours linear Rec.709.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .spherical_harmonics import irradiance_from

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """colour: the strength in each channel. mask: [F, H, W], clamped to 0..1, how much of it reaches each pixel of the
    picture (a painted shadow, a gobo), or None for all; one frame goes with any length."""

    colour: Triple
    mask: Tensor | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class DirectionalLight(Light):
    """The sun. towards: from the scene to the light, any length but 0."""

    towards: Triple

    def arrive(self, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Unit vectors [..., 3] from the positions [..., 3] to the light, and what arrives of strength 1, [..., 1]."""
        towards = torch.nn.functional.normalize(torch.tensor(self.towards), dim=0)
        return towards, torch.ones(1)


@dataclass(frozen=True)
class PointLight(Light):
    """A lamp. position: metres. radius: metres, its size: strength / (d^2 + radius^2) stays finite inside it.

    falloff: the power of the distance: 2 as light does, 1 or 0 where a picture wants less of it."""

    position: Triple
    radius: float = field(default=0.0, kw_only=True)
    falloff: float = field(default=2.0, kw_only=True)

    def arrive(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """As of `DirectionalLight`; the positions are needed."""
        offset = torch.tensor(self.position) - positions
        square = offset.square().sum(-1, keepdim=True)
        towards = offset / square.sqrt().clamp_min(1e-6)
        return towards, (square + self.radius**2).clamp_min(1e-6) ** (-self.falloff / 2)


@dataclass(frozen=True)
class SpotLight(PointLight):
    """A lamp with a cone. target: where it points, metres, not its own position. cone: the whole angle in degrees,
    above 0 and at most 180. penumbra: 0..1, the part of the cone's half angle over which its edge is soft."""

    target: Triple
    cone: float
    penumbra: float

    def arrive(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """As of `PointLight`."""
        towards, strength = super().arrive(positions)
        axis = torch.tensor(self.target) - torch.tensor(self.position)
        cosine = -(towards * torch.nn.functional.normalize(axis, dim=0)).sum(-1, keepdim=True)
        outer = math.cos(math.radians(self.cone / 2))
        inner = math.cos(math.radians(self.cone / 2 * (1 - self.penumbra)))
        share = ((cosine - outer) / max(inner - outer, 1e-6)).clamp(0, 1)
        return towards, strength * share * share * (3 - 2 * share)


@dataclass(frozen=True)
class EnvironmentLight(Light):
    """Light from all around. harmonics: [9, 3] (`spherical_harmonics.environment_light`), times the colour.

    It lights diffusely only: nine numbers hold no reflection."""

    harmonics: Tensor

    def irradiance(self, normals: Tensor) -> Tensor:
        """Irradiance over pi, [..., 3] of unit normals [..., 3], at colour 1."""
        return irradiance_from(self.harmonics, normals)


def needs_depth(lights: tuple[Light, ...]) -> bool:
    """Whether what arrives depends on where a surface is."""
    return any(isinstance(light, PointLight) for light in lights)

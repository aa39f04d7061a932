"""Hair and fur: strands thinner than a pixel, drawn as lines with analytic coverage.

S moments, N strands, P pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .camera import project
from .lights import light
from .materials import HEAD
from .motion import wave
from .shading import Exposure
from .shapes import Shapes, Surface
from .staging import Scene, World

_STRANDS, _JOINTS = 56, 4
_WIDTH = 0.018  # metres: a lock, not a hair, so that it still shows at 64 pixels


@dataclass(frozen=True)
class Strands:
    """points: [S, N, 4, 3] world metres, root first; outward: [S, N, 3] unit; albedo: [N, 3] linear."""

    points: Tensor
    outward: Tensor
    albedo: Tensor

    def at(self, moments: Tensor) -> "Strands":
        return Strands(self.points[moments], self.outward[moments], self.albedo)


def grow(scene: Scene, world: World, hero: Shapes, times: Tensor) -> Strands:
    """The hero's strands at the world's moments: on a person's crown, all over a ball. times: [S] seconds."""
    rng = np.random.default_rng([scene.cast.hero, scene.seed])
    material = world.materials
    heads = (material.pattern[hero.material] == HEAD).nonzero()[:, 0]
    person = len(heads) > 0
    shape = int(heads[0]) if person else 0
    directions = torch.from_numpy(rng.normal(size=(8 * _STRANDS, 3))).float()
    directions = torch.nn.functional.normalize(directions, dim=-1)
    if person:  # where `materials.HEAD` has hair
        directions = directions[directions @ torch.tensor([0.0, 0.75, -0.66]) > 0.05]
    directions = directions[:_STRANDS]
    radius, half = hero.size[shape, 0], hero.size[shape, 1]
    along_axis = torch.stack([torch.zeros(len(directions)), directions[:, 1].sign() * half,
                              torch.zeros(len(directions))], -1)  # fmt: skip
    roots = directions * radius * 0.97 + along_axis
    rotation, position = hero.rotation[:, shape], hero.position[:, shape]  # [S, 3, 3], [S, 3]
    outward = directions @ rotation.transpose(-1, -2)
    start = roots @ rotation.transpose(-1, -2) + position[:, None]
    length = radius * torch.from_numpy(rng.uniform(0.5, 1.1, (len(directions), 1))).float()
    curl = torch.from_numpy(rng.normal(0, 0.35, (len(directions), 3))).float()
    fall = torch.tensor([0.0, -0.9 if person else -0.25, 0.0])
    sway = 0.25 * wave(times, 0.9)[:, None, None] * torch.tensor([1.0, 0.0, 0.4])
    reach = torch.linspace(0, 1, _JOINTS)[:, None]  # along the strand
    points = start[:, :, None] + length[:, None] * (
        reach * outward[:, :, None] + reach**2 * (curl + fall + sway)[:, :, None]
    )
    colour = (material.second if person else material.base)[hero.material[shape]]
    shade = torch.from_numpy(rng.uniform(0.75, 1.35, (len(directions), 1))).float()
    return Strands(points, outward, (colour * shade).clamp(0.02, 0.9))


def strand_cover(
    strands: Strands, world: World, pixels: Tensor, covered: Tensor, radiance: Tensor, solid: Tensor, behind: Tensor,
    exposure: Exposure,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Coverage [S, P] and premultiplied radiance [S, P, 3] with the strands laid over what is there already.

    pixels: [S, P, 2]; solid: [S, P] depth of the hero's solid surface, inf beside it; behind: [P] depth of the rest.
    """
    moments, count = strands.points.shape[:2]
    places, depth = project(strands.points.flatten(1, 2), world.eye, world.view, exposure.focal, *exposure.size)
    places, depth = places.unflatten(1, (count, _JOINTS)), depth.unflatten(1, (count, _JOINTS))
    low, high = places.flatten(0, 2).amin(0) - 1, places.flatten(0, 2).amax(0) + 1
    near = ((pixels > low) & (pixels < high)).all(-1).any(0).nonzero()[:, 0]
    if not len(near):
        return covered, radiance
    a, b = places[:, :, :-1], places[:, :, 1:]
    edge = (b - a).flatten(1, 2)  # [S, 3N, 2]
    offset = pixels[:, None, near] - a.flatten(1, 2)[:, :, None]  # [S, 3N, P, 2]
    share = (offset * edge[:, :, None]).sum(-1) / (edge**2).sum(-1).clamp_min(1e-6)[..., None]
    away = (offset - share.clamp(0, 1)[..., None] * edge[:, :, None]).norm(dim=-1)
    width = exposure.focal * _WIDTH / depth.mean(-1).clamp_min(0.1)  # [S, N] pixels
    away = away.unflatten(1, (count, _JOINTS - 1)).amin(2)  # [S, N, P]
    wide = width[..., None]
    cover = (0.5 + wide / 2 - away).clamp(0, 1) * wide.clamp_max(1)
    middle = depth.mean(-1)[..., None]
    cover = cover * (middle < solid[:, None, near]) * (middle < behind[near])
    shown = strands.albedo * _tip_light(strands, world) * exposure.gain  # [S, N, 3]
    # Strands share a pixel in proportion to their cover; together they hide what lies behind as independent veils do.
    hidden = 1 - (1 - cover).prod(1)  # [S, P]
    mean = torch.einsum("snp,snc->spc", cover, shown) / cover.sum(1).clamp_min(1e-6)[..., None]
    clear = (1 - hidden)[..., None]
    covered, radiance = covered.clone(), radiance.clone()
    covered[:, near] = covered[:, near] * clear[..., 0] + hidden
    radiance[:, near] = radiance[:, near] * clear + hidden[..., None] * mean
    return covered, radiance


def _tip_light(strands: Strands, world: World) -> Tensor:
    """Irradiance [S, N, 3] of the strands, taken at their tips, which the body does not shade; they cast no shadow."""
    moments, count = strands.outward.shape[:2]
    nothing = torch.zeros(moments, count)
    tips = Surface(
        hit=nothing.bool(), index=nothing.long(), distance=nothing, point=strands.points[:, :, -1],
        local=strands.outward, normal=strands.outward, facet=strands.outward, view=strands.outward,
    )  # fmt: skip
    return light(tips, world.shapes, world.sky, world.lights, None)[0]

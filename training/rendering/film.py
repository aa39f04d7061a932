"""The film exposure: one object of the scene pulled from it with soft edges, motion blur and hair.

The shutter is open for half of each frame. Sub-pixel places and moments are sampled together; strands, which are
thinner than a pixel, are drawn as lines with analytic coverage. The background is the sharp exposure without the
object, but with its shadows, so that the plate is what a camera would see. F frames, S samples a frame, P pixels
of a window.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...imaging.colour import linear_to_srgb
from ...imaging.compositing.composite import over
from .camera import camera_rays, pixel_grid, project
from .shading import Exposure, radiance
from .shapes import ROUND, Shapes, trace
from .staging import Scene, World
from .strands import Strands, grow, strand_cover

_SHUTTER = 0.5  # of a frame


@dataclass(frozen=True)
class Plate:
    """The matting layers [F, H, W, C], linear; the `_srgb` ones are encoded. plate = alpha*fg + (1-alpha)*bg."""

    plate_linear: Tensor  # C=3
    alpha: Tensor  # C=1, 0..1, coverage: never encoded
    fg_linear: Tensor  # C=3, straight (not premultiplied), 0 where alpha is 0
    bg_linear: Tensor  # C=3, everywhere, also behind the object
    hero: int  # id of the object
    hairy: bool

    @property
    def plate(self) -> Tensor:
        """sRGB-encoded plate [F, H, W, 3], unclamped."""
        return linear_to_srgb(self.plate_linear)

    @property
    def fg(self) -> Tensor:
        """sRGB-encoded straight foreground."""
        return linear_to_srgb(self.fg_linear)

    @property
    def bg(self) -> Tensor:
        """sRGB-encoded background."""
        return linear_to_srgb(self.bg_linear)


def expose(
    scene: Scene, world: World, times: Tensor, rate: float, sharp: tuple[Tensor, Tensor, Tensor], exposure: Exposure,
    samples: int,
) -> Plate:  # fmt: skip
    """Pull the hero. sharp: rgb, depth and ids of the sharp exposure [F, H, W, C]; samples: S."""
    rgb, depth, ids = sharp
    frames, height, width = rgb.shape[:3]
    size, focal, hero = exposure.size, exposure.focal, scene.cast.hero
    bg, far = rgb.clone(), depth.clone()
    alpha, premultiplied = torch.zeros_like(depth), torch.zeros_like(rgb)
    step = (torch.arange(samples) + 0.5) / samples - 0.5
    moments = (times[:, None] + _SHUTTER / rate * step).flatten()  # [F*S]
    moving = scene.at(moments)
    solid = moving.shapes.of(moving.shapes.owner == hero)
    strands = grow(scene, moving, solid, moments) if scene.cast.hairy else None
    # A low-discrepancy walk over the pixel, so that few samples give many levels of alpha.
    walk = torch.arange(samples)[:, None] * torch.tensor([0.7549, 0.5698])
    jitter = (walk + 0.5) % 1 - 0.5  # [S, 2]
    grid = pixel_grid(height, width)
    for frame in range(frames):
        span = torch.arange(frame * samples, (frame + 1) * samples)
        here, shapes = moving.at(span), solid.at(span)
        hair = None if strands is None else strands.at(span)
        window = _window(shapes, hair, here, focal, size)
        if not len(window):
            continue
        # Where a pixel's colour comes from one place, only the hero's own pixels have anything to uncover.
        hidden = window if len(exposure.places) > 1 else window[ids[frame].view(-1)[window] == hero]
        if len(hidden):
            behind = _background(scene, world, frame, hero, grid[hidden], exposure)
            bg[frame].view(-1, 3)[hidden], far[frame].view(-1, 1)[hidden] = behind
        distance = far[frame].view(-1)[window]
        pixels = grid[window] + jitter[:, None]  # [S, P, 2]
        rays = camera_rays(pixels, focal, *size)
        surface = trace(shapes, here.eye[..., None], here.view @ rays)
        near = (surface.distance * -rays[:, 2]).masked_fill(~surface.hit, torch.inf)
        covered = (near < distance).float()  # [S, P]
        light_in = torch.zeros(*covered.shape, 3)
        lit = covered.any(0)  # the window's corners are empty
        light_in[:, lit] = radiance(scene, here, shapes, surface.of(lit), exposure) * covered[:, lit, None]
        if hair is not None:
            covered, light_in = strand_cover(hair, here, pixels, covered, light_in, near, distance, exposure)
        alpha[frame].view(-1)[window] = covered.mean(0)
        premultiplied[frame].view(-1, 3)[window] = light_in.mean(0)
    alpha = alpha.clamp(0, 1)
    fg = torch.where(alpha > 0, premultiplied / alpha.clamp_min(1e-6), 0.0)
    return Plate(over(fg, alpha, bg), alpha, fg, bg, hero, scene.cast.hairy)


def _background(
    scene: Scene, world: World, frame: int, hero: int, pixels: Tensor, exposure: Exposure
) -> tuple[Tensor, Tensor]:
    """Radiance [P, 3] and depth [P, 1] of one frame without the hero, who still casts shadows."""
    places = exposure.places
    here = world.at(torch.full((len(places),), frame))
    rays = camera_rays(pixels + places[:, None], exposure.focal, *exposure.size)  # [N, 3, P]
    shapes = here.shapes.of(here.shapes.owner != hero)
    surface = trace(shapes, here.eye[..., None], here.view @ rays)
    picture = radiance(scene, here, shapes, surface, exposure).mean(0)
    middle = len(places) // 2
    return picture, (surface.distance[middle] * -rays[middle, 2])[:, None]


def _window(shapes: Shapes, hair: Strands | None, here: World, focal: float, size: tuple[int, int]) -> Tensor:
    """Indices [P] of the pixels in the rectangle that holds the hero at all moments."""
    height, width = size
    centre, depth = project(shapes.position, here.eye, here.view, focal, *size)
    depth = depth.clamp_min(0.2)
    round_reach = shapes.size[:, 0] + shapes.size[:, 1]
    bound = torch.where(shapes.kind == ROUND, round_reach, shapes.size.norm(dim=-1))
    reach = 1.1 * focal * bound / depth + 1  # a ball off the axis is drawn longer than wide
    low, high = (centre - reach[..., None]).flatten(0, 1), (centre + reach[..., None]).flatten(0, 1)
    if hair is not None:
        tips = project(hair.points.flatten(1, 2), here.eye, here.view, focal, *size)[0].flatten(0, 1)
        low, high = torch.cat([low, tips - 1]), torch.cat([high, tips + 1])
    (left, top), (right, bottom) = low.amin(0).floor().long().tolist(), high.amax(0).ceil().long().tolist()
    rows, columns = torch.arange(height), torch.arange(width)  # a hero that left the picture has none of either
    rows, columns = rows[(rows >= top) & (rows < bottom)], columns[(columns >= left) & (columns < right)]
    return (rows[:, None] * width + columns).flatten()

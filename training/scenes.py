"""Synthetic shots in which every layer is exact: what the network is trained on and measured against.

A seed stages a scene (`rendering.staging.stage`); a ray-caster takes two exposures of it.

The **sharp** exposure samples every pixel at its centre and every frame at one instant, so that each layer is a
property of one surface point: rgb = albedo * irradiance + specular exactly, in linear light, and normals, depth, flow,
ids, IUV and skeletons agree with it and with each other to float rounding.

The **film** exposure (`rendering/film.py`) has soft edges, motion blur and strands of hair: alpha, fg, bg and the
plate, which is over(fg, alpha, bg) exactly, in linear light.

Colour is linear Rec.709, or sRGB-encoded where a name says so. One gain for the whole shot is folded into the lights,
so that 94 % of the irradiance lies below 0.85 to 1.2 (drawn by the seed): a white card in the light is about white, rgb
seldom clips, and highlights above 1 are kept.

With `antialias` the three colour layers become means over the pixel (and rgb stays exactly their product); all else
stays at the centre.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from ..imaging.colour import linear_to_srgb
from .rendering.camera import camera_rays, focal_length, pixel_grid, project
from .rendering.captions import Facts, caption
from .rendering.figures import iuv
from .rendering.film import Plate, expose
from .rendering.shading import Exposure, shade
from .rendering.shapes import FAR, Surface, distances, gather, trace
from .rendering.staging import Scene, World, stage

# Of what a seed looks like: raise it when a pixel, a caption or a layer's code in `imaging` changes, since latents are
# cached by it.
VERSION = 1
RATE = Fraction(12)  # frames a second: slow enough that nine frames show a motion
_BLOCK = 4096  # rays at a time: the working set stays near the cache, and pictures of any size fit in memory
_WHITE_SHARE = 0.94
_ROUGH = 0.04  # linear: a smaller step between neighbours needs no smoothing
_SEEN = 0.003  # of a picture: what shows less than that in every frame is not worth a word in the caption


@dataclass(frozen=True)
class Shot:
    """A shot and its layers. F frames, H, W pixels, S people.

    Images are float32 [F, H, W, C]; pixels count x right, y down, the first centre at (0.5, 0.5).
    On the sky: albedo is its colour, irradiance 1, the dome is 60 m away, the normal faces the camera, id 0.
    """

    rgb_linear: Tensor  # C=3: albedo * irradiance + specular, linear, >= 0, seldom above 1
    albedo_linear: Tensor  # C=3, linear, 0..1
    irradiance: Tensor  # C=3, linear, over pi, >= 0, may pass 1 (HDR)
    specular: Tensor  # C=3, linear: the residual rgb - albedo * irradiance; zero unless asked for
    normal: Tensor  # C=3, unit, camera space: +X right, +Y up, +Z to the camera
    depth: Tensor  # C=1, metres along the camera's axis, > 0
    forward: Tensor  # C=2, pixels (x, y) to where the surface point is in the next frame; 0 on the last frame
    forward_valid: Tensor  # C=1 bool: that place is in the picture and in sight there
    backward: Tensor  # C=2, the same to the frame before; 0 on the first frame
    backward_valid: Tensor  # C=1 bool
    ids: Tensor  # C=1 int64: object id, 0 the set and the sky
    iuv: Tensor  # C=3: DensePose part 0..24, u and v 0..1; 0 off people
    joints: Tensor  # [F, S, 18, 2] pixels (x, y), OpenPose's order, may lie outside the picture
    joints_visible: Tensor  # [F, S, 18] bool: in the picture, with nothing but the person itself before it
    people: tuple[int, ...]  # ids, in the order of S
    plate: Plate | None  # the film exposure, None if it was not asked for
    focal: float  # pixels
    eye: Tensor  # [F, 3] metres, world
    view: Tensor  # [F, 3, 3] camera to world, columns right, up, backward
    facts: Facts  # of the objects that fill at least 0.3 % of some frame
    caption: str
    seed: int
    rate: Fraction

    @property
    def rgb(self) -> Tensor:
        """sRGB-encoded rgb [F, H, W, 3], unclamped."""
        return linear_to_srgb(self.rgb_linear)

    @property
    def albedo(self) -> Tensor:
        """sRGB-encoded albedo [F, H, W, 3], 0..1."""
        return linear_to_srgb(self.albedo_linear)


def render(
    seed: int,
    frames: int,
    height: int,
    width: int,
    *,
    specular: bool = False,
    antialias: int = 1,
    film_samples: int = 8,
    framing: str = "wide",
    shadows: bool = True,
) -> Shot:
    """The shot of a seed: the same numbers for the same arguments.

    frames, height, width: any size from 1. specular: add highlights to glossy surfaces. antialias: the
    colour of a pixel is the mean over a grid of n x n places in it, 1 is its centre. film_samples: moments and
    sub-pixel places a frame in the film exposure, 0 for none. framing: one of `staging.FRAMINGS`. shadows: False leaves
    out what lights and dome are hidden from, but for hair. Raises ValueError for a negative seed, an empty size or an
    unknown framing.
    """
    _check(
        seed=(seed, 0),
        frames=(frames, 1),
        height=(height, 1),
        width=(width, 1),
        antialias=(antialias, 1),
        film_samples=(film_samples, 0),
    )
    scene = stage(seed, framing)
    times = torch.arange(frames) / float(RATE)
    world = scene.at(times)
    focal = focal_length(scene.fov, height, width)
    exposure = Exposure(focal, (height, width), specular, _places(antialias), shadows=shadows)
    pixels = pixel_grid(height, width)
    rays = camera_rays(pixels, focal, height, width)  # [3, P]
    blocks = [
        [
            _sharp(scene, world, frame, pixels[start : start + _BLOCK], rays[:, start : start + _BLOCK], exposure)
            for start in range(0, height * width, _BLOCK)
        ]
        for frame in range(frames)
    ]  # fmt: skip
    image = {
        name: torch.stack([torch.cat([block[name] for block in row]) for row in blocks]).unflatten(1, (height, width))
        for name in blocks[0][0]
    }  # each [F, H, W, C]
    sky = image.pop("sky")
    gain = _gain(image["irradiance"][~sky[..., 0]], scene.exposure)
    exposure = replace(exposure, gain=gain)
    image["irradiance"] = torch.where(sky, 1.0, image["irradiance"] * gain)
    image["specular"] = image["specular"] * gain
    if antialias > 1:
        _smooth(scene, world, pixels, exposure, image)
    rgb = image["albedo_linear"] * image["irradiance"] + image["specular"]
    joints, visible = _joints(world, focal, height, width)
    facts = scene.facts.seen(_seen(image["ids"]))
    plate = None
    if film_samples:
        sharp = (rgb, image["depth"], image["ids"])
        plate = expose(scene, world, times, float(RATE), sharp, exposure, film_samples)
    return Shot(
        rgb_linear=rgb, **image, joints=joints, joints_visible=visible, people=tuple(world.joints), plate=plate,
        focal=focal, eye=world.eye, view=world.view, facts=facts, caption=caption(facts), seed=seed, rate=RATE,
    )  # fmt: skip


def _places(count: int) -> Tensor:
    """An even grid of count * count offsets from a pixel's centre, [N, 2] pixels."""
    step = (torch.arange(count) + 0.5) / count - 0.5
    return torch.cartesian_prod(step, step)


def _check(**given: tuple[int, int]):
    for name, (value, least) in given.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}, but a shot needs a whole number of at least {least}; pass one.")


def _seen(ids: Tensor) -> set[int]:
    """The ids that fill a fair share of some frame."""
    least = max(1.0, _SEEN * ids[0].numel())
    return {id for id in ids.unique().tolist() if id and (ids == id).flatten(1).sum(1).max() >= least}


def _gain(irradiance: Tensor, exposure: float) -> float:
    """What brings the bright end of the irradiance [N, 3] to `exposure`; 1 where only sky is seen."""
    level = irradiance.amax(-1)
    if not len(level):
        return 1.0
    white = level.kthvalue(max(1, int(len(level) * _WHITE_SHARE))).values
    return exposure / max(float(white), 1e-3)


def _sharp(
    scene: Scene, world: World, frame: int, pixels: Tensor, rays: Tensor, exposure: Exposure
) -> dict[str, Tensor]:  # fmt: skip
    """All layers of a block of pixels [P, 2] of one frame, each [P, C], before exposure."""
    here = world.at(torch.tensor([frame]))
    shapes, view = here.shapes, here.view
    surface = trace(shapes, here.eye[..., None], view @ rays)
    colour, irradiance, gloss = shade(scene, here, shapes, surface, exposure)
    hit = surface.hit[..., None]
    index = surface.index
    layers = {
        "albedo_linear": colour,
        "irradiance": irradiance,
        "specular": gloss,
        "normal": surface.normal @ view,  # a row times the matrix turns world to camera
        "depth": surface.distance[..., None] * -rays[2][:, None],
        "ids": (shapes.owner[index] * surface.hit)[..., None],
        "iuv": iuv(shapes.dense[index], shapes.split[index], shapes.size[index], surface.local) * hit,
        "sky": ~hit,
    }
    for name, step in (("forward", 1), ("backward", -1)):
        there = frame + step
        if 0 <= there < len(world.eye):
            layers[name], layers[f"{name}_valid"] = _flow(
                surface, world.at(torch.tensor([there])), pixels, exposure.focal, exposure.size
            )
        else:
            layers[name] = torch.zeros(1, len(pixels), 2)
            layers[f"{name}_valid"] = torch.zeros(1, len(pixels), 1, dtype=torch.bool)
    return {name: layer[0] for name, layer in layers.items()}


def _smooth(scene: Scene, world: World, pixels: Tensor, exposure: Exposure, image: dict[str, Tensor]):
    """Turn the colour layers [F, H, W, 3] of image into means over the pixel, in place, wherever a pixel differs from a
    neighbour. Irradiance is weighted by albedo, so that the product stays the mean radiance."""
    places = exposure.places
    block = max(1, _BLOCK // len(places))
    layers = [image[name].flatten(1, 2) for name in ("albedo_linear", "irradiance", "specular")]  # views [F, P, 3]
    rough = _rough(torch.cat([image["albedo_linear"], image["irradiance"], image["specular"]], -1)).flatten(1)
    for frame in range(len(world.eye)):
        here = world.at(torch.full((len(places),), frame))
        for chosen in rough[frame].nonzero()[:, 0].split(block):
            rays = camera_rays(pixels[chosen] + places[:, None], exposure.focal, *exposure.size)
            surface = trace(here.shapes, here.eye[..., None], here.view @ rays)
            colour, irradiance, gloss = shade(scene, here, here.shapes, surface, exposure)
            albedo = colour.mean(0)
            means = albedo, (colour * irradiance).mean(0) / albedo, gloss.mean(0)
            for layer, mean in zip(layers, means, strict=True):
                layer[frame, chosen] = mean


def _rough(image: Tensor) -> Tensor:
    """Pixels [F, H, W] of an image [F, H, W, C] that differ visibly from one of the eight around."""
    planes = image.permute(0, 3, 1, 2)
    high = torch.nn.functional.max_pool2d(planes, 3, 1, 1)
    low = -torch.nn.functional.max_pool2d(-planes, 3, 1, 1)
    return (high - low > _ROUGH).any(1)


def _flow(surface: Surface, there: World, pixels: Tensor, focal: float, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Flow [1, P, 2] in pixels of every surface point to another moment's picture, and whether it is in sight there."""
    height, width = size
    rotation, position = gather(there.shapes, surface.index)
    moved = (rotation * surface.local[..., None, :]).sum(-1) + position
    moved = torch.where(surface.hit[..., None], moved, surface.point)  # the sky stays where it is
    target, depth = project(moved, there.eye, there.view, focal, height, width)
    offset = moved - there.eye[:, None]
    length = offset.norm(dim=-1)
    first = distances(there.shapes, there.eye[..., None], (offset / length[..., None]).transpose(1, 2)).amin(1)
    inside = (target >= 0).all(-1) & (target[..., 0] < width) & (target[..., 1] < height) & (depth > 0)
    valid = inside & (first.clamp_max(FAR) > length * 0.999 - 0.005)
    return target - pixels, valid[..., None]


def _joints(world: World, focal: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Joints in pixels [F, S, 18, 2] and whether each is seen [F, S, 18]."""
    frames = len(world.eye)
    places, seen = [torch.zeros(frames, 0, 18, 2)], [torch.zeros(frames, 0, 18, dtype=torch.bool)]
    for owner, points in world.joints.items():
        place, depth = project(points, world.eye, world.view, focal, height, width)
        offset = points - world.eye[:, None]
        length = offset.norm(dim=-1)
        others = world.shapes.of(world.shapes.owner != owner)
        first = distances(others, world.eye[..., None], (offset / length[..., None]).transpose(1, 2)).amin(1)
        inside = (place >= 0).all(-1) & (place[..., 0] < width) & (place[..., 1] < height) & (depth > 0)
        places.append(place[:, None])
        seen.append((inside & (first > length))[:, None])
    return torch.cat(places, 1), torch.cat(seen, 1)

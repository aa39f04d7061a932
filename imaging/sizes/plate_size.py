"""The layers of a shot, which models make small, at the size of its plate."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..checks import check_pixels
from ..colour import linear_to_srgb, srgb_to_linear
from ..encodings.normal_maps import decode_normals, encode_normals
from ..frames import at
from .guided import albedo_by_ratio, guided_upsample, inconsistency

RATIO, GUIDED = "plate / irradiance", "its own layer"


def layers_at_plate_size(
    plate: Tensor,
    layers: Mapping[str, Tensor],
    *,
    albedo_by: str,
    radius: int,
    grain: float,
    linear: bool,
    after_frame: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The layers as [F, H, W, C] of the plate's size, and how far each is from the layer that it came from.

    plate: [F, H, W, 3]. layers: any of `alpha` (C=1), `normal` (codes, camera space), `irradiance` and `albedo`, each
    [F, h, w, C] no larger than the plate; a still goes with any length. linear: whether plate, irradiance and albedo
    are that, in and out, or sRGB-encoded. albedo_by: RATIO makes the albedo, given or not, as plate / irradiance in
    linear light, so that the two make the plate; GUIDED from the albedo layer, which keeps the plate's grain out of it.
    radius, grain: as of `guided_upsample`. after_frame: called after every frame. The second result is the root mean
    square by layer over the clip, in code values 0..1; an albedo that was not given has none. Raises ValueError for no
    layers, a layer that is missing for albedo_by, larger than the plate or of another length, and what `check_pixels`
    refuses.
    """
    _check(plate, layers, albedo_by)
    frames, height, width = plate.shape[:3]
    names = dict.fromkeys([*layers, *(["albedo"] if albedo_by == RATIO and "irradiance" in layers else [])])
    made = {name: torch.empty(frames, height, width, 1 if name == "alpha" else 3) for name in names}
    squares = dict.fromkeys(layers, 0.0)
    for frame in range(frames):
        small = {name: at(clip, frame) for name, clip in layers.items()}
        guide = at(plate, frame)
        if linear:
            guide = linear_to_srgb(guide)
            small |= {name: linear_to_srgb(small[name]) for name in _COLOURS & small.keys()}
        for name, layer in small.items():
            if name != "albedo" or albedo_by == GUIDED:
                made[name][frame] = _FINISH[name](guided_upsample(layer, guide, radius, grain))
        if "albedo" in made and albedo_by == RATIO:
            light = srgb_to_linear(made["irradiance"][frame])
            made["albedo"][frame] = linear_to_srgb(albedo_by_ratio(srgb_to_linear(guide), light))
        for name, layer in small.items():
            squares[name] += inconsistency(made[name][frame], layer) ** 2
        if linear:
            for name in _COLOURS & made.keys():
                made[name][frame] = srgb_to_linear(made[name][frame])
        after_frame()
    return made, {name: (total / frames) ** 0.5 for name, total in squares.items()}


_COLOURS = {"irradiance", "albedo"}
_FINISH: dict[str, Callable[[Tensor], Tensor]] = {
    "alpha": lambda alpha: alpha.clamp_(0, 1),
    "normal": lambda codes: encode_normals(decode_normals(codes)),
    "irradiance": lambda light: light.clamp_min_(0),
    "albedo": lambda albedo: albedo.clamp_(0, 1),
}


def _check(plate: Tensor, layers: Mapping[str, Tensor], albedo_by: str):
    check_pixels("The plate", plate, (3,))
    if not layers:
        raise ValueError("No layer is given, but at least one is needed; connect alpha, normal, irradiance or albedo.")
    if albedo_by == RATIO and "albedo" in layers and "irradiance" not in layers:
        raise ValueError(f"The albedo is to be made as {RATIO}, but no irradiance is given; connect it, or make the "
                         f"albedo from {GUIDED}.")
    frames, height, width = plate.shape[:3]
    for name, layer in layers.items():
        check_pixels(f"The {name}", layer, (1,) if name == "alpha" else (3,))
        if layer.shape[1] > height or layer.shape[2] > width:
            raise ValueError(f"The {name} is {layer.shape[2]}x{layer.shape[1]}, larger than the plate's "
                             f"{width}x{height}; give a plate of at least its size.")
        if len(layer) not in (1, frames):
            raise ValueError(f"The {name} has {len(layer)} frames, the plate {frames}; cut them to one length.")

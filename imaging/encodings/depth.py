"""Depth in metres as warm-near, cool-far colours, and back.

The colour shows inverse depth: with the range near..far, the warmth (1/z - 1/far) / (1/near - 1/far) runs from 0, blue,
to 1, red. The colours are those of matplotlib's Spectral, straight lines between the eleven of ColorBrewer
(Brewer 2003), as code values. Only with near and far are colours metric, so keep them beside the pictures.
"""

import math

import torch
from torch import Tensor

from ..checks import check_pixels

# ColorBrewer's Spectral-11 in 0..255, from far (blue) to near (red).
_CURVE = (
    (94, 79, 162),
    (50, 136, 189),
    (102, 194, 165),
    (171, 221, 164),
    (230, 245, 152),
    (255, 255, 191),
    (254, 224, 139),
    (253, 174, 97),
    (244, 109, 67),
    (213, 62, 79),
    (158, 1, 66),
)
_TAIL = 0.02  # of the pixels at either end, which a range taken from the clip leaves out: holes and sky would own it


def depth_range(depth: Tensor) -> tuple[float, float]:
    """near and far of a clip's depth, any shape, in its own unit: 2 % of its values are nearer, 2 % farther.

    Raises ValueError where they are not 0 < near < far, as for a depth that is the same everywhere.
    """
    rank = int(_TAIL * (depth.numel() - 1))
    near = depth.flatten().kthvalue(rank + 1).values.item()
    far = depth.flatten().kthvalue(depth.numel() - rank).values.item()
    if near == far:
        raise ValueError(
            f"The depth is {near:g} m all over, so it has no range of its own; give near and far in metres."
        )
    check_range(near, far)
    return near, far


def depth_to_colours(depth: Tensor, near: float | None = None, far: float | None = None) -> tuple[Tensor, float, float]:
    """Metric depth to colours: [F, H, W, 1] in metres, > 0, to ([F, H, W, 3] in 0..1, near, far in metres).

    An end that is None is taken from the whole clip (`depth_range`). Depth outside the range is drawn as its nearest
    end. Raises ValueError for what `check_pixels` refuses, depth <= 0, and a range with near >= far.
    """
    check_pixels("The depth", depth, (1,))
    wrong = (depth <= 0).flatten(1).any(dim=1)  # [F]
    if wrong.any():
        raise ValueError(
            f"The depth has values of 0 m or less in {int(wrong.sum())} of {len(depth)} frames (the first is frame "
            f"{int(wrong.int().argmax())}), but metres above 0 are needed; give holes and sky a far depth."
        )
    if near is None or far is None:
        own = depth_range(depth)
        near, far = own[0] if near is None else near, own[1] if far is None else far
    check_range(near, far)
    warmth = ((1 / depth - 1 / far) / (1 / near - 1 / far)).clamp(0, 1)
    return warmth_to_colours(warmth), near, far


def colours_to_depth(images: Tensor, near: float, far: float) -> Tensor:
    """Colours to metric depth: [F, H, W, 3] in 0..1 to [F, H, W, 1] in near..far metres.

    The relative error of the depth is that of the warmth (`colours_to_warmth`) times z (1/near - 1/far), less than
    far / near. Raises ValueError as `depth_to_colours`.
    """
    check_pixels("The depth picture", images, (3,))
    check_range(near, far)
    warmth = colours_to_warmth(images)
    return (1 / torch.lerp(warmth.new_tensor(1 / far), warmth.new_tensor(1 / near), warmth)).clamp(near, far)


def warmth_to_colours(warmth: Tensor) -> Tensor:
    """Warmth to colours: [..., 1], clamped to 0 (far) to 1 (near), to [..., 3] in 0..1.

    Raises ValueError for NaN and infinite values, which no colour stands for."""
    if not torch.isfinite(warmth).all():
        raise ValueError("The depth has NaN or infinite pixels, but finite values are needed; repair or re-render it.")
    warmth = warmth.clamp(0, 1)
    curve = warmth.new_tensor(_CURVE) / 255  # [11, 3]
    steps = len(curve) - 1
    start = (steps * warmth).floor().clamp_max(steps - 1)
    index = start.long().squeeze(-1)  # [...]
    return torch.lerp(curve[index], curve[index + 1], (steps * warmth - start).expand(*index.shape, 3))


def colours_to_warmth(images: Tensor) -> Tensor:
    """Colours to warmth: [..., 3] to [..., 1] in 0 (far) to 1 (near).

    Each pixel takes the nearest point of the colour curve, so any colour has a warmth. It comes back within 1e-6,
    through 8 bits within 0.004, and with 2/255 off in every channel within 0.04.
    """
    curve = images.new_tensor(_CURVE) / 255
    steps = len(curve) - 1
    warmth = images.new_zeros(*images.shape[:-1], 1)
    nearest = torch.full_like(warmth, math.inf)
    for step, (a, b) in enumerate(zip(curve[:-1], curve[1:], strict=True)):
        share = (((images - a) @ (b - a)) / (b - a).square().sum()).clamp(0, 1).unsqueeze(-1)  # [..., 1]
        distance = (images - torch.lerp(a, b, share)).square().sum(-1, keepdim=True)
        warmth = torch.where(distance < nearest, (step + share) / steps, warmth)
        nearest = torch.minimum(distance, nearest)
    return warmth


def check_range(near: float, far: float):
    """Raises ValueError unless 0 < near < far, both finite."""
    if not 0 < near < far < math.inf:
        raise ValueError(f"The depth range is {near:g} to {far:g} m, but 0 < near < far is needed; give two such ends.")

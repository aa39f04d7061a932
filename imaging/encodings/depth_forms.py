"""Depth as other tools hand it on, gray pictures or metres, into the colours of the depth layer and back."""

from enum import Enum

import torch
from torch import Tensor

from ..checks import check_pixels
from .depth import check_range, colours_to_depth, colours_to_warmth, depth_to_colours, warmth_to_colours

_GRAY = 2 / 255  # channels of a gray picture may differ by what 8 bits and a video codec do


class DepthForm(Enum):
    """What the numbers of a depth picture are.

    INVERSE  inverse depth, 1 nearest, 0 farthest: MiDaS, Depth Anything 1 and 2, ComfyUI's Render MoGe Geometry, and
             what depth ControlNets were trained on
    LINEAR   depth itself, turned over: 1 nearest, 0 farthest: ComfyUI's Render Depth Anything 3, "v2_style", "min_max"
    METRES   depth itself, far is large: Render Depth Anything 3, "raw"; a relative model's are in a unit of its own
    """

    INVERSE = "gray, inverse depth"
    LINEAR = "gray, linear depth"
    METRES = "metres"


def picture_to_colours(
    picture: Tensor, form: DepthForm, near: float | None = None, far: float | None = None
) -> tuple[Tensor, float | None, float | None]:
    """A depth picture [F, H, W, 1|3|4] to the layer's colours [F, H, W, 3], and near and far in metres where known.

    near and far say which metres the picture's 1 and 0 are, or, for METRES, what to draw reddest and bluest (None: the
    clip's own). LINEAR without both is drawn as if it were INVERSE: the order of things is right, not their spacing.
    Raises ValueError for a picture in colours, one value all over, gray outside 0..1, and as `depth_to_colours`.
    """
    check_pixels("The depth", picture)
    gray = picture[..., :1]
    if (picture[..., :3] - gray).abs().max() > _GRAY * gray.abs().max().clamp_min(1):
        raise ValueError(
            "The depth is a picture in colours, but a gray one or metres are needed; choose the gray depth where it is "
            "rendered (a depth layer in Strata's colours needs no encoding)."
        )
    if form is DepthForm.METRES:
        return depth_to_colours(gray, near, far)
    low, high = gray.min().item(), gray.max().item()
    if low < 0 or high > 1:
        raise ValueError(
            f"The gray depth has values of {low:.3g} to {high:.3g}, but 0 to 1 is needed; if they are metres, say so."
        )
    if low == high:
        raise ValueError(f"The gray depth is {low:g} all over, so it shows no depth; give a picture that does.")
    known = near is not None and far is not None
    if known:
        check_range(near, far)
    if form is DepthForm.LINEAR and known:
        return depth_to_colours(torch.lerp(gray.new_tensor(far), gray.new_tensor(near), gray), near, far)
    return warmth_to_colours(gray), near, far


def colours_to_picture(
    images: Tensor, form: DepthForm, near: float | None = None, far: float | None = None
) -> Tensor:
    """The layer's colours [F, H, W, 3|4] in 0..1 to a depth picture of that form, [F, H, W, 3].

    INVERSE needs no range. Raises ValueError for LINEAR and METRES without near and far, and as `colours_to_depth`.
    """
    check_pixels("The depth layer", images, (3, 4))
    images = images[..., :3]
    if form is DepthForm.INVERSE:
        picture = colours_to_warmth(images)
    elif near is None or far is None:
        raise ValueError(
            f"Depth as '{form.value}' needs the range that the colours stand for, which is not in the picture; give "
            f"near and far in metres, or take '{DepthForm.INVERSE.value}'."
        )
    else:
        picture = colours_to_depth(images, near, far)
    if form is DepthForm.LINEAR:
        picture = (far - picture) / (far - near)
    return picture.expand(*picture.shape[:3], 3)

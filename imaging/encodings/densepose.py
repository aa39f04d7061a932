"""DensePose IUV as a picture and back: which part of the body a pixel shows, and where on that part.

An IUV field is [F, H, W, 3]: part 0..24 (0 is no person, 1..24 DensePose's parts), u and v in 0..1 on that part. Its
picture is (part / 24, u, v): the convention of the synthetic shots.
"""

import torch
from torch import Tensor

from ..checks import check_pixels

PARTS = 24
# Left and right are the person's own.
BODY = {
    "whole person": (),
    "head": (23, 24),
    "torso": (1, 2),
    "left upper arm": (15, 17),
    "right upper arm": (16, 18),
    "left forearm": (19, 21),
    "right forearm": (20, 22),
    "left hand": (4,),
    "right hand": (3,),
    "left thigh": (8, 10),
    "right thigh": (7, 9),
    "left lower leg": (12, 14),
    "right lower leg": (11, 13),
    "left foot": (5,),
    "right foot": (6,),
}


def iuv_to_picture(iuv: Tensor) -> Tensor:
    """IUV [F, H, W, 3] to a picture [F, H, W, 3] in 0..1; u and v become 0 off people.

    Raises ValueError for what `check_iuv` refuses.
    """
    check_iuv(iuv)
    return _without_strays(iuv) / torch.tensor([PARTS, 1.0, 1.0], device=iuv.device)


def picture_to_iuv(images: Tensor) -> Tensor:
    """A picture [F, H, W, 3|4], also a noisy one, to IUV: the nearest part, u and v clamped and 0 off people.

    The part is exact while its channel is off by less than 1/48, so also after 8 bits. u and v keep the picture's own
    error: at most 1/510 after 8 bits. Between two parts a blurred picture reads as the parts in between. Raises
    ValueError for what `check_pixels` refuses and for one channel.
    """
    check_pixels("The DensePose picture", images)
    if images.shape[-1] == 1:
        raise ValueError("The DensePose picture has 1 channel, but 3 (part, u, v) are needed; give it in colour.")
    part = (PARTS * images[..., :1]).round().clamp(0, PARTS)
    return _without_strays(torch.cat([part, images[..., 1:3].clamp(0, 1)], -1))


def part_mask(iuv: Tensor, *parts: int) -> Tensor:
    """Where one of the parts is seen, 1 or 0: IUV [F, H, W, 3] to [F, H, W]; of every part if none is named.

    Raises ValueError for a part that is not one of 1..24.
    """
    strange = [part for part in parts if part not in range(1, PARTS + 1)]
    if strange:
        raise ValueError(f"There is no DensePose part {strange[0]!r}: use numbers of 1 to {PARTS}.")
    wanted = torch.tensor(parts or range(1, PARTS + 1), dtype=iuv.dtype, device=iuv.device)
    return torch.isin(iuv[..., 0], wanted).to(iuv)


def check_iuv(iuv: Tensor):
    """Raises ValueError, in one sentence, unless iuv is finite, [F, H, W, 3], whole parts of 0..24, u and v in 0..1."""
    check_pixels("The DensePose field", iuv)
    if iuv.shape[-1] != 3:
        raise ValueError(f"The DensePose field has {iuv.shape[-1]} channels, but 3 (part, u, v) are needed.")
    part, places = iuv[..., 0], iuv[..., 1:]
    if (part != part.round()).any() or part.amin() < 0 or part.amax() > PARTS:
        raise ValueError(f"The DensePose field has parts that are not whole numbers of 0 to {PARTS}; give those.")
    if places.amin() < 0 or places.amax() > 1:
        raise ValueError(
            f"The DensePose field has u, v of {places.amin():.3g} to {places.amax():.3g}, but 0 to 1 is needed; divide "
            "8-bit values by 255."
        )


def _without_strays(iuv: Tensor) -> Tensor:
    """u and v 0 where there is no person."""
    return iuv * torch.cat([torch.ones_like(iuv[..., :1]), (iuv[..., :1] > 0).to(iuv).expand(-1, -1, -1, 2)], -1)

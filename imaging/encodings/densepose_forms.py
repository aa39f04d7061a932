"""DensePose pictures of other tools as IUV fields.

DensePose itself stores (part, u, v) as bytes. The DensePose preprocessor of comfyui_controlnet_aux draws the part
alone, in OpenCV's Viridis (on its darkest colour) or Parula (on black): u and v are not in such a picture.
"""

import torch
from torch import Tensor

from ..checks import check_pixels
from .densepose import PARTS

# The colours of parts 0 to 24 are those numbered int(part * 255 / 24) in OpenCV's maps, as hexadecimal RGB. Parula's
# own darkest is not in use: off people the picture is black.
_MAPS = {
    "viridis": "440154 471063 481f70 472c7a 443983 404688 3b518b 365d8d 31688e 2c718e 287c8e 25858e 21908d "
    "1f9a8a 20a386 27ad81 35b779 46c06f 5cc863 73d056 8ed645 aadc32 c5e021 e2e418 fde725",
    "parula": "000000 253ca3 1450c2 0461df 086edd 0e7ad8 1484d4 0f90d0 0b9ccb 06a6c6 16adb9 26b3ac 37b99f "
    "56bb90 72bd82 91bf74 aabd69 c0bc60 d8ba56 e4c04a f0c73c fcce2e fbdc24 faeb19 f9fb0e",
}
_NEAR = 16 / 255  # what 8 bits, scaling and a codec may move a colour by, in every channel
_STRANGE = 0.25  # of a picture's pixels; edges between parts are mixtures, but never so many
_MIDDLE = 0.5  # u and v of a part whose picture shows none


def part_colours(name: str) -> Tensor:
    """The colours of parts 0 to 24 in "viridis" or "parula": [25, 3] float32 in 0..1."""
    return torch.tensor([list(bytes.fromhex(colour)) for colour in _MAPS[name].split()]) / 255


def part_map_to_iuv(images: Tensor, name: str) -> Tensor:
    """A part map in "viridis" or "parula", [F, H, W, 3|4] in 0..1, to IUV [F, H, W, 3].

    Each pixel is the part of the nearest colour, so the parts of an untouched picture are exact; mixtures at edges read
    as parts in between. u and v are unknown and become 0.5, the middle of the part. Raises ValueError for what
    `check_pixels` refuses, one channel, and a picture a quarter of which has colours of no part.
    """
    check_pixels("The DensePose part map", images, (3, 4))
    colours = part_colours(name).to(images)
    parts, far = [], 0
    for frame in images[..., :3]:
        part = torch.cdist(frame.flatten(0, 1), colours).argmin(-1)  # [H*W]
        far += int(((frame.flatten(0, 1) - colours[part]).abs().amax(-1) > _NEAR).sum())
        parts.append(part.reshape(frame.shape[:2]))
    part = torch.stack(parts).unsqueeze(-1).to(images)
    if far > _STRANGE * part.numel():
        raise ValueError(
            f"{far / part.numel():.0%} of the DensePose part map has colours that are none of {name}'s, but a part map "
            "drawn in it is needed; choose what the picture really is."
        )
    places = _MIDDLE * (part > 0).to(images)
    return torch.cat([part, places, places], -1)


def bytes_to_iuv(images: Tensor) -> Tensor:
    """DensePose's own picture, (part, u, v) as bytes / 255, [F, H, W, 3|4], to IUV [F, H, W, 3].

    Raises ValueError for what `check_pixels` refuses, one channel, and parts above 24.
    """
    check_pixels("The DensePose picture in bytes", images, (3, 4))
    part = (255 * images[..., :1]).round()
    if part.amin() < 0 or part.amax() > PARTS:
        raise ValueError(
            f"The DensePose picture has bytes of {int(part.amin())} to {int(part.amax())} as parts, but 0 to {PARTS} "
            "is needed in red; choose what the picture really is."
        )
    return torch.cat([part, images[..., 1:3].clamp(0, 1) * (part > 0)], -1)

"""What is done to a layer's pixels on the way into and out of the network, as data.

A layer has one of three encodings. Sockets and the network always carry 3 channels in 0..1:
  colour   display-referred sRGB: rgb, albedo, irradiance, fg, bg, ...
  normal   unit vectors in camera space (+X right, +Y up, +Z to the camera), stored as 0.5 n + 0.5
  mask     one value in all three channels, 0 = out, 1 = in: alpha, ...
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .colour import srgb_to_linear

_CHANNELS = {1: "1 (gray)", 2: "2 (x, y)", 3: "3 (RGB)", 4: "4 (RGBA)"}


@dataclass(frozen=True)
class Encoding:
    """How one kind of layer is finished after the network and stored for delivery.

    finish: network output [..., 3] in 0..1 to a proper layer [..., 3] in 0..1.
    exr_channels, exr_half, exr_values: channel names, half or 32-bit float, and the map from [..., 3] in 0..1 to the
    stored values [..., len(exr_channels)]. Colour is scene-linear half; data has no curve and is float (OpenEXR
    conventions).
    """

    finish: Callable[[Tensor], Tensor]
    exr_channels: str
    exr_half: bool
    exr_values: Callable[[Tensor], Tensor]


def _renormalise(images: Tensor) -> Tensor:
    vectors = 2 * images - 1
    # The small number is the authors' (UniVidX), kept so that a zero vector stays zero instead of becoming NaN.
    vectors = vectors / (vectors.norm(dim=-1, keepdim=True) + 1e-6)
    return 0.5 * vectors + 0.5


def _level(images: Tensor) -> Tensor:
    return images.mean(dim=-1, keepdim=True).clamp(0, 1)


ENCODINGS = {
    "colour": Encoding(
        finish=lambda images: images.clamp(0, 1), exr_channels="RGB", exr_half=True, exr_values=srgb_to_linear
    ),
    "normal": Encoding(
        finish=_renormalise, exr_channels="XYZ", exr_half=False, exr_values=lambda images: 2 * images - 1
    ),
    "mask": Encoding(
        finish=lambda images: _level(images).repeat_interleave(3, dim=-1),
        exr_channels="A",
        exr_half=False,
        exr_values=_level,
    ),
}


def find_encoding(encoding: str) -> Encoding:
    """The table's row of that name. Raises ValueError naming the encodings there are."""
    if encoding not in ENCODINGS:
        raise ValueError(f"Unknown layer encoding {encoding!r}: use one of {', '.join(ENCODINGS)}.")
    return ENCODINGS[encoding]


def encode(encoding: str, images: Tensor) -> Tensor:
    """Bring pictures to the three channels the network takes: [F, H, W, 1|3|4] to [F, H, W, 3].

    One channel is repeated, a fourth (alpha) is dropped, values are never changed. Raises ValueError for an unknown
    encoding and for what `check_pixels` refuses.
    """
    find_encoding(encoding)
    check_pixels(f"The {encoding} layer", images)
    return images.expand(*images.shape[:3], 3) if images.shape[-1] == 1 else images[..., :3]


def decode(encoding: str, images: Tensor) -> Tensor:
    """Finish what the network made: [F, H, W, 3] in 0..1 to [F, H, W, 3] in 0..1.

    colour is clamped; normal is decoded to n = 2x - 1, divided by |n| + 1e-6 and stored as 0.5 n + 0.5; mask becomes
    the mean of its channels, clamped, in all three. Source: UniVidX, inference code. Raises ValueError for an unknown
    encoding.
    """
    return find_encoding(encoding).finish(images)


def as_mask(images: Tensor) -> Tensor:
    """One value a pixel: [F, H, W, 1|3|4] to [F, H, W] in 0..1, the clamped mean of the colour channels."""
    return _level(images[..., :3]).squeeze(-1)


def check_pixels(name: str, images: Tensor, channels: tuple[int, ...] = (1, 3, 4)):
    """Refuse pictures that cannot be worked on, in one sentence that starts with `name`.

    Raises ValueError unless images is [F, H, W, C] with every size at least 1, C one of `channels`, and only finite
    values.
    """
    shape = list(images.shape)
    if images.ndim != 4:
        raise ValueError(
            f"{name} has shape {shape}, but [frames, height, width, channels] is needed; add or remove the dimension."
        )
    if images.numel() == 0:
        raise ValueError(
            f"{name} is empty (shape {shape}), but at least one frame is needed; load a clip with pictures."
        )
    if shape[-1] not in channels:
        *most, last = (_CHANNELS[count] for count in channels)
        needed = f"{', '.join(most)} or {last}" if most else last
        verb = "is" if channels == (1,) else "are"
        raise ValueError(f"{name} has {shape[-1]} channels, but {needed} {verb} needed; split or convert it first.")
    broken = ~torch.isfinite(images).flatten(1).all(dim=1)  # [F]
    if broken.any():
        raise ValueError(
            f"{name} has NaN or infinite pixels in {int(broken.sum())} of {shape[0]} frames (the first is frame "
            f"{int(broken.int().argmax())}), but finite values are needed; repair or re-render those frames."
        )

"""What is done to a layer's pixels on the way into and out of the network, as data.

Sockets and the network always carry 3 channels in 0..1. A layer has one of these encodings:
  colour         display-referred sRGB: rgb, albedo, irradiance, fg, bg, ...
  normal         unit vectors in camera space (+X right, +Y up, +Z to the camera), stored as 0.5 n + 0.5
  mask           one value in all three channels, 0 = out, 1 = in: alpha, ...
  depth          inverse depth as warm-near, cool-far colours (`depth`)
  flow           motion to the next frame as colours of the Middlebury wheel (`flow`)
  segmentation   a flat colour for every object, black background (`segmentation`)
  skeleton       joints and limbs on black, as OpenPose draws them (`skeleton`)
  densepose      part of the body and place on it, (part / 24, u, v) (`densepose`)

The last five are codes: a picture stands for numbers that the module of that name reads back. They are left as the
network made them. To snap a code to its curve, wheel or palette loses nothing for whoever reads it afterwards, who
takes the nearest anyhow, but it loses for good what the network was unsure of, and a published model may know other
colours than ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..checks import check_pixels
from ..colour import srgb_to_linear
from .depth import colours_to_warmth
from .flow import colours_to_vectors


@dataclass(frozen=True)
class Encoding:
    """How one kind of layer is finished after the network and stored for delivery.

    finish: network output [..., 3] in 0..1 to a proper layer [..., 3] in 0..1.
    exr_channels, exr_colour, exr_values: channel names, whether they hold scene-linear colour (stored as half) or data
    (no curve, 32-bit float), and the map from [..., 3] in 0..1 to the stored values [..., len(exr_channels)]. Source:
    OpenEXR's conventions, and for layer names Nuke's.
    """

    finish: Callable[[Tensor], Tensor]
    exr_channels: tuple[str, ...]
    exr_colour: bool
    exr_values: Callable[[Tensor], Tensor]


def _renormalise(images: Tensor) -> Tensor:
    vectors = 2 * images - 1
    # The small number is the authors' (UniVidX), kept so that a zero vector stays zero instead of becoming NaN.
    vectors = vectors / (vectors.norm(dim=-1, keepdim=True) + 1e-6)
    return 0.5 * vectors + 0.5


def _level(images: Tensor) -> Tensor:
    return images.mean(dim=-1, keepdim=True).clamp(0, 1)


def _clamp(images: Tensor) -> Tensor:
    return images.clamp(0, 1)


def _as_it_is(images: Tensor) -> Tensor:
    return images


def _motion(images: Tensor) -> Tensor:
    """Nuke's motion layers count v upwards; pictures count it downwards."""
    return colours_to_vectors(images) * images.new_tensor([1.0, -1.0])


_CODE = Encoding(finish=_clamp, exr_channels=("R", "G", "B"), exr_colour=False, exr_values=_as_it_is)

ENCODINGS = {
    "colour": Encoding(
        finish=_clamp, exr_channels=("R", "G", "B"), exr_colour=True, exr_values=srgb_to_linear
    ),
    "normal": Encoding(
        finish=_renormalise,
        exr_channels=("X", "Y", "Z"),
        exr_colour=False,
        exr_values=lambda images: 2 * images - 1,
    ),
    "mask": Encoding(
        finish=lambda images: _level(images).repeat_interleave(3, dim=-1),
        exr_channels=("A",),
        exr_colour=False,
        exr_values=_level,
    ),
    # Metres would need the range, which is not in the picture. 1 is near and 0 far, which need not be at infinity.
    "depth": Encoding(
        finish=_clamp, exr_channels=("inverse_depth.Z",), exr_colour=False, exr_values=colours_to_warmth
    ),
    # Pixels would need the reach, which is not in the picture: these are in units of it, so times the reach is pixels.
    "flow": Encoding(
        finish=_clamp, exr_channels=("forward.u", "forward.v"), exr_colour=False, exr_values=_motion
    ),
    "segmentation": _CODE,
    "skeleton": _CODE,
    "densepose": _CODE,
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

    colour and codes (depth, flow, ...) are clamped; normal is decoded to n = 2x - 1, divided by |n| + 1e-6 and stored
    as 0.5 n + 0.5; mask becomes the mean of its channels, clamped, in all three. Source: UniVidX, inference code.
    Raises ValueError for an unknown encoding.
    """
    return find_encoding(encoding).finish(images)


def as_mask(images: Tensor) -> Tensor:
    """One value a pixel: [F, H, W, 1|3|4] to [F, H, W] in 0..1, the clamped mean of the colour channels."""
    return _level(images[..., :3]).squeeze(-1)

"""HDR plates through models that know 0..1 only: highlights are compressed reversibly, and given back by ratio."""

from collections.abc import Callable

import torch
from torch import Tensor

from .checks import check_pixels
from .colour import LINEAR, convert_colours, linear_to_srgb, srgb_to_linear
from .frames import at, by_frame, common_size


def compress(x: Tensor, knee: float) -> Tensor:
    """The shoulder: x up to the knee, above it knee + (1 - knee) t / (1 + t) with t = (x - knee) / (1 - knee).

    x: float tensor of any shape, any finite value; [0, inf) goes to [0, 1), negatives stay. Strictly rising, with a
    continuous slope (1 at the knee). knee: where it starts, 0 or more and below 1. Raises ValueError for another knee.
    Source: Reinhard et al. 2002, shifted to start at the knee.
    """
    _check_knee(knee)
    excess = (x - knee).clamp_min(0) / (1 - knee)
    shoulder = knee + (1 - knee) * (1 - 1 / (1 + excess))  # t / (1 + t), where t may be too large to divide
    return torch.where(x <= knee, x, shoulder.clamp_max(1 - torch.finfo(x.dtype).eps))  # rounding must not reach 1


def expand(y: Tensor, knee: float) -> Tensor:
    """The inverse of `compress`: y below 1, of any shape, to what it was.

    In float32, with the knee at 0.8, a value of 100 comes back within 0.01 % and one of 10000 within 1 %; where the
    plate is at hand, `restore_highlights` is exact. Raises ValueError for a knee outside 0..1 and for values of 1 or
    more, which stand for no finite value.
    """
    _check_knee(knee)
    if y.numel() and y.max() >= 1:
        raise ValueError(
            f"The highest compressed value is {y.max():.6g}, but values below 1 are needed, as 1 stands for infinity; "
            "clamp them to below 1 first."
        )
    share = (y - knee).clamp_min(0) / (1 - knee)
    return torch.where(y <= knee, y, knee + (1 - knee) * share / (1 - share))


def compress_plate(plate: Tensor, knee: float) -> Tensor:
    """A plate as models want it: scene-linear Rec.709, any shape, to display-referred sRGB below 1.

    The shoulder works on the encoded values, of which pictures have equally many in the lights and in the darks. Up to
    the knee, in sRGB 0..1, the plate stays as it is.
    """
    return compress(linear_to_srgb(plate), knee)


def restore_highlights(layer: Tensor, plate: Tensor, knee: float) -> Tensor:
    """Give a layer that was made of `compress_plate(plate, knee)` the plate's highlights: layer * plate / compressed.

    layer, plate: scene-linear Rec.709 of one shape. Returns that shape, linear; the compressed plate itself becomes the
    plate. Where the plate lies below the knee the layer stays bit by bit. For layers that hold the plate's light (fg,
    bg, rgb, irradiance), not for albedo or data. Raises ValueError for a wrong knee.
    """
    encoded = linear_to_srgb(plate)
    ratio = plate / srgb_to_linear(compress(encoded, knee))
    return torch.where(encoded <= knee, layer, layer * ratio)


def compress_clip(plate: Tensor, knee: float, space: str, after_frame: Callable[[], None] = lambda: None) -> Tensor:
    """`compress_plate` of a clip, [F, H, W, 3|4] in `space` (of `colour.SPACES`), frame by frame: [F, H, W, 3].

    Raises ValueError in one sentence for pixels that cannot be worked on and for a wrong knee.
    """
    check_pixels("The plate", plate, (3, 4))

    def make(number: int) -> tuple[Tensor]:
        return (compress_plate(convert_colours(at(plate, number)[..., :3], space, LINEAR), knee),)

    return by_frame(len(plate), make, after_frame)[0]


def restore_clip(
    layer: Tensor, plate: Tensor, knee: float, space: str, after_frame: Callable[[], None] = lambda: None
) -> Tensor:
    """`restore_highlights` of a clip, frame by frame: sRGB layer, plate in `space`, [F, H, W, 3|4], to [F, H, W, 3] in
    `space`.

    Raises ValueError in one sentence for clips that do not go together and for a wrong knee.
    """
    clips = {"layer": layer, "plate": plate}
    for name, clip in clips.items():
        check_pixels(f"The {name}", clip, (3, 4))
    count, _, _ = common_size(clips)

    def make(number: int) -> tuple[Tensor]:
        light = srgb_to_linear(at(layer, number)[..., :3])
        restored = restore_highlights(light, convert_colours(at(plate, number)[..., :3], space, LINEAR), knee)
        return (convert_colours(restored, LINEAR, space),)

    return by_frame(count, make, after_frame)[0]


def _check_knee(knee: float):
    if not 0 <= knee < 1:
        raise ValueError(f"The knee is {knee}, but 0 or more and less than 1 is needed; 0.8 suits most plates.")

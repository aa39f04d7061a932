"""A green or blue screen's light taken off a foreground."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import check_pixels
from ..colour import LINEAR, convert_colours, luminance
from ..frames import at, by_frame

SCREENS = {"green": 1, "blue": 2}  # the channel
LIMITS = ("average", "maximum")


def spill(colours: Tensor, screen: str, limit: str) -> Tensor:
    """How much too much of the screen's channel there is: linear [..., 3] to [..., 1], 0 or more.

    limit: what the channel may be, the average or the maximum of the other two. Raises ValueError for an unknown screen
    or limit. Source: the usual keyer's rule, G <= (R + B) / 2 or G <= max(R, B).
    """
    if screen not in SCREENS or limit not in LIMITS:
        raise ValueError(
            f"Unknown screen {screen!r} or limit {limit!r}: use {' or '.join(SCREENS)}, and {' or '.join(LIMITS)}."
        )
    channel = SCREENS[screen]
    others = [colours[..., i : i + 1] for i in range(3) if i != channel]
    allowed = torch.maximum(*others) if limit == "maximum" else (others[0] + others[1]) / 2
    return (colours[..., channel : channel + 1] - allowed).clamp_min(0)


def despill(
    colours: Tensor, screen: str = "green", limit: str = "average", strength: float = 1.0, keep_luminance: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Colours without spill, [..., 3] linear Rec.709, straight or premultiplied alike, and what was taken, [..., 1].

    strength: the share of the spill that is taken, 0..1. keep_luminance: the share of the luminance so lost that comes
    back, 0..1, as gray, which leaves the channel below its limit. Where there is no spill the colours stay bit by bit.
    Raises ValueError for an unknown screen or limit.
    """
    taken = strength * spill(colours, screen, limit)
    unit = torch.zeros(3, dtype=colours.dtype)
    unit[SCREENS[screen]] = 1
    return colours + taken * (keep_luminance * luminance(unit) - unit), taken


def despill_clip(
    images: Tensor, screen: str, limit: str, strength: float, keep_luminance: float, space: str,
    after_frame: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`despill` of a clip, [F, H, W, 3|4] in `space` (of `colour.SPACES`), frame by frame: the same shape and space (a
    fourth channel stays), and what was taken of the screen's channel, [F, H, W], linear, 0 or more.

    Raises ValueError in one sentence for pixels that cannot be worked on.
    """
    check_pixels("The foreground", images, (3, 4))

    def make(number: int) -> tuple[Tensor, Tensor]:
        picture = convert_colours(at(images, number), space, LINEAR)
        colours, taken = despill(picture[..., :3], screen, limit, strength, keep_luminance)
        return convert_colours(torch.cat((colours, picture[..., 3:]), dim=-1), LINEAR, space), taken[..., 0]

    return by_frame(len(images), make, after_frame)

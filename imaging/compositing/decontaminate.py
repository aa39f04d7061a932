"""The colour of a foreground without its old background, in closed form."""

from collections.abc import Callable

import torch
import torch.nn.functional
from torch import Tensor

from ..checks import check_alpha, check_pixels
from ..colour import LINEAR, convert_colours
from ..frames import at, by_frame, common_size
from .composite import over

_SOLID = 0.9  # alpha from which a pixel's colour counts as the foreground's own, fully so at 1


def decontaminated(plate: Tensor, alpha: Tensor, background: Tensor, guess: Tensor, hold: float) -> Tensor:
    """The straight foreground F* = (hold * guess + a (C - (1 - a) B)) / (hold + a^2), which minimises
    |a F + (1 - a) B - C|^2 + hold |F - guess|^2.

    plate C, background B, guess (a predicted foreground, or `extended`): linear [..., 3]; alpha a: [..., 1] in 0..1.
    over(F*, a, B) differs from the plate by hold / (hold + a^2) of what over(guess, a, B) differs: with hold 0 they are
    equal wherever a is above 0. Where a is 0 it is the guess. Any finite values, never clamped: F* can be negative
    where a or B is wrong. Source: the normal equation of the sum above.
    """
    weight = hold + alpha**2
    # At hold 0 and alpha 0 nothing speaks for any colour.
    solved = (hold * guess + alpha * (plate - (1 - alpha) * background)) / torch.where(weight == 0, 1, weight)
    return torch.where(alpha == 0, guess, solved)


def extended(colours: Tensor, alpha: Tensor) -> Tensor:
    """The colours of solid parts drawn out over all else: linear [H, W, 3] and alpha [H, W, 1] to [H, W, 3].

    Where alpha is 1 colours stay; elsewhere they are means of solid ones, the nearer the finer. Without any solid part
    they stay as they are. Source: pull-push, Gortler et al. 1996.
    """
    solid = ((alpha - _SOLID) / (1 - _SOLID)).clamp(0, 1)
    if not solid.any():
        return colours
    levels = [torch.cat((colours * solid, solid), dim=-1).permute(2, 0, 1).unsqueeze(0)]  # [1, RGBW, h, w]
    while max(levels[-1].shape[2:]) > 1:
        levels.append(torch.nn.functional.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
    filled = levels.pop()
    filled = filled / filled[:, 3:]
    for finer in reversed(levels):
        coarse = torch.nn.functional.interpolate(filled, size=finer.shape[2:], mode="bilinear")
        filled = finer + (1 - finer[:, 3:]) * coarse  # weights sum to 1, as they do at the coarser level
    return filled[0, :3].permute(1, 2, 0)


def decontaminate(
    plate: Tensor,
    alpha: Tensor,
    background: Tensor,
    foreground: Tensor | None = None,
    *,
    hold: float,
    positive: bool = False,
    space: str = "sRGB",
    after_frame: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Clips of it: the straight foreground [F, H, W, 3] in `space`, and the residual [F, H, W, 3],
    plate - over(F*, alpha, background) in linear light, signed, brought to `space` too (the curve is odd).

    plate, background (clean, also behind the object), foreground (the guess; the plate `extended` if None): [F, H, W,
    3|4], a fourth channel is left out; alpha: [F, H, W] in 0..1; all in `space` (of `colour.SPACES`), stills hold for
    all frames. hold: 0 or more, in squares of alpha. positive: that no colour gets below 0, or below plate and guess
    where they are; what this changes is in the residual. Raises ValueError in one sentence for clips that do not go
    together.
    """
    if not hold >= 0:
        raise ValueError(f"hold is {hold}, but 0 or more is needed; 0.03 suits most mattes.")
    pictures = {"plate": plate, "background": background}
    if foreground is not None:
        pictures["foreground"] = foreground
    for name, clip in pictures.items():
        check_pixels(f"The {name}", clip, (3, 4))
    check_alpha("The alpha", alpha)
    count, _, _ = common_size({**pictures, "alpha": alpha})

    def make(number: int) -> tuple[Tensor, Tensor]:
        C, B, *guess = (convert_colours(at(clip, number)[..., :3], space, LINEAR) for clip in pictures.values())
        a = at(alpha, number).unsqueeze(-1)
        start = guess[0] if guess else extended(C, a)
        clean = decontaminated(C, a, B, start, hold)
        if positive:
            clean = torch.maximum(clean, torch.minimum(C, start).clamp_max(0))
        return tuple(convert_colours(picture, LINEAR, space) for picture in (clean, C - over(clean, a, B)))

    return by_frame(count, make, after_frame)

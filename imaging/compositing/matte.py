"""Mattes made clean. An alpha is [F, H, W] float, 0 out, 1 in: data, never with a curve."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional
from torch import Tensor

from ..checks import check_pixels
from ..frames import at, by_frame
from .islands import island_areas


def levels(alpha: Tensor, black: float = 0.0, white: float = 1.0, gamma: float = 1.0) -> Tensor:
    """Clamped to 0..1 between the black point, which becomes 0, and the white point, which becomes 1; then to the power
    1 / gamma, so that more than 1 makes soft edges denser. Any shape. Raises ValueError unless black < white and
    gamma > 0.
    """
    if not (black < white and gamma > 0):
        raise ValueError(
            f"The black point is {black}, the white point {white} and the gamma {gamma}, but black below white and a "
            "gamma above 0 are needed."
        )
    stretched = ((alpha - black) / (white - black)).clamp(0, 1)
    return stretched if gamma == 1 else stretched ** (1 / gamma)


def remove_specks(alpha: Tensor, area: int) -> Tensor:
    """Alpha [H, W] in 0..1 without its specks: connected pixels (8 neighbours) above 0, at most `area` of them."""
    inside = alpha > 0
    return torch.where(inside & (island_areas(inside, diagonal=True) <= area), 0, alpha)


def fill_holes(alpha: Tensor, area: int) -> Tensor:
    """Alpha [H, W] in 0..1 without its holes: connected pixels (4 neighbours) below 1, at most `area` of them."""
    open_ = alpha < 1
    return torch.where(open_ & (island_areas(open_, diagonal=False) <= area), 1, alpha)


def grow(alpha: Tensor, pixels: float) -> Tensor:
    """Dilated by a disc of that radius, or eroded where it is negative; parts of a pixel count.

    alpha: [F, H, W]. Between whole radii the two results are mixed, which moves an upright or level edge by just that
    part; slanting ones move up to 0.4 pixels less, as discs of whole pixels are not quite round. What lies outside the
    picture counts for nothing. Source: gray-scale morphology, flat discs dx^2 + dy^2 <= r^2.
    """
    if pixels < 0:
        return -grow(-alpha, -pixels)
    whole = math.floor(pixels)
    grown = _dilate(alpha, whole)
    return grown if pixels == whole else torch.lerp(grown, _dilate(alpha, whole + 1), pixels - whole)


def _dilate(alpha: Tensor, radius: int) -> Tensor:
    rows, grown = alpha.shape[1], alpha.clone()
    for down in range(min(radius, rows - 1) + 1):
        half = math.isqrt(radius**2 - down**2)
        row = torch.nn.functional.max_pool2d(alpha.unsqueeze(1), (1, 2 * half + 1), 1, (0, half)).squeeze(1)
        grown[:, down:] = torch.maximum(grown[:, down:], row[:, : rows - down])
        grown[:, : rows - down] = torch.maximum(grown[:, : rows - down], row[:, down:])
    return grown


def soften(alpha: Tensor, sigma: float) -> Tensor:
    """Blurred by a Gaussian of that many pixels in the soft band only, where 0 < alpha < 1; 0 and 1 stay.

    alpha: [F, H, W]. The picture's edge pixels are repeated outwards; the Gaussian ends at 3 sigma.
    """
    if sigma == 0:
        return alpha
    reach = max(1, math.ceil(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=alpha.dtype) / sigma) ** 2)
    weights /= weights.sum()
    padded = torch.nn.functional.pad(alpha.unsqueeze(1), (reach,) * 4, mode="replicate")
    blurred = torch.nn.functional.conv2d(padded, weights.view(1, 1, 1, -1))
    blurred = torch.nn.functional.conv2d(blurred, weights.view(1, 1, -1, 1)).squeeze(1)
    return torch.where((alpha > 0) & (alpha < 1), blurred, alpha)


def steady(around: Tensor, middle: int) -> Tensor:
    """The middle frame with the median over frames in its soft band, 0 < alpha < 1: [odd, H, W] to [H, W]."""
    alpha = around[middle]
    return torch.where((alpha > 0) & (alpha < 1), around.median(dim=0).values, alpha)


@dataclass(frozen=True)
class MatteSettings:
    """How a matte is refined, in this order; the defaults only clamp it to 0..1.

    black, white, gamma: `levels`. specks, holes: pixels of area, `remove_specks`, `fill_holes`. frames: how many before
    and as many after, `steady`; at the ends of the clip the end frame is repeated. grow: pixels, `grow`. blur: pixels,
    `soften`.
    """

    black: float = 0.0
    white: float = 1.0
    gamma: float = 1.0
    specks: int = 0
    holes: int = 0
    frames: int = 0
    grow: float = 0.0
    blur: float = 0.0


def refine_matte(alpha: Tensor, settings: MatteSettings, after_frame: Callable[[], None] = lambda: None) -> Tensor:
    """A clip's matte refined: [F, H, W], any finite values, to [F, H, W] in 0..1, frame by frame.

    Raises ValueError in one sentence for another shape, NaN, and points that do not go together.
    """
    check_pixels("The matte", alpha.unsqueeze(-1) if alpha.ndim == 3 else alpha, (1,))
    last, reach = len(alpha) - 1, settings.frames
    clean: dict[int, Tensor] = {}  # the frames around the current one, [H, W] each

    def cleaned(number: int) -> Tensor:
        if number not in clean:
            frame = levels(at(alpha, number), settings.black, settings.white, settings.gamma)
            frame = remove_specks(frame, settings.specks) if settings.specks else frame
            clean[number] = fill_holes(frame, settings.holes) if settings.holes else frame
        return clean[number]

    def make(number: int) -> tuple[Tensor]:
        for passed in [i for i in clean if i < number - reach]:
            del clean[passed]
        around = [cleaned(min(max(i, 0), last)) for i in range(number - reach, number + reach + 1)]
        frame = steady(torch.stack(around), reach) if reach else around[0]
        return (soften(grow(frame.unsqueeze(0), settings.grow), settings.blur)[0],)

    return by_frame(len(alpha), make, after_frame)[0]

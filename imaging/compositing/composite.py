"""Layers over one another: Porter-Duff's operators, screen and multiply, in scene-linear light.

Words: a colour is *straight* or *premultiplied* by its alpha; alpha, 0..1, is data and never gets a curve.
"""

from collections.abc import Callable

import torch
from torch import Tensor

STRAIGHT, PREMULTIPLIED = "straight", "premultiplied"


def over(fg: Tensor, alpha: Tensor, bg: Tensor) -> Tensor:
    """Straight foreground over an opaque background, linear: alpha * fg + (1 - alpha) * bg, shapes that broadcast."""
    return alpha * fg + (1 - alpha) * bg


def premultiply(colours: Tensor, alpha: Tensor) -> Tensor:
    """Straight to premultiplied: linear [..., 3] times alpha [..., 1]."""
    return colours * alpha


def unpremultiply(colours: Tensor, alpha: Tensor) -> Tensor:
    """Premultiplied to straight: linear [..., 3], finite, by alpha [..., 1]; 0 where alpha is 0, also for light without
    cover, as of a glow, which has no straight colour.
    """
    return colours / torch.where(alpha == 0, torch.inf, alpha)


# What becomes of a layer A, alpha a, on B, alpha b: all premultiplied, linear [..., 3] and [..., 1].
Operator = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _porter_duff(shares: Callable[[Tensor, Tensor], tuple[Tensor | float, Tensor | float]]) -> Operator:
    """The operator that keeps these shares of A and of B, given a and b."""

    def operate(A: Tensor, a: Tensor, B: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        of_a, of_b = shares(a, b)
        return of_a * A + of_b * B, (of_a * a + of_b * b).clamp(0, 1)  # only plus can pass 1

    return operate


def _screen(A: Tensor, a: Tensor, B: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    # A + B - A * B darkens what is brighter than white; with the product's factors in 0..1 it is the same in 0..1, only
    # ever brightens above, and nothing (A = 0) changes nothing.
    return A + B - A.clamp(0, 1) * B.clamp(0, 1), a + b - a * b


def _multiply(A: Tensor, a: Tensor, B: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return (1 - b) * A + (1 - a) * B + A * B, a + b - a * b


# Sources: Porter and Duff 1984; screen and multiply with alpha as W3C Compositing and Blending 1.
OPERATORS: dict[str, Operator] = {
    "over": _porter_duff(lambda a, b: (1.0, 1 - a)),
    "under": _porter_duff(lambda a, b: (1 - b, 1.0)),
    "in": _porter_duff(lambda a, b: (b, 0.0)),
    "out": _porter_duff(lambda a, b: (1 - b, 0.0)),
    "atop": _porter_duff(lambda a, b: (b, 1 - a)),
    "plus": _porter_duff(lambda a, b: (1.0, 1.0)),
    "screen": _screen,
    "multiply": _multiply,
}

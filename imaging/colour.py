"""The sRGB transfer curve, IEC 61966-2-1:1999, in its exact piecewise form.

Both functions are odd, f(-x) = -f(x), and clamp nothing: values below 0 (out of gamut) and above 1 (highlights) survive
a round trip, as a compositor expects.
"""

import torch
from torch import Tensor

# The standard rounds both ends of the linear toe, so the two curves miss each other by 3e-8 at the joint.
_ENCODED_TOE = 0.04045
_LINEAR_TOE = 0.0031308


def srgb_to_linear(x: Tensor) -> Tensor:
    """Display-referred sRGB to scene-linear light with Rec.709 primaries.

    x: float tensor of any shape, sRGB-encoded, 0..1 nominal, any finite value allowed. Returns the same shape, linear.
    Source: IEC 61966-2-1, extended oddly to negatives, unclamped.
    """
    # The clamp only feeds the branch that `where` discards: a power at 0 would put NaN into gradients through both
    # branches.
    power = ((x.abs().clamp_min(_ENCODED_TOE) + 0.055) / 1.055) ** 2.4
    return torch.where(x.abs() <= _ENCODED_TOE, x / 12.92, power.copysign(x))


def linear_to_srgb(x: Tensor) -> Tensor:
    """Scene-linear light with Rec.709 primaries to display-referred sRGB; the inverse of `srgb_to_linear`.

    x: float tensor of any shape, linear, 0..1 nominal, any finite value allowed. Returns the same shape, sRGB-encoded.
    Source: IEC 61966-2-1, extended oddly to negatives, unclamped.
    """
    power = 1.055 * x.abs().clamp_min(_LINEAR_TOE) ** (1 / 2.4) - 0.055
    return torch.where(x.abs() <= _LINEAR_TOE, x * 12.92, power.copysign(x))

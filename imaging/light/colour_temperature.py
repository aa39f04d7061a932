"""The colour of light by its temperature: a black body's, in linear Rec.709."""

import torch
from torch import Tensor

COOLEST, HOTTEST = 1667.0, 25000.0  # kelvin: as far as the fit is made

# The inverse of IEC 61966-2-1's matrix: CIE XYZ (D65) to linear Rec.709.
_FROM_XYZ = (
    (3.2409699, -1.5373832, -0.4986108),
    (-0.9692436, 1.8759675, 0.0415551),
    (0.0556301, -0.2039770, 1.0569715),
)
# Kim et al. 2002 (US patent 7024034): x as a polynomial of 1000 / T, y as one of x, each from its temperature on.
_X = ((1667.0, (0.179910, 0.8776956, -0.2343589, -0.2661239)), (4000.0, (0.240390, 0.2226347, 2.1070379, -3.0258469)))
_Y = (
    (1667.0, (-0.20219683, 2.18555832, -1.34811020, -1.1063814)),
    (2222.0, (-0.16748867, 2.09137015, -1.37418593, -0.9549476)),
    (4000.0, (-0.37001483, 3.75112997, -5.87338670, 3.0817580)),
)


def black_body_xy(kelvin: float) -> tuple[float, float]:
    """CIE 1931 chromaticity of a black body of 1667 to 25000 K, within 0.001 of Planck's law.

    Source: Kim et al. 2002, the cubic fit of the Planckian locus. Raises ValueError outside that range.
    """
    if not COOLEST <= kelvin <= HOTTEST:
        raise ValueError(
            f"The colour temperature is {kelvin:g} K, but {COOLEST:.0f} to {HOTTEST:.0f} K is needed (a candle 1900, a "
            "bulb 2800, noon 5500, shade 8000); give one of that range."
        )
    x = _polynomial(_X, kelvin, 1000 / kelvin)
    return x, _polynomial(_Y, kelvin, x)


def black_body(kelvin: float) -> Tensor:
    """Linear Rec.709 [3] of a black body, at luminance 1 before what lies outside of Rec.709 is cut to 0.

    Near 6500 K it is within 5 % of white, which is D65, daylight, and no black body. Raises ValueError as
    `black_body_xy`.
    """
    x, y = black_body_xy(kelvin)
    return (torch.tensor(_FROM_XYZ) @ torch.tensor([x / y, 1.0, (1 - x - y) / y])).clamp_min(0)


def _polynomial(pieces: tuple, kelvin: float, at: float) -> float:
    coefficients = next(c for start, c in reversed(pieces) if kelvin >= start)
    return sum(c * at**power for power, c in enumerate(coefficients))

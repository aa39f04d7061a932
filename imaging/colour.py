"""Colour spaces: the sRGB curve in its exact form, and what lies between RGB primaries.

Curves and matrices are for colour only. Data (normals, alpha, depth, flow, ids) never gets either. Nothing here clamps:
values below 0 (out of gamut) and above 1 (highlights) survive a round trip, as a compositor expects.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# The standard rounds both ends of the linear toe, so the two curves miss each other by 3e-8 at the joint.
_ENCODED_TOE = 0.04045
_LINEAR_TOE = 0.0031308


def srgb_to_linear(x: Tensor) -> Tensor:
    """Display-referred sRGB to scene-linear light with Rec.709 primaries.

    x: float tensor of any shape, sRGB-encoded, 0..1 nominal, any finite value allowed. Returns the same shape, linear.
    Source: IEC 61966-2-1:1999, exact piecewise form, extended oddly to negatives, unclamped.
    """
    # The clamp only feeds the branch that `where` discards: a power at 0 would put NaN into gradients through both
    # branches.
    power = ((x.abs().clamp_min(_ENCODED_TOE) + 0.055) / 1.055) ** 2.4
    return torch.where(x.abs() <= _ENCODED_TOE, x / 12.92, power.copysign(x))


def linear_to_srgb(x: Tensor) -> Tensor:
    """Scene-linear light with Rec.709 primaries to display-referred sRGB; the inverse of `srgb_to_linear`.

    x: float tensor of any shape, linear, 0..1 nominal, any finite value allowed. Returns the same shape, sRGB-encoded.
    Source: IEC 61966-2-1:1999, exact piecewise form, extended oddly to negatives, unclamped.
    """
    power = 1.055 * x.abs().clamp_min(_LINEAR_TOE) ** (1 / 2.4) - 0.055
    return torch.where(x.abs() <= _LINEAR_TOE, x * 12.92, power.copysign(x))


_D65 = (0.3127, 0.3290)
_ACES_WHITE = (0.32168, 0.33767)  # "D60" to most, though not quite on the daylight curve


@dataclass(frozen=True)
class Gamut:
    """CIE 1931 xy of the red, green and blue primaries and of white."""

    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float]


# Sources: ITU-R BT.709-6, BT.2020-2; SMPTE EG 432-1 with D65; SMPTE ST 2065-1 (AP0); Academy S-2014-004 (AP1).
GAMUTS = {
    "rec709": Gamut((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    "ap1": Gamut((0.713, 0.293), (0.165, 0.830), (0.128, 0.044), _ACES_WHITE),
    "ap0": Gamut((0.7347, 0.2653), (0.0, 1.0), (0.0001, -0.0770), _ACES_WHITE),
    "p3d65": Gamut((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    "rec2020": Gamut((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
}


@dataclass(frozen=True)
class ColourSpace:
    """A gamut, and whether its values are sRGB-encoded; otherwise they are scene-linear."""

    gamut: str
    encoded: bool = False


SPACES = {
    "sRGB": ColourSpace("rec709", encoded=True),
    "linear Rec.709": ColourSpace("rec709"),
    "ACEScg (AP1)": ColourSpace("ap1"),
    "ACES2065-1 (AP0)": ColourSpace("ap0"),
    "linear P3-D65": ColourSpace("p3d65"),
    "Display P3": ColourSpace("p3d65", encoded=True),
    "linear Rec.2020": ColourSpace("rec2020"),
}

LINEAR = "linear Rec.709"  # what light is mixed in

_BRADFORD = torch.tensor(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]], dtype=torch.float64
)


@lru_cache
def gamut_matrix(source: str, target: str) -> Tensor:
    """The 3x3 float64 matrix M with target_rgb = M @ source_rgb, both scene-linear; white becomes white.

    source, target: keys of GAMUTS. Whites that differ are adapted (Bradford), in the relative colorimetric way of ACES.
    Not to be written to: one tensor is handed to all callers. Raises ValueError for an unknown gamut. Sources: SMPTE RP
    177 (primaries to XYZ), Lam 1985 (Bradford), as in ACES and OpenColorIO.
    """
    for name in (source, target):
        if name not in GAMUTS:
            raise ValueError(f"Unknown gamut {name!r}: use one of {', '.join(GAMUTS)}.")
    source_xyz, target_xyz = _to_xyz(GAMUTS[source]), _to_xyz(GAMUTS[target])
    return torch.linalg.solve(target_xyz, _adaptation(GAMUTS[source].white, GAMUTS[target].white) @ source_xyz)


def convert_colours(images: Tensor, source: str, target: str) -> Tensor:
    """Colours of one space in another: [..., 3|4] float to the same shape, unclamped.

    source, target: keys of SPACES. A fourth channel is alpha, data, and stays as it is; colours must be straight
    (unpremultiplied) where either space is encoded, since a curve of a product is no product of curves. The same space
    gives back the same values bit by bit. Raises ValueError for an unknown space.
    """
    for name in (source, target):
        if name not in SPACES:
            raise ValueError(f"Unknown colour space {name!r}: use one of {', '.join(SPACES)}.")
    one, other = SPACES[source], SPACES[target]
    if one == other:
        return images
    colours = images[..., :3]
    if one.encoded:
        colours = srgb_to_linear(colours)
    if one.gamut != other.gamut:
        colours = colours @ gamut_matrix(one.gamut, other.gamut).to(colours).T
    if other.encoded:
        colours = linear_to_srgb(colours)
    return torch.cat((colours, images[..., 3:]), dim=-1)


def luminance(images: Tensor) -> Tensor:
    """Y of scene-linear Rec.709: [..., 3] to [..., 1]. Source: the middle row of BT.709's matrix to XYZ."""
    return images @ _to_xyz(GAMUTS["rec709"])[1].to(images).unsqueeze(-1)


def _to_xyz(gamut: Gamut) -> Tensor:
    """RGB to XYZ, float64 [3, 3]: columns are the primaries, scaled so that (1, 1, 1) is white with Y = 1."""
    primaries = torch.stack([_xyz(xy) for xy in (gamut.red, gamut.green, gamut.blue)], dim=1)
    return primaries * torch.linalg.solve(primaries, _xyz(gamut.white))


def _xyz(xy: tuple[float, float]) -> Tensor:
    x, y = xy
    return torch.tensor([x / y, 1.0, (1 - x - y) / y], dtype=torch.float64)


def _adaptation(source: tuple[float, float], target: tuple[float, float]) -> Tensor:
    """What a change of white does to XYZ, float64 [3, 3]."""
    scale = (_BRADFORD @ _xyz(target)) / (_BRADFORD @ _xyz(source))
    return torch.linalg.solve(_BRADFORD, scale.unsqueeze(1) * _BRADFORD)

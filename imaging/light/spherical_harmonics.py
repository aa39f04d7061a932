"""The irradiance of an environment from nine numbers a channel: spherical harmonics of order 2.

A Lambertian surface sees an environment so blurred that order 2 holds it: at most 9.4 % of a single light's strength is
missed, 1 % on average (Ramamoorthi & Hanrahan 2001, "An Efficient Representation for Irradiance Environment Maps").
Lat-long pictures: the middle is where the camera looks (-Z), the right half is to its right, the top is up, as
OpenEXR's seen from within.
"""

import math

import torch
from torch import Tensor

# The clamped cosine in harmonics: pi, 2 pi / 3, pi / 4 by order (A0, A1, A2), for the nine of `_basis`.
_COSINE = (math.pi, *(2 * math.pi / 3,) * 3, *(math.pi / 4,) * 5)


def environment_light(picture: Tensor, rotation: Tensor) -> Tensor:
    """The harmonics [9, 3] of a lat-long environment's irradiance over pi.

    picture: [H, W, 3] linear radiance, >= 0, any range. rotation: [3, 3] that turns its directions into camera space.
    Each pixel counts by its exact solid angle.
    """
    height, width = picture.shape[:2]
    directions = latlong_directions(height, width) @ rotation.T
    edges = torch.linspace(math.pi / 2, -math.pi / 2, height + 1, dtype=torch.float64).sin()
    angle = (edges[:-1] - edges[1:]) * (2 * math.pi / width)  # [H] steradians of a pixel
    coefficients = torch.zeros(9, 3, dtype=torch.float64)
    for row in range(height):  # row by row: nine harmonics of an 8K environment at once would be gigabytes
        coefficients += angle[row] * (_basis(directions[row]).double().T @ picture[row].double())
    cosine = torch.tensor(_COSINE, dtype=torch.float64)
    return (cosine[:, None] * coefficients / math.pi).float()


def irradiance_from(coefficients: Tensor, normals: Tensor) -> Tensor:
    """Irradiance over pi [..., 3] on surfaces with unit normals [..., 3], from `environment_light`, cut at 0."""
    return (_basis(normals) @ coefficients).clamp_min(0)


def latlong_directions(height: int, width: int) -> Tensor:
    """The unit direction [H, W, 3] at the centre of every pixel of a lat-long picture."""
    up = (0.5 - (torch.arange(height) + 0.5) / height) * math.pi
    around = ((torch.arange(width) + 0.5) / width - 0.5) * 2 * math.pi
    up, around = torch.broadcast_tensors(up[:, None], around)
    return torch.stack([around.sin() * up.cos(), up.sin(), -around.cos() * up.cos()], -1)


def _basis(directions: Tensor) -> Tensor:
    """The nine real harmonics of unit directions, [..., 3] -> [..., 9]."""
    x, y, z = directions.unbind(-1)
    first, second, third = math.sqrt(0.75 / math.pi), math.sqrt(3.75 / math.pi), math.sqrt(0.3125 / math.pi)
    return torch.stack(
        [
            torch.full_like(x, math.sqrt(0.25 / math.pi)),
            first * y, first * z, first * x,
            second * x * y, second * y * z, third * (3 * z * z - 1), second * x * z, 0.5 * second * (x * x - y * y),
        ],
        -1,
    )  # fmt: skip

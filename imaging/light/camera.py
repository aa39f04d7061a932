"""The pinhole camera of a picture, in camera space: +X right, +Y up, +Z to the camera, which looks along -Z; metres.

Nuke, Blender and OpenGL count so. Pixels: x right, y down, the centre of the first one at (0.5, 0.5).
"""

import math

import torch
from torch import Tensor


def pixel_rays(height: int, width: int, field_of_view: float, rows: slice = slice(None)) -> Tensor:
    """The way from the camera through every pixel of some rows, [h, W, 3], as far as depth 1: z is -1 throughout.

    field_of_view: degrees over the picture's width, above 0 and below 180. Pixels are square. A position is its ray
    times its depth along the axis. Raises ValueError for another field of view.
    """
    if not 0 < field_of_view < 180:
        raise ValueError(
            f"The field of view is {field_of_view:g} degrees, but more than 0 and less than 180 are needed; give the "
            "camera's, over the picture's width."
        )
    focal = 0.5 * width / math.tan(math.radians(field_of_view) / 2)  # pixels
    x = (torch.arange(width) + 0.5 - width / 2) / focal
    y = (height / 2 - 0.5 - torch.arange(height)[rows]) / focal
    x, y = torch.broadcast_tensors(x, y[:, None])
    return torch.stack([x, y, -torch.ones_like(x)], -1)


def rotation(pan: float, tilt: float, roll: float) -> Tensor:
    """Camera to world of a camera that is turned: [3, 3], a column vector's matrix. Angles in degrees.

    pan: to the left about the vertical, tilt: upwards, roll: against the clock, applied roll first, pan last (the
    rotation Y, X, Z of Nuke's and Blender's cameras in a world with +Y up).
    """
    (sy, cy), (sx, cx), (sz, cz) = ((math.sin(math.radians(a)), math.cos(math.radians(a))) for a in (pan, tilt, roll))
    about_y = torch.tensor([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    about_x = torch.tensor([[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]])
    about_z = torch.tensor([[cz, -sz, 0.0], [sz, cz, 0.0], [0.0, 0.0, 1.0]])
    return about_y @ about_x @ about_z

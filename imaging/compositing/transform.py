"""A picture moved, turned and scaled onto a canvas, as in a compositor's transform node."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional
from torch import Tensor

_MOST_PLACES = 16  # along a side of a pixel: below a sixteenth of the size a picture is a few pixels anyway


@dataclass(frozen=True)
class Move:
    """x, y: pixels of the canvas to the right and down. scale: 1 keeps a pixel a pixel. rotation: degrees,
    counter-clockwise. Turning and scaling go about the picture's centre, which starts at the canvas's centre.
    """

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    rotation: float = 0.0

    def __post_init__(self):
        if not all(map(math.isfinite, (self.x, self.y, self.scale, self.rotation))) or self.scale <= 0:
            raise ValueError(f"{self} cannot be done: finite numbers and a scale above 0 are needed.")


def place(picture: Tensor, height: int, width: int, move: Move) -> Tensor:
    """The picture on an empty canvas: float [h, w, C] to [height, width, C], 0 where the picture is not.

    The picture must be premultiplied and linear, so that what lies outside is 0. A move by whole pixels copies bit by
    bit. All else is bilinear; a picture that gets smaller is averaged over each pixel of the canvas, on a grid of
    places as fine as its own pixels.
    """
    left = (width - picture.shape[1]) / 2 + move.x
    top = (height - picture.shape[0]) / 2 + move.y
    if move.scale == 1 and move.rotation % 360 == 0 and left.is_integer() and top.is_integer():
        return _paste(picture, height, width, int(left), int(top))
    places = min(math.ceil(1 / move.scale), _MOST_PLACES)
    canvas = picture.new_zeros(height, width, picture.shape[-1])
    source = picture.permute(2, 0, 1).unsqueeze(0)  # [1, C, h, w]
    for row in range(places):
        for column in range(places):
            offset = ((column + 0.5) / places, (row + 0.5) / places)
            grid = _sources(picture, height, width, move, offset)
            canvas += torch.nn.functional.grid_sample(source, grid, align_corners=False)[0].permute(1, 2, 0)
    return canvas / places**2


def _paste(picture: Tensor, height: int, width: int, left: int, top: int) -> Tensor:
    if (left, top) == (0, 0) and picture.shape[:2] == (height, width):
        return picture
    canvas = picture.new_zeros(height, width, picture.shape[-1])
    part = picture[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
    top, left = max(0, top), max(0, left)
    canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
    return canvas


def _sources(picture: Tensor, height: int, width: int, move: Move, offset: tuple[float, float]) -> Tensor:
    """Where in the picture the places (column, row) + offset of the canvas come from: [1, H, W, 2] in -1..1."""
    x = torch.arange(width, dtype=picture.dtype) + (offset[0] - width / 2 - move.x)
    y = (torch.arange(height, dtype=picture.dtype) + (offset[1] - height / 2 - move.y)).unsqueeze(1)
    # Rows count down, so the usual matrix turns clockwise, and its inverse, which is what sources need, the other way.
    cosine, sine = math.cos(math.radians(move.rotation)), math.sin(math.radians(move.rotation))
    across = (cosine * x - sine * y) / move.scale * (2 / picture.shape[1])
    down = (sine * x + cosine * y) / move.scale * (2 / picture.shape[0])
    return torch.stack((across, down), dim=-1).unsqueeze(0)

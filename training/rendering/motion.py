"""Rotations and the few ways in which things move. T times, in seconds; angles in radians."""

import math

import torch
from torch import Tensor


def turn_x(angle: Tensor) -> Tensor:
    """[T] -> [T, 3, 3], a rotation about +X."""
    return _turn(angle, 0, 1, 2)


def turn_y(angle: Tensor) -> Tensor:
    """[T] -> [T, 3, 3], a rotation about +Y: from +Z towards +X."""
    return _turn(angle, 1, 2, 0)


def turn_z(angle: Tensor) -> Tensor:
    """[T] -> [T, 3, 3], a rotation about +Z: from +X towards +Y."""
    return _turn(angle, 2, 0, 1)


def _turn(angle: Tensor, axis: int, first: int, second: int) -> Tensor:
    out = torch.zeros(len(angle), 3, 3)
    out[:, axis, axis] = 1
    out[:, first, first] = out[:, second, second] = angle.cos()
    out[:, second, first] = angle.sin()
    out[:, first, second] = -angle.sin()
    return out


def glide(times: Tensor, speed: float, limit: float) -> Tensor:
    """How far something has moved that starts at `speed` and never passes `limit`, so that a long shot keeps it in
    the set while it moves one way only, as its caption says. [T] -> [T]."""
    return limit * torch.tanh(times * (speed / limit))


def wave(times: Tensor, period: float, phase: float = 0.0) -> Tensor:
    """A sine of -1..1; phase in turns. [T] -> [T]."""
    return torch.sin(2 * math.pi * (times / period + phase))


def look_at(position: Tensor, target: Tensor) -> Tensor:
    """Rotation [T, 3, 3] whose columns are right, up and backward of an eye at position [T, 3] that sees target."""
    backward = torch.nn.functional.normalize(position - target, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([[0.0, 1.0, 0.0]]).expand_as(backward),
                                                             backward), dim=-1)  # fmt: skip
    return torch.stack([right, torch.linalg.cross(backward, right), backward], -1)

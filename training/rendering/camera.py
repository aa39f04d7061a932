"""The pinhole camera. Pixels: x right, y down, the centre of the first pixel at (0.5, 0.5)."""

import math

import torch
from torch import Tensor


def focal_length(fov: float, height: int, width: int) -> float:
    """In pixels; fov: radians over the shorter side, so that portrait and landscape frame the same middle."""
    return 0.5 * min(height, width) / math.tan(fov / 2)


def pixel_grid(height: int, width: int) -> Tensor:
    """The centres of all pixels, [H*W, 2] (x, y)."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def camera_rays(pixels: Tensor, focal: float, height: int, width: int) -> Tensor:
    """Unit directions in camera space (+X right, +Y up, +Z backward). pixels: [..., P, 2] -> [..., 3, P]."""
    x = (pixels[..., 0] - width / 2) / focal
    y = (height / 2 - pixels[..., 1]) / focal
    rays = torch.stack([x, y, -torch.ones_like(x)], -2)
    return rays / rays.norm(dim=-2, keepdim=True)


def project(points: Tensor, eye: Tensor, view: Tensor, focal: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pixels [T, P, 2] and depth [T, P] of world points [T, P, 3]; depth: metres along the axis, positive in front."""
    x, y, z = ((points - eye[:, None]) @ view).unbind(-1)
    depth = -z
    safe = depth.clamp_min(1e-6)
    return torch.stack([width / 2 + focal * x / safe, height / 2 - focal * y / safe], -1), depth

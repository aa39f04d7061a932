"""A shot's layers as pictures: three channels in 0..1, as a network or a contact sheet takes them."""

import colorsys
import math

import torch
from torch import Tensor

from ..imaging.colour import linear_to_srgb
from .rendering.figures import BONES
from .scenes import Shot

_IUV_PARTS = 24


def pictures(shot: Shot) -> dict[str, Tensor]:
    """Layer name -> [F, H, W, 3] float32 in 0..1.

    Colour (rgb, albedo, irradiance, plate, fg, bg) is sRGB-encoded and clipped; fg is premultiplied, so that its edges
    fade to black. normal is 0.5 n + 0.5. depth is inverse depth, 1 at the nearest point of the shot and 0 at infinity.
    flow has the direction as hue and its length as saturation, full at 5 % of the diagonal. segmentation gives every id
    a hue. densepose is (part / 24, u, v). skeleton draws bones with a seen end on black.
    """
    out = {
        "rgb": shot.rgb,
        "albedo": shot.albedo,
        "irradiance": linear_to_srgb(shot.irradiance),
        "normal": 0.5 + 0.5 * shot.normal,
        "depth": (shot.depth.amin() / shot.depth).expand(-1, -1, -1, 3),
        "flow": flow_picture(shot.forward),
        "segmentation": _segments(shot.ids),
        "densepose": shot.iuv / torch.tensor([_IUV_PARTS, 1.0, 1.0]),
        "skeleton": _skeleton(shot),
    }
    if shot.plate is not None:
        plate = shot.plate
        out |= {
            "plate": plate.plate,
            "alpha": plate.alpha.expand(-1, -1, -1, 3),
            "fg": linear_to_srgb(plate.fg_linear * plate.alpha),
            "bg": plate.bg,
        }
    return {name: image.clamp(0, 1) for name, image in out.items()}


def flow_picture(flow: Tensor) -> Tensor:
    """Flow [F, H, W, 2] in pixels as colour [F, H, W, 3]: white is no motion, hue its direction."""
    height, width = flow.shape[1:3]
    strength = (flow.norm(dim=-1) / (0.05 * math.hypot(height, width))).clamp(0, 1)[..., None]
    angle = torch.atan2(flow[..., 1], flow[..., 0])[..., None]
    hue = 0.5 + 0.5 * torch.cos(angle - torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3]))
    return 1 - strength * (1 - hue)


def _segments(ids: Tensor) -> Tensor:
    # Golden-ratio hues: neighbours in number are far apart in colour.
    palette = [(0.0, 0.0, 0.0)] + [colorsys.hsv_to_rgb(0.618 * i % 1, 0.75, 0.95) for i in range(int(ids.max()))]
    return torch.tensor(palette)[ids[..., 0]]


def _skeleton(shot: Shot) -> Tensor:
    """Bones as soft lines, one hue each; [F, H, W, 3]."""
    frames, height, width = shot.depth.shape[:3]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    grid = torch.stack([x, y], -1)
    half = max(0.5, min(height, width) / 120)
    image = torch.zeros(frames, height, width, 3)
    for person in range(len(shot.people)):
        for number, (i, j) in enumerate(BONES):
            a, b = shot.joints[:, person, i, None, None], shot.joints[:, person, j, None, None]  # [F, 1, 1, 2]
            seen = shot.joints_visible[:, person, i] & shot.joints_visible[:, person, j]
            edge = b - a
            share = ((grid - a) * edge).sum(-1, keepdim=True) / (edge**2).sum(-1, keepdim=True).clamp_min(1e-6)
            away = (grid - a - share.clamp(0, 1) * edge).norm(dim=-1, keepdim=True)
            ink = (half + 0.5 - away).clamp(0, 1) * seen[:, None, None, None]
            colour = torch.tensor(colorsys.hsv_to_rgb(number / len(BONES), 1.0, 1.0))
            image = torch.lerp(image, colour.expand_as(image), ink.expand_as(image))
    return image

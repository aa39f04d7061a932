"""What the nodes ask about the colours on their sockets, and the curves between those and linear light."""

from __future__ import annotations

from collections.abc import Callable

import torch
from comfy_api.latest import io

from ..imaging.colour import LINEAR, linear_to_srgb, srgb_to_linear

SRGB = "sRGB"

Curve = Callable[[torch.Tensor], torch.Tensor]


def colours_input(of: str = "the pictures, in and out,", name: str = "colours", *, advanced: bool = False) -> io.Input:
    """Whether pictures are encoded or scene-linear: names of `imaging.colour.SPACES`. `of` says which pictures."""
    return io.Combo.Input(name, options=[SRGB, LINEAR], default=SRGB, advanced=advanced,
                          tooltip=f"How {of} are stored: '{SRGB}' as ComfyUI's pictures are, '{LINEAR}' as a "
                                  "renderer's and EXR's. The work is done in linear light; nothing is clamped.")


def curves(colours: str) -> tuple[Curve, Curve]:
    """What makes pictures of this choice linear, and what brings linear ones back to it."""
    return (srgb_to_linear, linear_to_srgb) if colours == SRGB else (_same, _same)


def _same(pixels: torch.Tensor) -> torch.Tensor:
    return pixels

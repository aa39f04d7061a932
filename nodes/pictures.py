"""What the nodes for light share: transfer curves, and progress through a clip."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

from ..imaging.colour import linear_to_srgb, srgb_to_linear

SRGB, LINEAR = "sRGB", "linear Rec.709"

Curve = Callable[[torch.Tensor], torch.Tensor]


def colour_input(name: str, of: str, *, advanced: bool = True) -> io.Input:
    """The choice of a transfer curve; `of` says of what."""
    return io.Combo.Input(name, options=[SRGB, LINEAR], default=SRGB, advanced=advanced,
                          tooltip=f"How {of} are stored: '{SRGB}' as ComfyUI's pictures are, '{LINEAR}' as a "
                                  "renderer's and EXR's. The work is done in linear light; nothing is clamped.")


def curves(colour: str) -> tuple[Curve, Curve]:
    """What makes pictures of this choice linear, and what brings linear ones back to it."""
    return (srgb_to_linear, linear_to_srgb) if colour == SRGB else (_same, _same)


def each_frame(*clips: torch.Tensor | None) -> Callable[[], None]:
    """What is called after every frame of the longest clip: it moves the node's progress bar, and raises when the queue
    was stopped."""
    bar = comfy.utils.ProgressBar(max(len(clip) for clip in clips if clip is not None))

    def done():
        bar.update(1)
        comfy.model_management.throw_exception_if_processing_interrupted()

    return done


def _same(pixels: torch.Tensor) -> torch.Tensor:
    return pixels

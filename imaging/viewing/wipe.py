"""Two clips as one for showing: A left of a moving edge, B right of it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_pixels

SWEEPS = ("there and back", "left to right", "still")
_EDGE = 400  # a white line of one pixel for so many of the width


def wipe(a: Tensor, b: Tensor, sweep: str = SWEEPS[0], at: float = 0.5) -> Tensor:
    """[F, H, W, 1|3|4] twice, of one size, to [F, H, W, 3], F the longer: the shorter one holds its last frame.

    sweep: the edge goes over the whole width "there and back" or from "left to right" once in the clip, or stands
    "still" at the share `at` (0..1) of the width. Alpha is dropped. Raises ValueError for pixels that `check_pixels`
    refuses, sizes that differ and an unknown sweep.
    """
    for name, images in (("Clip A", a), ("Clip B", b)):
        check_pixels(name, images)
    if a.shape[1:3] != b.shape[1:3]:
        sizes = [f"{images.shape[2]}x{images.shape[1]}" for images in (a, b)]
        raise ValueError(f"Clip A is {sizes[0]} and clip B {sizes[1]}, but a wipe needs one size: scale one of them.")
    if sweep not in SWEEPS:
        raise ValueError(f"There is no sweep {sweep!r}: use one of {', '.join(SWEEPS)}.")
    frames, (height, width) = max(len(a), len(b)), a.shape[1:3]
    out = torch.empty(frames, height, width, 3, dtype=a.dtype, device=a.device)
    for i, share in enumerate(_shares(frames, sweep, at)):
        edge = min(width, max(0, round(share * width)))
        left, right = (_colour(images[min(i, len(images) - 1)]) for images in (a, b))
        out[i, :, :edge], out[i, :, edge:] = left[:, :edge], right[:, edge:].to(out)
        out[i, :, edge:edge + max(1, width // _EDGE)] = 1.0
    return out


def _shares(frames: int, sweep: str, at: float) -> list[float]:
    """Where the edge is in each frame, as a share of the width."""
    if sweep == "still" or frames == 1:
        return [at] * frames
    turns = 2 if sweep == SWEEPS[0] else 1
    times = [turns * i / (frames - 1) for i in range(frames)]
    return [time if time <= 1 else 2 - time for time in times]


def _colour(frame: Tensor) -> Tensor:
    """[H, W, 1|3|4] as [H, W, 3]."""
    return frame.expand(*frame.shape[:2], 3) if frame.shape[-1] == 1 else frame[..., :3]

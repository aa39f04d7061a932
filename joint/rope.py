"""Rotary positions (RoFormer, arXiv 2104.09864): 3D with interleaved pairs for pictures, as Wan lays them out, and 1D
with pairs half a head apart for text (as GPT-NeoX)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GridOptions:
    """Scale and shift of the (frame, row, column) positions; ComfyUI's `rope_options` in our order."""

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


def axis_sizes(head_dim: int) -> tuple[int, int, int]:
    """How many of a head's channels turn with time, rows and columns: 44, 42, 42 for 128."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def grid_rope(grid: tuple[int, int, int], head_dim: int, offset=(0, 0, 0), options: GridOptions = GridOptions(),
              base: float = 10000.0, device=None) -> Tensor:
    """Cosines and sines of every token of an (f, h, w) grid, row-major: [2, f*h*w, head_dim/2], float32.

    Angles are position * base^(-2j/size) per axis, computed in float64 where the device has it.
    """
    wide = torch.float32 if torch.device(device or "cpu").type == "mps" else torch.float64
    parts = []
    for axis, size in enumerate(axis_sizes(head_dim)):
        start = offset[axis] + options.shift[axis]
        length = (grid[axis] - 1) * options.scale[axis]
        position = torch.linspace(start, start + length, grid[axis], dtype=wide, device=device)
        frequency = base ** (-torch.arange(0, size, 2, dtype=wide, device=device) / size)
        shape = [1, 1, 1, -1]
        shape[axis] = grid[axis]
        parts.append(torch.outer(position, frequency).view(shape).expand(*grid, -1))  # [f, h, w, size/2]
    angle = torch.cat(parts, dim=-1).flatten(0, 2)  # [L, d/2]
    return torch.stack((angle.cos(), angle.sin())).float()


def line_rope(length: int, head_dim: int, base: float = 10000.0, device=None) -> Tensor:
    """Cosines and sines of tokens 0, 1, ... of a text: [2, length, head_dim/2], float32.

    One axis over the whole head; the angles are made in float32, as Uni-ViGU's code makes them."""
    frequency = 1.0 / base ** (torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
    angle = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequency)
    return torch.stack((angle.cos(), angle.sin()))


def rotate(x: Tensor, rope: Tensor, halved: Sequence[tuple[int, int]] = ()) -> Tensor:
    """Turn the channel pairs of `x` [N, T, H, d] by `rope` [2, T, d/2]: in float32, back to x's dtype.

    A pair is the channels (2j, 2j+1); in the ranges (start, stop) of tokens in `halved`, (j, j + d/2)."""
    cos, sin = rope.unsqueeze(2)  # each [T, 1, d/2]
    out = torch.empty_like(x)
    half, start = x.shape[-1] // 2, 0
    for first, last in (*halved, (x.shape[1], x.shape[1])):
        for begin, end, a, b in ((start, first, slice(0, None, 2), slice(1, None, 2)),
                                 (first, last, slice(0, half), slice(half, None))):
            if begin < end:
                here = slice(begin, end)
                u, v, c, s = x[:, here, :, a], x[:, here, :, b], cos[here], sin[here]
                # Written half by half: the float32 temporaries stay half the size of x, and bf16 inputs promote.
                out[:, here, :, a] = u * c - v * s
                out[:, here, :, b] = u * s + v * c
        start = last
    return out

"""Gated LoRA: low-rank adapters that act on the streams of a request, not on its weights.

Adapters of all streams lie stacked, so one batched product serves every active stream at once, and the base weights are
never touched: quantised backbones keep their adapters in full precision, and turning one off costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor, nn

from .layout import Layout
from .streams import Family, Role


class Gate(Enum):
    """When a stream's attention adapters act."""

    TARGETS = "targets only"
    ALWAYS = "always"
    OFF = "off"


@dataclass(frozen=True)
class AdapterSettings:
    """Strength and gate of every stream's attention adapters (stream order), and the strength of the feed-forward
    adapter that all streams share. 1.0 and TARGETS are as published."""

    strengths: tuple[float, ...]
    gates: tuple[Gate, ...]
    ffn_strength: float = 1.0

    @classmethod
    def published(cls, family: Family) -> AdapterSettings:
        """Every adapter as the authors run it."""
        n = len(family.streams)
        return cls(strengths=(1.0,) * n, gates=(Gate.TARGETS,) * n)

    def with_stream(self, row: int, strength: float, gate: Gate) -> AdapterSettings:
        """The same settings with another strength and gate for one stream."""
        strengths, gates = list(self.strengths), list(self.gates)
        strengths[row], gates[row] = strength, gate
        return replace(self, strengths=tuple(strengths), gates=tuple(gates))

    def active(self, family: Family, roles: Sequence[Role]) -> tuple[bool, ...]:
        """Which streams' attention adapters act under these roles."""
        return tuple(
            stream.adapter is not None and strength != 0
            and (gate is Gate.ALWAYS or (gate is Gate.TARGETS and role is Role.TARGET))
            for stream, strength, gate, role in zip(family.streams, self.strengths, self.gates, roles)
        )


class BlockAdapters(nn.Module):
    """The adapters of one block: attention stacked over K streams, feed-forward shared by all.

    qkv_down [K, 3r, D] (q, k, v read the same input, so their down-projections are one product), qkv_up [K, 3, D, r],
    o_down [K, r, D], o_up [K, D, r], ffn_in_down [r, D], ffn_in_up [F, r], ffn_out_down [r, F], ffn_out_up [D, r].
    """

    def __init__(self, streams: int, dim: int, ffn_dim: int, rank: int, device=None, dtype=None):
        super().__init__()

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        self.qkv_down = empty(streams, 3 * rank, dim)
        self.qkv_up = empty(streams, 3, dim, rank)
        self.o_down = empty(streams, rank, dim)
        self.o_up = empty(streams, dim, rank)
        self.ffn_in_down = empty(rank, dim)
        self.ffn_in_up = empty(ffn_dim, rank)
        self.ffn_out_down = empty(rank, ffn_dim)
        self.ffn_out_up = empty(dim, rank)


class AdapterBank(nn.Module):
    """All adapters of a checkpoint: one `BlockAdapters` a block, stacked over the family's adapted streams."""

    def __init__(self, family: Family, layers: int, dim: int, ffn_dim: int, rank: int, device=None, dtype=None):
        super().__init__()
        self.family = family
        self.rows = tuple(i for i, stream in enumerate(family.streams) if stream.adapter is not None)
        self.blocks = nn.ModuleList(
            BlockAdapters(len(self.rows), dim, ffn_dim, rank, device, dtype) for _ in range(layers)
        )


class ActiveAdapters:
    """A bank seen through one layout: which stacked adapters act, on which tokens, and how strongly.

    The methods add the adapters of one block to `y`, the base layer's fresh output, in place. They take the block's
    weights and not its number, which torch.compile would take for a constant and compile every block anew. `first` is
    how many leading tokens of the packed sequence are no longer in `y` (the last block keeps only the rows that leave).
    """

    def __init__(self, bank: AdapterBank, settings: AdapterSettings, layout: Layout):
        self.blocks, self.span, self.length = bank.blocks, layout.adapted_span, layout.length
        stack = [bank.rows.index(i) for i in layout.adapted]
        # A run of neighbours is a view of the stack, any other choice a small copy.
        neighbours = stack == list(range(stack[0], stack[0] + len(stack))) if stack else False
        self.pick = slice(stack[0], stack[0] + len(stack)) if neighbours else stack
        self.strengths = [settings.strengths[i] for i in layout.adapted]
        self.ffn_strength = settings.ffn_strength

    def add_qkv(self, weights: BlockAdapters, x: Tensor, q: Tensor, k: Tensor, v: Tensor, first: int) -> None:
        """q, k, v += their adapters of x. x, k, v [N, T, D]; q [N, T-first, D]."""
        if not self.strengths:
            return
        up = self._weight(weights.qkv_up, x)  # [S, 3, D, r]
        hidden = self._down(x, self._weight(weights.qkv_down, x), 0)  # [N, S, L, 3r]
        for j, (y, part, left) in enumerate(zip((q, k, v), hidden.chunk(3, dim=-1), (first, 0, 0))):
            start, stop, gone = self._window(left)
            y[:, start:stop].add_(_up(part[:, gone:], up[gone:, j]))

    def add_o(self, weights: BlockAdapters, x: Tensor, y: Tensor, first: int) -> None:
        """y += the output projection's adapters of x. x, y [N, T-first, D]."""
        start, stop, gone = self._window(first)
        if start == stop:
            return
        hidden = self._down(x, self._weight(weights.o_down, x), first)
        y[:, start:stop].add_(_up(hidden, self._weight(weights.o_up, x)[gone:]))

    def add_ffn_in(self, weights: BlockAdapters, x: Tensor, y: Tensor) -> None:
        """y += the shared adapter of the feed-forward's first linear, on every row. x [N, T, D], y [N, T, F]."""
        self._add_shared(x, y, weights.ffn_in_down, weights.ffn_in_up)

    def add_ffn_out(self, weights: BlockAdapters, x: Tensor, y: Tensor) -> None:
        """y += the shared adapter of the feed-forward's second linear, on every row. x [N, T, F], y [N, T, D]."""
        self._add_shared(x, y, weights.ffn_out_down, weights.ffn_out_up)

    def _add_shared(self, x: Tensor, y: Tensor, down: Tensor, up: Tensor) -> None:
        if self.ffn_strength != 0:
            hidden = x @ down.to(x).transpose(0, 1)
            y.add_((hidden if self.ffn_strength == 1 else hidden * self.ffn_strength) @ up.to(x).transpose(0, 1))

    def _weight(self, stacked: Tensor, like: Tensor) -> Tensor:
        return stacked[self.pick].to(like)

    def _window(self, first: int) -> tuple[int, int, int]:
        """(start, stop) of the adapted tokens in a sequence that lost its `first` tokens, and how many adapted streams
        left with them: a stream is kept or dropped whole."""
        start, stop = (max(edge - first, 0) for edge in self.span)
        return start, stop, len(self.strengths) - (stop - start) // self.length

    def _down(self, x: Tensor, down: Tensor, first: int) -> Tensor:
        """Down-projection of the adapted tokens of x [N, T-first, D] by down [S, R, D] -> [N, S', L, R]."""
        start, stop, gone = self._window(first)
        streams = x[:, start:stop].unflatten(1, (len(self.strengths) - gone, -1))  # [N, S'*L, D] -> [N, S', L, D]
        hidden = streams @ down[gone:].transpose(-1, -2)
        if any(s != 1 for s in self.strengths):
            hidden = hidden * hidden.new_tensor(self.strengths[gone:])[:, None, None]
        return hidden


def _up(hidden: Tensor, up: Tensor) -> Tensor:
    """hidden [N, S, L, r] by up [S, D, r] -> [N, S*L, D]."""
    return (hidden @ up.transpose(-1, -2)).flatten(1, 2)

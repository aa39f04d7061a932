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
    """Strength and gate of every stream's adapters (stream order), and the strength of the feed-forward adapter that
    all streams share (where each stream has its own, a factor on them all). 1.0 and TARGETS are as published."""

    strengths: tuple[float, ...]
    gates: tuple[Gate, ...]
    ffn_strength: float = 1.0

    @classmethod
    def published(cls, family: Family) -> AdapterSettings:
        """Every adapter as it was trained."""
        n = len(family.streams)
        gate = Gate.ALWAYS if family.variant.gating == "always" else Gate.TARGETS
        return cls(strengths=(1.0,) * n, gates=(gate,) * n)

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


def adapted_rows(family: Family) -> tuple[int, ...]:
    """The streams that have adapters, in the order in which a bank stacks these."""
    return tuple(i for i, stream in enumerate(family.streams) if stream.adapter is not None)


def stacked_adapters(family: Family) -> tuple[str, ...]:
    """Names of the adapters that a bank stacks: one for each of `adapted_rows`, or a single one that all share."""
    names = tuple(family.streams[row].adapter for row in adapted_rows(family))
    return names[:1] if len(set(names)) == 1 else names


class BlockAdapters(nn.Module):
    """The adapters of one block: attention stacked over K streams (1 where all share), feed-forward shared by all.

    qkv_down [K, 3r, D] (q, k, v read the same input, so their down-projections are one product), qkv_up [K, 3, D, r],
    o_down [K, r, D], o_up [K, D, r], ffn_in_down [r, D], ffn_in_up [F, r], ffn_out_down [r, F], ffn_out_up [D, r].
    With `stacked_ffn` each stream has its feed-forward adapter: those four have a leading K, too.
    """

    def __init__(self, streams: int, dim: int, ffn_dim: int, rank: int, device=None, dtype=None, *,
                 stacked_ffn: bool = False):
        super().__init__()

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        self.qkv_down = empty(streams, 3 * rank, dim)
        self.qkv_up = empty(streams, 3, dim, rank)
        self.o_down = empty(streams, rank, dim)
        self.o_up = empty(streams, dim, rank)
        stack = (streams,) if stacked_ffn else ()
        self.ffn_in_down = empty(*stack, rank, dim)
        self.ffn_in_up = empty(*stack, ffn_dim, rank)
        self.ffn_out_down = empty(*stack, rank, ffn_dim)
        self.ffn_out_up = empty(*stack, dim, rank)


class AdapterBank(nn.Module):
    """All adapters of a checkpoint: one `BlockAdapters` a block, stacked over the family's adapted streams."""

    def __init__(self, family: Family, layers: int, dim: int, ffn_dim: int, rank: int, device=None, dtype=None):
        super().__init__()
        self.family = family
        self.rows = adapted_rows(family)
        self.blocks = nn.ModuleList(
            BlockAdapters(len(stacked_adapters(family)), dim, ffn_dim, rank, device, dtype,
                          stacked_ffn=family.ffn_adapter is None)
            for _ in range(layers)
        )


class ActiveAdapters:
    """A bank seen through one layout: which stacked adapters act, on which tokens, and how strongly.

    The methods add the adapters of one block to `y`, the base layer's fresh output, in place. They take the block's
    weights and not its number, which torch.compile would take for a constant and compile every block anew. `first` is
    how many leading tokens of the packed sequence are no longer in `y` (the last block keeps only the rows that leave).

    Of a bank it reads `rows` and the tensors of `blocks`; a training may bring its own object with them.
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
        self._add_own(x, y, weights.o_down, weights.o_up, first)

    def add_ffn_in(self, weights: BlockAdapters, x: Tensor, y: Tensor, first: int) -> None:
        """y += the adapters of the feed-forward's first linear. x [N, T-first, D], y [N, T-first, F]."""
        self._add_ffn(x, y, weights.ffn_in_down, weights.ffn_in_up, first)

    def add_ffn_out(self, weights: BlockAdapters, x: Tensor, y: Tensor, first: int) -> None:
        """y += the adapters of the feed-forward's second linear. x [N, T-first, F], y [N, T-first, D]."""
        self._add_ffn(x, y, weights.ffn_out_down, weights.ffn_out_up, first)

    def _add_ffn(self, x: Tensor, y: Tensor, down: Tensor, up: Tensor, first: int) -> None:
        if self.ffn_strength == 0:
            return
        if down.ndim == 3:
            self._add_own(x, y, down, up, first, self.ffn_strength)
        else:  # one adapter for every row, given ones too
            hidden = x @ down.to(x).transpose(0, 1)
            y.add_((hidden if self.ffn_strength == 1 else hidden * self.ffn_strength) @ up.to(x).transpose(0, 1))

    def _add_own(self, x: Tensor, y: Tensor, down: Tensor, up: Tensor, first: int, strength: float = 1.0) -> None:
        """y += each stream's own adapter of x, where it acts."""
        start, stop, gone = self._window(first)
        if start == stop:
            return
        hidden = self._down(x, self._weight(down, x), first)
        hidden = hidden if strength == 1 else hidden * strength
        y[:, start:stop].add_(_up(hidden, self._weight(up, x)[gone:]))

    def _weight(self, stacked: Tensor, like: Tensor) -> Tensor:
        """The adapters that act, [S, ...], of a stack of one for each adapted stream, or of one that all share."""
        if stacked.shape[0] == 1:
            return stacked.to(like).expand(len(self.strengths), *stacked.shape[1:])
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

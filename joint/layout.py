"""Packing the streams of a request into one sequence.

Order: CONDITION streams first, TARGET streams last, so that what only targets need (the last block, the head) is a tail
of the sequence; and inside each half the streams with an active adapter lie next to the border, so that they form one
contiguous range. Attention does not care about the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import NamedTuple

import torch
from torch import Tensor

from .rope import GridOptions, grid_rope, line_rope
from .streams import Family, Role, StreamSpec


class Run(NamedTuple):
    """Neighbours in the packed sequence that are treated alike: their places in `Layout.order`, and their tokens.

    The places are no range, which torch.compile cannot follow across a break in its graph."""

    places: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """Where the tokens of every stream lie in the packed sequence.

    `order`: stream rows in packing order, ABSENT ones left out; `streams` are their specs and `lengths` their tokens.
    `grid`: the (f, h, w) tokens of every picture and `length` their number. `adapted`: the rows whose attention
    adapters are on, in packing order; their tokens are `adapted_span`. `out_start`: the first token that leaves the
    network. `outputs`: the stream rows that leave it, in packing order. `apart`: how many leading tokens attend to
    themselves only. `rope` [2, T, d/2]; `halved`: the ranges of tokens whose pairs are halves of a head. `joined`:
    where all streams lie along the channels of one sequence, their roles in row order, else empty; `order` then names
    the stream whose time, text and adapters it has.
    """

    order: tuple[int, ...]
    streams: tuple[StreamSpec, ...]
    lengths: tuple[int, ...]
    grid: tuple[int, int, int]
    adapted: tuple[int, ...]
    adapted_span: tuple[int, int]
    out_start: int
    outputs: tuple[int, ...]
    apart: int
    rope: Tensor
    halved: tuple[tuple[int, int], ...] = ()
    joined: tuple[Role, ...] = ()

    @property
    def length(self) -> int:
        """Tokens of one picture stream."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def tokens(self) -> int:
        """Tokens of one request."""
        return sum(self.lengths)

    def runs(self, alike: Callable[[int], object], first: int = 0) -> list[Run]:
        """The sequence after its first `first` tokens, where a stream begins, in the longest runs of streams for whose
        places in `order` the key `alike(place)` is one. Tokens count from `first`."""
        starts = [start - first for start in accumulate(self.lengths, initial=0)]
        kept = [place for place in range(len(self.order)) if starts[place] >= 0]
        return [Run(places, starts[places[0]], starts[places[-1] + 1])
                for places in (tuple(group) for _, group in groupby(kept, alike))]


def make_layout(family: Family, roles: Sequence[Role], adapted: Sequence[bool], grid: tuple[int, int, int],
                head_dim: int, *, text_length: int = 0, all_outputs: bool = False,
                options: GridOptions = GridOptions(), device=None) -> Layout:
    """Pack the streams of `family` with the given roles, pictures on one (f, h, w) token grid, texts of `text_length`.

    `adapted[row]` says whether that stream's attention adapters act in this request. With `all_outputs` the CONDITION
    streams leave the network too (to compare with a reference; sampling never needs it).
    Raises ValueError when no stream is a TARGET, and for text without tokens.
    """
    present = [i for i, role in enumerate(roles) if role is not Role.ABSENT]
    conditions = [i for i in present if roles[i] is Role.CONDITION]
    targets = [i for i in present if roles[i] is Role.TARGET]
    if not targets:
        raise ValueError("No layer is left to generate: leave at least one layer out, or mask a part of it.")
    if text_length < 1 and any(family.streams[i].tokens for i in present):
        raise ValueError("The text has no tokens: at least one is needed.")
    order = sorted(conditions, key=lambda i: adapted[i]) + sorted(targets, key=lambda i: not adapted[i])
    outputs = tuple(order if all_outputs else order[len(conditions):])
    joined = family.variant.joint == "channel_concat"
    if joined:
        order, conditions = targets[:1], []
    streams = tuple(family.streams[i] for i in order)
    length = grid[0] * grid[1] * grid[2]
    lengths = tuple(text_length if stream.tokens else length for stream in streams)
    starts = list(accumulate(lengths, initial=0))
    active = tuple(i for i in order if adapted[i])
    first = starts[order.index(active[0])] if active else 0
    given = starts[len(conditions)]

    def positions(stream: StreamSpec) -> Tensor:
        if stream.tokens:
            return line_rope(text_length, head_dim, device=device)
        return grid_rope(grid, head_dim, (0, 0, stream.columns * grid[2]), options, device=device)

    tables = {(stream.columns, stream.tokens): positions(stream) for stream in streams}
    return Layout(
        order=tuple(order),
        streams=streams,
        lengths=lengths,
        grid=grid,
        adapted=active,
        adapted_span=(first, first + len(active) * length),
        out_start=0 if all_outputs else given,
        outputs=outputs,
        apart=given if family.variant.condition_attention == "conditions" else 0,
        rope=torch.cat([tables[stream.columns, stream.tokens] for stream in streams], dim=1),
        halved=tuple((start, stop) for stream, start, stop in zip(streams, starts, starts[1:]) if stream.tokens),
        joined=tuple(roles) if joined else (),
    )

"""Packing the streams of a request into one sequence.

Order: CONDITION streams first, TARGET streams last, so that what only targets need (the last block, the head) is a tail
of the sequence; and inside each half the streams with an active adapter lie next to the border, so that they form one
contiguous range. Attention does not care about the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .rope import GridOptions, grid_rope
from .streams import Family, Role


@dataclass(frozen=True)
class Layout:
    """Where the tokens of every stream lie in the packed sequence.

    `order`: stream rows in packing order, ABSENT ones left out. `length`: tokens of one stream. `adapted`: the rows
    whose attention adapters are on, in packing order; their tokens are `adapted_span`. `out_start`: the first token
    that leaves the network. `outputs`: the stream rows that leave it, in packing order. `apart`: how many leading
    tokens attend to themselves only. `rope` [2, T, d/2]. `joined`: where all streams lie along the channels of one
    sequence, their roles in row order, else empty; `order` then names the stream whose time, text and adapters it has.
    """

    order: tuple[int, ...]
    length: int
    adapted: tuple[int, ...]
    adapted_span: tuple[int, int]
    out_start: int
    outputs: tuple[int, ...]
    apart: int
    rope: Tensor
    joined: tuple[Role, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of one request."""
        return len(self.order) * self.length


def make_layout(family: Family, roles: Sequence[Role], adapted: Sequence[bool], grid: tuple[int, int, int],
                head_dim: int, *, all_outputs: bool = False, options: GridOptions = GridOptions(),
                device=None) -> Layout:
    """Pack the streams of `family` with the given roles, all on one (f, h, w) token grid.

    `adapted[row]` says whether that stream's attention adapters act in this request. With `all_outputs` the CONDITION
    streams leave the network too (to compare with a reference; sampling never needs it).
    Raises ValueError when no stream is a TARGET.
    """
    present = [i for i, role in enumerate(roles) if role is not Role.ABSENT]
    conditions = [i for i in present if roles[i] is Role.CONDITION]
    targets = [i for i in present if roles[i] is Role.TARGET]
    if not targets:
        raise ValueError("No layer is left to generate: leave at least one layer out, or mask a part of it.")
    order = sorted(conditions, key=lambda i: adapted[i]) + sorted(targets, key=lambda i: not adapted[i])
    outputs = tuple(order if all_outputs else order[len(conditions):])
    joined = family.variant.joint == "channel_concat"
    if joined:
        order, conditions = targets[:1], []
    length = grid[0] * grid[1] * grid[2]
    active = tuple(i for i in order if adapted[i])
    first = order.index(active[0]) if active else 0
    tables = {offset: grid_rope(grid, head_dim, offset, options, device=device)
              for offset in {family.streams[i].rope_offset for i in order}}
    return Layout(
        order=tuple(order),
        length=length,
        adapted=active,
        adapted_span=(first * length, (first + len(active)) * length),
        out_start=0 if all_outputs else len(conditions) * length,
        outputs=outputs,
        apart=len(conditions) * length if family.variant.condition_attention == "conditions" else 0,
        rope=torch.cat([tables[family.streams[i].rope_offset] for i in order], dim=1),
        joined=tuple(roles) if joined else (),
    )

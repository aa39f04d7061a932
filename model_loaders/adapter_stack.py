"""The tensors of an adapter file, by their published keys, as the stacked tensors that a bank is made of.

Nothing is detached: where the tensors are parameters of a training, gradients flow back to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..joint.adapters import adapted_rows, stacked_adapters
from ..joint.streams import Family
from .adapter_names import ATTENTION, AdapterKey


class BlockStack(NamedTuple):
    """The tensors of one `joint.adapters.BlockAdapters`, under its names and in its shapes."""

    qkv_down: Tensor
    qkv_up: Tensor
    o_down: Tensor
    o_up: Tensor
    ffn_in_down: Tensor
    ffn_in_up: Tensor
    ffn_out_down: Tensor
    ffn_out_up: Tensor


@dataclass(frozen=True)
class AdapterStack:
    """What `joint.adapters.ActiveAdapters` reads of a bank: which streams are adapted, and every block's tensors."""

    rows: tuple[int, ...]
    blocks: tuple[BlockStack, ...]


def stack_adapters(tensor: Callable[[AdapterKey], Tensor], family: Family, blocks: int) -> AdapterStack:
    """A bank of `blocks` blocks from the tensors that `tensor` knows by key, such as a dict's `__getitem__`.

    Make it anew for every step of a training: it is part of that step's graph."""
    return AdapterStack(adapted_rows(family), tuple(stack_block(tensor, family, b) for b in range(blocks)))


def stack_block(tensor: Callable[[AdapterKey], Tensor], family: Family, block: int) -> BlockStack:
    """The adapters of one block of `stack_adapters`."""
    names = stacked_adapters(family)

    def matrix(site: str, letter: str, adapter: str) -> Tensor:
        return tensor(AdapterKey(block, site, letter, adapter))

    def each(site: str, letter: str) -> Tensor:
        return torch.stack([matrix(site, letter, name) for name in names])

    def feed_forward(site: str, letter: str) -> Tensor:
        return each(site, letter) if family.ffn_adapter is None else matrix(site, letter, family.ffn_adapter)

    qkv = ATTENTION[:3]
    return BlockStack(
        qkv_down=torch.cat([each(site, "A") for site in qkv], dim=1),
        qkv_up=torch.stack([each(site, "B") for site in qkv], dim=1),
        o_down=each("self_attn.o", "A"),
        o_up=each("self_attn.o", "B"),
        ffn_in_down=feed_forward("ffn.0", "A"),
        ffn_in_up=feed_forward("ffn.0", "B"),
        ffn_out_down=feed_forward("ffn.2", "A"),
        ffn_out_up=feed_forward("ffn.2", "B"),
    )

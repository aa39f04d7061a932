"""Names of the tensors in a UniVidX adapter file: (block, site, A or B, adapter), and which of them the model uses."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..joint.streams import Family

ATTENTION = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o")
FEED_FORWARD = ("ffn.0", "ffn.2")
_KEY = re.compile(r"^(?:pipe\.)?(?:dit\.)?blocks\.(\d+)\.(self_attn\.[qkvo]|ffn\.[02])\.lora_([AB])\.(\w+)\.weight$")


class AdapterKey(NamedTuple):
    """One tensor of an adapter: A [r, in] or B [out, r] of a linear layer."""

    block: int
    site: str
    matrix: str
    adapter: str

    def __str__(self) -> str:
        return f"blocks.{self.block}.{self.site}.lora_{self.matrix}.{self.adapter}.weight"


def parse_key(key: str) -> AdapterKey | None:
    """Read a checkpoint key, with or without the prefixes `dit.` and `pipe.dit.`; None when it is no such key."""
    match = _KEY.match(key)
    return AdapterKey(int(match[1]), match[2], match[3], match[4]) if match else None


def is_dead(key: AdapterKey, family: Family) -> bool:
    """Whether the family's model never uses this tensor: the LoRA of an adapter that no stream asks for, and, where one
    feed-forward LoRA acts on every row, that of every other adapter."""
    if key.site in FEED_FORWARD and family.ffn_adapter is not None:
        return key.adapter != family.ffn_adapter
    return key.adapter not in {stream.adapter for stream in family.streams}

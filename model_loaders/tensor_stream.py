"""A safetensors file written tensor by tensor, so that the memory holds one of them at a time.

The format (github huggingface/safetensors): 8 bytes of length, a header in JSON, then the bytes of all tensors.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from .safetensors_file import DTYPES


@dataclass(frozen=True)
class Entry:
    """A tensor to be written: what it will be, and how to get it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """Its bytes."""
        return prod(self.shape) * self.dtype.itemsize


def write_stream(path: Path, entries: Mapping[str, Entry], metadata: Mapping[str, str],
                 on_bytes: Callable[[int], object]) -> None:
    """Write tensors by name into `path`; `on_bytes` is told the bytes of each. Raises OSError as the disk does."""
    # Widest first, as the library has it, so that each tensor starts at a multiple of its own width.
    names = sorted(entries, key=lambda name: (-entries[name].dtype.itemsize, name))
    header, end = ({"__metadata__": dict(metadata)} if metadata else {}), 0
    for name in names:
        entry = entries[name]
        header[name] = {"dtype": DTYPES[entry.dtype], "shape": list(entry.shape),
                        "data_offsets": [end, end + entry.size]}
        end += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            data = entries[name].make().contiguous().reshape(-1).view(torch.uint8)
            file.write(memoryview(data.numpy()))
            on_bytes(data.numel())

"""UniVidX adapter files into an `AdapterBank`, checked whole: a wrong or damaged file is refused with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from ..joint.adapters import AdapterBank
from ..joint.families import FAMILIES
from ..joint.streams import Family
from .adapter_names import ATTENTION, FEED_FORWARD, AdapterKey, is_dead, parse_key
from .adapter_stack import stack_block
from .detect import detect
from .layer_metadata import family_of
from .safetensors_file import check_finite, load_tensors, name_some, read_header

NOTE = "note"  # a key of a file's metadata: one sentence that its user should read


@dataclass(frozen=True)
class LoadedAdapters:
    """The bank of a file, its family and rank, and warnings a user should read."""

    family: Family
    bank: AdapterBank
    rank: int
    warnings: tuple[str, ...]


def load_adapters(path: str | Path, *, family: Family | None = None, dtype: torch.dtype | None = None,
                  device: str = "cpu") -> LoadedAdapters:
    """Load the adapters of a checkpoint; with `family` given, only that family's. Its variant is what the file says.

    dtype None keeps the file's, float16 for fp8. Raises FileNotFoundError, or ValueError: not adapters, wrong family,
    unknown variant, missing or extra tensors, shapes that do not fit together, values that are not finite, truncated,
    pickle.
    """
    found = detect(path)
    if found.kind != "adapters":
        raise ValueError(f"'{Path(path).name}' holds no layer adapters: it is {found.line}.")
    metadata = read_header(path).metadata
    loaded = read_adapters(load_tensors(path), Path(path).name, metadata, family=family, dtype=dtype, device=device)
    note = metadata.get(NOTE)
    return replace(loaded, warnings=(*loaded.warnings, note)) if note else loaded


def read_adapters(tensors: dict[str, Tensor], name: str, metadata: Mapping[str, str] | None = None, *,
                  family: Family | None = None, dtype: torch.dtype | None = None,
                  device: str = "cpu") -> LoadedAdapters:
    """The same from tensors in memory under the checkpoint's keys, and the file's metadata; `name` stands for the file
    in errors."""
    keyed: dict[AdapterKey, Tensor] = {}
    strangers = []
    for text, tensor in tensors.items():
        key = parse_key(text)
        if key is None:
            strangers.append(text)
        else:
            # fp8 is for keeping only: nothing is computed in it.
            keyed[key] = tensor.half() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor
    names = {key.adapter for key in keyed}
    found = family_of(names, metadata or {}, name)
    if family is not None and found is not None and found.name != family.name:
        raise ValueError(f"'{name}' belongs to the {found.name} family ({', '.join(found.file_adapters)}), "
                         f"but the {family.name} family is asked for: choose its file.")
    found = found or _nearest_family(names, name)
    _check_complete(keyed, strangers, found, name)
    rank, dim, ffn_dim = _check_shapes(keyed, found, name)
    check_finite(name, {str(key): tensor for key, tensor in keyed.items()})
    return LoadedAdapters(found, _fill_bank(keyed, found, dim, ffn_dim, rank, dtype, device), rank,
                          _dead_weight_warnings(keyed, found, name))


def _nearest_family(names: set[str], name: str) -> Family:
    """The family that shares most adapters with the file, so that the error can say what is missing."""
    best = max(FAMILIES.values(), key=lambda f: len(names & set(f.file_adapters)))
    if not names & set(best.file_adapters):
        known = "; ".join(f"{f.name}: {', '.join(f.file_adapters)}" for f in FAMILIES.values())
        raise ValueError(f"'{name}' holds the adapters {', '.join(sorted(names))}, which no family has ({known}).")
    return best


def _check_complete(keyed: dict[AdapterKey, Tensor], strangers: list[str], family: Family, name: str) -> None:
    blocks = 1 + max(key.block for key in keyed)
    wanted = {AdapterKey(b, site, matrix, adapter) for b, site, matrix, adapter
              in product(range(blocks), ATTENTION + FEED_FORWARD, "AB", family.file_adapters)}
    missing = wanted - keyed.keys()
    if missing:
        raise ValueError(f"'{name}' lacks {len(missing)} of the {len(wanted)} tensors of the {family.name} family "
                         f"({name_some(map(str, missing))}): download it again.")
    extra = strangers + [str(key) for key in keyed.keys() - wanted]
    if extra:
        raise ValueError(f"'{name}' holds {len(extra)} tensors that the {family.name} family does not have "
                         f"({name_some(extra)}): this is another model's file.")


def _check_shapes(keyed: dict[AdapterKey, Tensor], family: Family, name: str) -> tuple[int, int, int]:
    """Rank, width and feed-forward width, the same in every tensor."""
    adapter = family.file_adapters[0]
    first, wide = (keyed[AdapterKey(0, site, "A", adapter)] for site in FEED_FORWARD)
    rank, dim, ffn_dim = first.shape[0], first.shape[-1], wide.shape[-1]
    inputs, outputs = {"ffn.2": ffn_dim}, {"ffn.0": ffn_dim}
    for key, tensor in keyed.items():
        fits = (rank, inputs.get(key.site, dim)) if key.matrix == "A" else (outputs.get(key.site, dim), rank)
        if tuple(tensor.shape) != fits:
            raise ValueError(f"'{name}' does not fit together: {key} is {tuple(tensor.shape)} where {fits} is needed; "
                             "download it again.")
    return rank, dim, ffn_dim


def _fill_bank(keyed: dict[AdapterKey, Tensor], family: Family, dim: int, ffn_dim: int, rank: int,
               dtype: torch.dtype | None, device: str) -> AdapterBank:
    blocks = 1 + max(key.block for key in keyed)
    dtype = dtype or keyed[AdapterKey(0, "ffn.0", "A", family.file_adapters[0])].dtype
    bank = AdapterBank(family, blocks, dim, ffn_dim, rank, device=device, dtype=dtype).requires_grad_(False)
    for b, target in enumerate(bank.blocks):
        for part, stacked in stack_block(keyed.__getitem__, family, b)._asdict().items():
            getattr(target, part).copy_(stacked)
    return bank


def _dead_weight_warnings(keyed: dict[AdapterKey, Tensor], family: Family, name: str) -> tuple[str, ...]:
    """A LoRA that the published model cannot use was never trained, so its B should be zero. If one is not, the file
    was trained with another routing than the one we run."""
    alive: dict[tuple[str, str], int] = {}
    for key, tensor in keyed.items():
        if key.matrix == "B" and is_dead(key, family) and tensor.count_nonzero():
            part = "feed-forward" if key.site in FEED_FORWARD else "attention"
            alive[key.adapter, part] = alive.get((key.adapter, part), 0) + 1
    return tuple(
        f"'{name}': the {part} LoRA of '{adapter}' should be unused but is not zero ({count} tensors); it is ignored "
        "as in the published code, so this file may have been trained with another routing."
        for (adapter, part), count in sorted(alive.items())
    )

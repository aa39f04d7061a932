"""The own parts of a family's streams from a layer file into `Experts`, checked whole.

A file holds them under the published names (`expert_names`), with the vocabulary where the family has text. V: how many
tokens text is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from ..joint.experts import Experts
from ..joint.streams import Family
from ..joint.wan import WanConfig
from .detect import detect, part_sizes
from .expert_names import expert_names, published_names
from .safetensors_file import check_finite, load_tensors, name_some, read_header
from .vocabulary import VOCABULARY_TENSORS, Vocabulary, find_vocabulary


@dataclass(frozen=True)
class LoadedExperts:
    """The own parts of a file, their family, and the vocabulary of its text, None where it has none."""

    family: Family
    experts: Experts
    vocabulary: Vocabulary | None


def load_experts(path: str | Path, *, family: Family | None = None, dtype: torch.dtype | None = None,
                 device: str = "cpu", ops: ModuleType | type = nn) -> LoadedExperts:
    """Load the own parts of a file; with `family` given, only that family's. Its variant is what the file says.

    dtype None keeps the file's; `ops` as for `Experts`. Raises FileNotFoundError, ImportError without the library of
    the vocabulary, or ValueError: no such file, wrong family, unknown variant, missing or extra tensors, shapes that do
    not fit together, no vocabulary or one of another size, values that are not finite, truncated, pickle.
    """
    path = Path(path)
    found = detect(path)
    if found.kind != "layers":
        raise ValueError(f"'{path.name}' holds no parts of streams' own: it is {found.line}.")
    header = read_header(path)
    held = found.family
    if family is not None and held.name != family.name:
        raise ValueError(f"'{path.name}' belongs to the {held.name} family, but the {family.name} family is asked for: "
                         "choose its file.")
    carried = VOCABULARY_TENSORS if held.texts else ()
    shapes = {key: shape for key, shape in header.shapes.items() if key not in carried}
    config, size = check_parts(shapes, held, path.name)
    vocabulary = _load_vocabulary(path, header.shapes, size) if held.texts else None
    names = expert_names(shapes, held.name)
    tensors = load_tensors(path, shapes)
    check_finite(path.name, tensors)
    with torch.device("meta"):
        experts = Experts(held, config, size, ops)
    state = {}
    while tensors:  # one leaves as its copy comes: the text half of 1.3B is as large as that itself
        key, tensor = tensors.popitem()
        state[names[key]] = tensor.to(device, dtype or tensor.dtype)
    experts.load_state_dict(state, assign=True)
    return LoadedExperts(held, experts.requires_grad_(False).eval(), vocabulary)


def check_parts(shapes: Mapping[str, tuple[int, ...]], family: Family, name: str) -> tuple[WanConfig, int]:
    """The sizes of the backbone, as far as a family's own parts tell them, and V, 0 without text. shapes: by published
    name. Raises ValueError unless these are exactly the family's parts; `name` stands for the file in errors."""
    names = expert_names(shapes, family.name)
    has = {names[key]: tuple(shape) for key, shape in shapes.items() if key in names}
    sizes = part_sizes(has)
    vocabulary = sizes.pop("vocabulary", 0)
    # What is not told leaves no trace in the parts; what comes in is as wide as what goes out, in every Wan.
    blocks = sizes.pop("num_layers", 0)
    config = WanConfig(**sizes, num_layers=blocks, out_dim=sizes.get("in_dim", WanConfig.out_dim))
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in Experts(family, config, vocabulary).state_dict().items()}
    variant = f" with {family.variant}" if family.variant.changes() else ""
    if missing := wanted.keys() - has.keys():
        lacking = published_names(missing, family.name).values()
        raise ValueError(f"'{name}' lacks {len(missing)} of the {len(wanted)} tensors of the {family.name} family"
                         f"{variant} ({name_some(lacking)}): download it again.")
    extra = [key for key in shapes if names.get(key) not in wanted]
    if extra:
        raise ValueError(f"'{name}' holds {len(extra)} tensors that the {family.name} family{variant} does not have "
                         f"({name_some(extra)}): this is another model's file.")
    for key, shape in shapes.items():
        fits = wanted[names[key]]
        if tuple(shape) != fits:
            raise ValueError(f"'{name}' does not fit together: {key} is {tuple(shape)} where {fits} is needed; "
                             "download it again.")
    return config, vocabulary


def _load_vocabulary(path: Path, keys, size: int) -> Vocabulary:
    if not any(name in keys for name in VOCABULARY_TENSORS):
        raise ValueError(f"'{path.name}' carries no vocabulary for its {size:,} tokens: make it again by 'strata "
                         "convert CHECKPOINT --out DIR --tokenizer PATH'.")
    vocabulary = find_vocabulary(path)
    check_vocabulary(vocabulary, size, path.name)
    return vocabulary


def check_vocabulary(vocabulary: Vocabulary, size: int, name: str) -> None:
    """Raise ValueError unless a vocabulary is of `size` tokens, those of the model called `name`."""
    if vocabulary.size != size:
        raise ValueError(f"The vocabulary for '{name}' has {vocabulary.size:,} tokens, but the model's text is made of "
                         f"{size:,}: use the tokenizer that the model was trained with.")

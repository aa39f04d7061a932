"""What a layer file holds, whatever its kind: UniVidX's adapters, or the parts that streams have of their own; and the
embeddings of prompts that lie beside it. E: the width of a prompt's embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from ..joint.adapters import AdapterBank
from ..joint.experts import Experts
from ..joint.streams import Family
from .adapters import NOTE, load_adapters
from .detect import EMPTY_PROMPT, OWN_PROMPT, detect, part_sizes
from .experts import load_experts
from .safetensors_file import check_finite, load_tensors, read_header, replace_tensors
from .vocabulary import Vocabulary

PROMPTS_SUFFIX = ".empty_prompt.safetensors"
PROMPT_TOKENS = 512
PROMPT_ROWS = "rows"  # in the metadata


@dataclass(frozen=True)
class LoadedLayers:
    """What a layer file holds: adapters or own parts, the vocabulary of its text, the rank of its adapters, and
    warnings a user should read. What it does not hold is None. `family` is the variant that the file says."""

    family: Family
    bank: AdapterBank | None
    experts: Experts | None
    vocabulary: Vocabulary | None
    rank: int | None
    warnings: tuple[str, ...]


def load_layers(path: str | Path, *, family: Family | None = None, dtype: torch.dtype | None = None,
                device: str = "cpu", ops: ModuleType | type = nn) -> LoadedLayers:
    """Load a layer file of any kind; with `family` given, only that family's. `ops` makes the layers of own parts.

    dtype None keeps the file's. Raises as `load_adapters` and `load_experts`."""
    found = detect(path)
    if found.kind == "adapters":
        loaded = load_adapters(path, family=family, dtype=dtype, device=device)
        return LoadedLayers(loaded.family, loaded.bank, None, None, loaded.rank, loaded.warnings)
    if found.kind != "layers":
        raise ValueError(f"'{Path(path).name}' holds no layers: it is {found.line}.")
    own = load_experts(path, family=family, dtype=dtype, device=device, ops=ops)
    note = read_header(path).metadata.get(NOTE)
    return LoadedLayers(own.family, None, own.experts, own.vocabulary, None, (note,) if note else ())


def check_fits(loaded: LoadedLayers, blocks: int, dim: int, ffn_dim: int) -> None:
    """Raise ValueError unless the layers were made for a backbone of this many blocks and these widths.

    Own parts say only what their shapes tell: those of UnityVideo no more than the width."""
    model = {"num_layers": blocks, "dim": dim, "ffn_dim": ffn_dim}
    words = {"num_layers": "{} blocks", "dim": "width {}", "ffn_dim": "feed-forward width {}"}
    if loaded.bank is not None:
        first = loaded.bank.blocks[0]
        made_for = {"num_layers": len(loaded.bank.blocks), "dim": first.qkv_down.shape[-1],
                    "ffn_dim": first.ffn_in_up.shape[-2]}
    else:
        shapes = {name: tuple(value.shape) for name, value in loaded.experts.state_dict().items()}
        sizes = part_sizes(shapes)
        made_for = {name: sizes[name] for name in model if name in sizes}
    if any(model[name] != size for name, size in made_for.items()):
        wanted, given = (", ".join(words[name].format(sizes[name]) for name in made_for) for sizes in (made_for, model))
        raise ValueError(f"These layers are for a backbone of {wanted}, but this model has {given}: load the Wan model "
                         f"that they were trained on ({loaded.family.name}: {loaded.family.backbone}).")


def prompts_path(layers: str | Path) -> Path:
    """Where the embeddings of prompts are stored for a layer file."""
    path = Path(layers)
    return path.with_name(path.name.removesuffix(".safetensors") + PROMPTS_SUFFIX)


def stored_prompts(layers: str | Path) -> dict[str, Tensor]:
    """The embeddings [1, W, E] stored beside a layer file, float32, W 512 unless the file says otherwise: that of the
    empty prompt as "", those of the streams' own prompts by the name of the stream. Empty where none are.

    Raises ValueError for a file that is damaged or no such file."""
    path = prompts_path(layers)
    if not path.is_file():
        return {}
    prompts, tensors, width = {}, load_tensors(path), _prompt_rows(path)
    check_finite(path.name, tensors)
    for key, rows in tensors.items():
        if rows.ndim != 2 or not 0 < len(rows) <= width:
            raise ValueError(f"'{path.name}' is no file of prompts: {key} is {tuple(rows.shape)} where up to "
                             f"{width} rows of numbers are needed; delete it, and it is made anew.")
        full = rows.new_zeros(1, width, rows.shape[1], dtype=torch.float32)
        full[0, :len(rows)] = rows
        prompts["" if key == EMPTY_PROMPT else key.removeprefix(OWN_PROMPT)] = full
    return prompts


def save_prompts(layers: str | Path, prompts: Mapping[str, Tensor]) -> None:
    """Store embeddings [tokens, E] beside a layer file, named as `stored_prompts` gives them; what is stored there
    under other names stays.

    Rows of zeros at the end are left out: most families' encoder makes all padding so. Where it does not, nothing is.
    How many rows there were with them is stored where it is not 512, since a network attends to padding, too.
    """
    path = prompts_path(layers)
    tensors = load_tensors(path) if path.is_file() else {}
    width = max([*map(len, prompts.values()), *([_prompt_rows(path)] if tensors else [])], default=PROMPT_TOKENS)
    for name, embedding in prompts.items():
        used = embedding.any(dim=1).nonzero()
        count = int(used.max()) + 1 if len(used) else 1
        # A copy, as several may be views of one, which the format does not have.
        tensors[OWN_PROMPT + name if name else EMPTY_PROMPT] = embedding[:count].float().cpu().clone()
    replace_tensors(path, tensors, {PROMPT_ROWS: str(width)} if width != PROMPT_TOKENS else None)


def _prompt_rows(path: Path) -> int:
    """How many rows the embeddings of a file of prompts have, with those that are zero."""
    stated = read_header(path).metadata.get(PROMPT_ROWS, str(PROMPT_TOKENS))
    return int(stated) if stated.isdecimal() else PROMPT_TOKENS

"""Published checkpoints of UnityVideo and Uni-ViGU, split into a Wan backbone that every loader knows and the layers
that ride on it. The tensors pass one by one, from pages of the file, which the system may drop, to the disk: however
big the file, the memory holds one of them, and that only where its dtype changes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..joint.streams import Family
from .backbone import check_backbone
from .checkpoint_file import Checkpoint, open_checkpoint
from .detect import detect_header
from .expert_names import published_names, split_names
from .experts import check_parts, check_vocabulary
from .layer_files import prompts_path, save_prompts
from .layer_metadata import layer_metadata
from .safetensors_file import Header, aside, cannot_write, check_finite, torch_dtype
from .tensor_stream import Entry, write_stream
from .text import encode_prompts
from .vocabulary import Vocabulary, read_vocabulary, vocabulary_tensor

DTYPES = {"keep": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def convert(checkpoint: str | Path, out: Path, *, name: str | None = None, tokenizer: str | Path | None = None,
            text_encoder: str | Path | None = None, dtype: torch.dtype | None = None,
            on_bytes: Callable[[int, int], object] = lambda done, whole: None) -> dict[str, Path]:
    """Split a checkpoint, a file or a folder of shards, into `name`.wan.safetensors and `name`.layers.safetensors in
    the folder `out`; returns what was written, by "backbone", "layers" and "prompts".

    `name` is by default the checkpoint's. `tokenizer`: where the vocabulary of a family with text lies, as
    `find_vocabulary` takes it; by default what the text encoder brings. With a text encoder, the empty prompt and the
    streams' own are embedded and stored beside the layers. `dtype` None keeps that of each tensor. `on_bytes` is told
    the bytes of a tensor that was written and those of all.

    Raises FileNotFoundError, ImportError, or ValueError: another file, damaged or incomplete, no vocabulary or the
    wrong one, values that are not finite or too large for the dtype; OSError where it cannot write. Then nothing is
    left."""
    path = Path(checkpoint)
    name = name or path.name.removesuffix(path.suffix if path.is_file() else "")
    backbone, layers = out / f"{name}.wan.safetensors", out / f"{name}.layers.safetensors"
    with open_checkpoint(path) as source, ExitStack() as parts:
        found = detect_header(source.header)
        if found.kind != "checkpoint":
            raise ValueError(f"'{path.name}' is no whole checkpoint of UnityVideo or Uni-ViGU: it is {found.line}.")
        family = found.family
        wan, own = split_names(source.header.shapes, family.name)
        text_dim, tokens = _check(source.header, wan, own, family)
        carried = _vocabulary(path.name, tokens, tokenizer or text_encoder) if family.texts else {}
        prompts = _embed_prompts(family, text_encoder, text_dim) if text_encoder else {}

        published = published_names(own.values(), family.name)
        to_backbone = {ours: _entry(source, key, dtype) for key, ours in wan.items()}
        to_layers = {published[ours]: _entry(source, key, dtype) for key, ours in own.items()}
        to_layers |= {key: Entry(tuple(value.shape), value.dtype, partial(carried.get, key))
                      for key, value in carried.items()}
        whole = sum(entry.size for entry in (*to_backbone.values(), *to_layers.values()))
        for file, entries, metadata in ((backbone, to_backbone, {}), (layers, to_layers, layer_metadata(family))):
            try:
                write_stream(parts.enter_context(aside(file)), entries, metadata, lambda done: on_bytes(done, whole))
            except OSError as error:
                raise cannot_write(file, error) from error
        if prompts:
            save_prompts(layers, prompts)
    return {"backbone": backbone, "layers": layers} | ({"prompts": prompts_path(layers)} if prompts else {})


def _check(header: Header, wan: dict[str, str], own: dict[str, str], family: Family) -> tuple[int, int]:
    """The width of prompts' embeddings, and how many tokens text is made of. Raises ValueError unless all is there."""
    name = header.path.name
    if len(set(wan.values())) < len(wan):
        raise ValueError(f"'{name}' holds tensors of its backbone twice: use the checkpoint as it was published.")
    backbone = check_backbone({ours: header.shapes[key] for key, ours in wan.items()}, name)
    sizes, tokens = check_parts({key: header.shapes[key] for key in own}, family, name)
    if sizes.dim != backbone.dim or sizes.num_layers not in (0, backbone.num_layers):
        blocks = f"{sizes.num_layers} blocks of " if sizes.num_layers else ""
        raise ValueError(f"'{name}' does not fit together: its layers are for {blocks}width {sizes.dim}, its backbone "
                         f"is {backbone.num_layers} blocks of width {backbone.dim}; download it again.")
    return backbone.text_dim, tokens


def _vocabulary(name: str, tokens: int, where: str | Path | None) -> dict[str, Tensor]:
    if where is None:
        raise ValueError(f"'{name}' makes text of {tokens:,} tokens and says nothing of their words: add "
                         "--tokenizer PATH (spiece.model of google/umt5-xxl, or what carries it).")
    data, called = read_vocabulary(where)
    check_vocabulary(Vocabulary(data, called), tokens, name)
    return vocabulary_tensor(data)


def _embed_prompts(family: Family, text_encoder: str | Path, text_dim: int) -> dict[str, Tensor]:
    """The embeddings [512, E] of the empty prompt and of the streams' own, by their names in `stored_prompts`."""
    prompts = {"": ""} | {stream.name: stream.prompt for stream in family.streams if stream.prompt}
    rows = encode_prompts(text_encoder, list(prompts.values()), **asdict(family.text))
    if rows.shape[-1] != text_dim:
        raise ValueError(f"The text encoder '{Path(text_encoder).name}' gives {rows.shape[-1]} numbers a token and the "
                         f"backbone takes {text_dim}: use the one that belongs to it (umt5_xxl).")
    return dict(zip(prompts, rows))


def _entry(source: Checkpoint, key: str, dtype: torch.dtype | None) -> Entry:
    """A tensor of the source in a dtype, checked as it passes."""
    name, called = source.header.path.name, source.header.dtypes[key]
    held = torch_dtype(called)
    if held is None or not held.is_floating_point:
        raise ValueError(f"'{name}' holds {key} as {called}, which is no dtype of weights: use the checkpoint as it "
                         "was published.")

    def make() -> Tensor:
        tensor = source.read(key)
        check_finite(name, {key: tensor})
        tensor = tensor.to(dtype or held)
        if dtype == torch.float16 and not torch.isfinite(tensor).all():
            raise ValueError(f"'{name}' holds values too large for fp16 (first in '{key}'): use --dtype bf16.")
        return tensor

    return Entry(source.header.shapes[key], dtype or held, make)

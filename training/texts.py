"""Embeddings of the prompts of a training run, each encoded once and kept on disk beside the latents; those of a word
encoder, which costs less than a disk, when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..joint.streams import Family, TextSpec
from ..model_loaders.safetensors_file import load_tensors, read_header, replace_tensors
from ..model_loaders.text import TEXT_LENGTH, encode_prompts
from ..model_loaders.word_encoder import encode_words, is_word_encoder

_AT_ONCE = 128  # prompts an encoder is loaded for; their padded rows take 0.5 GB


class Texts:
    """Text embeddings [n, W, E] by prompt, W = 512 of UMT5, fewer of a word encoder. Without an encoder every prompt is
    the empty one."""

    def __init__(self, family: Family, known: Mapping[str, Tensor], encoder: str, folder: Path, device: str):
        """known [1, W, E]: embeddings that need no encoder, "" of the empty prompt and others by the stream whose
        fixed prompt it is. encoder: a path of UMT5 or of a word encoder, or ""."""
        self.encoder, self.folder, self.device = encoder, folder, device
        self._small = bool(encoder) and Path(encoder).is_file() and is_word_encoder(read_header(encoder).shapes)
        self.own = {name: known[name] for name in known if name}
        self.empty: Tensor | None = known.get("")
        self._fixed = {stream.name: stream.prompt for stream in family.streams if stream.prompt}
        self._options = asdict(family.text)
        self._key = _encoder_key(Path(encoder), self._options) if encoder else ""

    def prepare(self, prompts: Iterable[str]) -> None:
        """Encode what is not on disk yet. Errors as `encode_prompts`, and OSError when the disk refuses."""
        if not self.encoder:
            return
        wanted = sorted({"", *prompts, *self._fixed.values()})
        new = [] if self._small else [prompt for prompt in wanted if not self._stored(prompt)]
        for start in range(0, len(new), _AT_ONCE):
            batch = new[start:start + _AT_ONCE]
            for prompt, rows in zip(batch, encode_prompts(self.encoder, batch, self.device, **self._options)):
                used = int(rows.any(dim=1).nonzero().max()) + 1  # the rest is zero by the encoder's own rule
                replace_tensors(self._path(prompt), {"rows": rows[:used].cpu().contiguous()})
        if self.empty is None:
            self.empty = self._load("")[None]
        for name, prompt in self._fixed.items():
            self.own.setdefault(name, self._load(prompt)[None])

    def context(self, prompts: list[str]) -> Tensor:
        """What the cross-attention reads, float32: [len(prompts), W, E], or [1, W, E] where all are empty."""
        if not self.encoder or not any(prompts):
            return self.empty
        if self._small:
            return encode_words(self.encoder, prompts)
        return torch.stack([self._load(prompt) for prompt in prompts])

    def _stored(self, prompt: str) -> bool:
        """Whether the file of a prompt is there and whole, as its length shows."""
        try:
            return "rows" in read_header(self._path(prompt)).shapes
        except (ValueError, OSError):
            return False

    def _load(self, prompt: str) -> Tensor:
        if self._small:
            return encode_words(self.encoder, [prompt])[0]
        rows = load_tensors(self._path(prompt), ["rows"])["rows"].float()
        full = rows.new_zeros(TEXT_LENGTH, rows.shape[1])
        full[:len(rows)] = rows
        return full

    def _path(self, prompt: str) -> Path:
        name = hashlib.sha256(f"{self._key}\n{prompt}".encode()).hexdigest()[:32]
        return self.folder / f"text-{name}.safetensors"


def _encoder_key(path: Path, options: Mapping[str, bool]) -> str:
    """What stands for an encoder and how it is used. Sizes tell those of one name apart without reading gigabytes."""
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    key = f"{path.name} {[file.stat().st_size for file in files if file.is_file()]}"
    return key if options == asdict(TextSpec()) else f"{key} {options}"

"""A word encoder as a stock CLIP, so that CLIP Text Encode and every node that takes a CLIP reads it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import comfy.sd
import torch

from ..model_loaders.word_encoder import WordEncoder, load_word_encoder

_KEY = "words"  # of the tokens


def load_words(path: str | Path) -> comfy.sd.CLIP:
    """A CLIP of a word encoder's file. Raises ValueError as `load_word_encoder`; for a word that it does not know, the
    CLIP's `tokenize` does."""
    encoder = load_word_encoder(path)
    target = SimpleNamespace(params={}, clip=lambda **_: WordModel(encoder), tokenizer=lambda **_: _Tokenizer(encoder))
    return comfy.sd.CLIP(target, parameters=encoder.codes.numel())


class _Tokenizer:
    """What ComfyUI asks of a tokenizer. Words have no weights: parentheses are punctuation."""

    def __init__(self, encoder: WordEncoder):
        self.encoder = encoder

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_) -> dict[str, list]:
        """One batch of (id, weight) pairs, or (id, weight, word number) triples."""
        ids = self.encoder.ids(text)
        return {_KEY: [[(id, 1.0, place) if return_word_ids else (id, 1.0) for place, id in enumerate(ids, start=1)]]}

    def state_dict(self) -> dict:
        """Nothing: the words are in the file's metadata."""
        return {}


class WordModel(torch.nn.Module):
    """What ComfyUI asks of a text encoder. It computes nothing worth a GPU and stays where it is."""

    dtypes = frozenset({torch.float32})

    def __init__(self, encoder: WordEncoder):
        super().__init__()
        self.encoder = encoder
        self.codes = torch.nn.Parameter(encoder.codes, requires_grad=False)  # ComfyUI weighs a model by these

    def encode_token_weights(self, tokens: dict[str, list]) -> tuple[torch.Tensor, None]:
        """The embedding [1, 64, 4096], and no pooled one."""
        return torch.stack([self.encoder.embed([token[0] for token in row]) for row in tokens[_KEY]]), None

    def set_clip_options(self, options: dict) -> None:
        """There are none."""

    def reset_clip_options(self) -> None:
        """There are none."""

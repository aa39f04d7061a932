"""A text encoder for small models of a closed vocabulary: a fixed code for every word, in its place in the sentence.

The row of a word holds its own code between those of its neighbours, and a sinusoid of its position, so that "a red
ball and a blue box" says which of the two is red without a network that has to learn it. Nothing in it is trained; the
backbone's text embedding is. n prompts, D the width that Wan takes, 4096.

The file holds `word_codes` [V, C], one row a word and the last for the end of the text, and in its metadata the words.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..joint.families import WAN_NEGATIVE_PROMPT
from ..joint.transformer import sinusoid
from .safetensors_file import load_tensors, read_header, replace_tensors

CODES, WORDS = "word_codes", "words"
LENGTH = 64  # rows; longer texts are cut, their end kept
_WIDTH = 4096  # of UMT5, and so what every Wan backbone takes
_CODE, _REACH, _POSITION = 256, 2, 64
_LONGEST_WAVE = 10.0  # the sinusoid is made for times 0..1000: a word is as much as ten of them


def is_word_encoder(names: Collection[str]) -> bool:
    """Whether tensors of these names are a word encoder."""
    return CODES in names


def save_word_encoder(path: str | Path, words: Sequence[str], seed: int = 0) -> None:
    """Draw codes for the words (any case, each once) and write the file. Raises OSError."""
    words = list(dict.fromkeys(word.lower() for word in words))
    codes = torch.randn(len(words) + 1, _CODE, generator=torch.Generator().manual_seed(seed))
    replace_tensors(path, {CODES: codes.half()}, {WORDS: json.dumps(words)})


@dataclass(frozen=True)
class WordEncoder:
    """What a file of `save_word_encoder` holds: its words, and their codes [V + 1, C] with that of the end last."""

    name: str
    words: tuple[str, ...]
    codes: Tensor

    def ids(self, prompt: str) -> list[int]:
        """The numbers of a prompt's words and of its end, at most 64. Case and punctuation do not count, and Wan's
        stock negative prompt, which is written for UMT5, says nothing. Raises ValueError for a word that the
        vocabulary lacks."""
        said = split_words(prompt) if prompt != WAN_NEGATIVE_PROMPT else []
        number = {word: i for i, word in enumerate(self.words)}
        if strange := [word for word in said if word not in number]:
            near = difflib.get_close_matches(strange[0], self.words, 3, cutoff=0.0)
            raise ValueError(f"The word '{strange[0]}' is not among the {len(number)} that {self.name} knows; try "
                             f"{', '.join(near)}.")
        return [*(number[word] for word in said[:LENGTH - 1]), len(number)]

    def embed(self, ids: Sequence[int]) -> Tensor:
        """The rows [64, 4096] of a prompt, float32: zero from its own length on."""
        out = torch.zeros(LENGTH, _WIDTH)
        padded = torch.zeros(len(ids) + 2 * _REACH, _CODE)
        padded[_REACH:_REACH + len(ids)] = self.codes[list(ids)]
        window = padded.unfold(0, 2 * _REACH + 1, 1).transpose(1, 2).flatten(1)  # [L, 5C]
        out[:len(ids), :window.shape[1]] = window
        out[:len(ids), window.shape[1]:window.shape[1] + _POSITION] = sinusoid(
            _LONGEST_WAVE * torch.arange(len(ids)), _POSITION)
        return out


def load_word_encoder(path: str | Path) -> WordEncoder:
    """Raises ValueError for a file that holds none, and as `read_header`."""
    header = read_header(path)
    if not is_word_encoder(header.shapes) or WORDS not in header.metadata:
        raise ValueError(f"{Path(path).name} is no word encoder: choose one that `training.word_codes` wrote.")
    words = tuple(json.loads(header.metadata[WORDS]))
    return WordEncoder(Path(path).name, words, load_tensors(path, [CODES])[CODES].float())


def encode_words(path: str | Path, prompts: Sequence[str]) -> Tensor:
    """Each prompt as a row of [n, 64, 4096], float32. Raises ValueError as `load_word_encoder` and its `ids`."""
    encoder = load_word_encoder(path)
    return torch.stack([encoder.embed(encoder.ids(prompt)) for prompt in prompts])


def split_words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"[\w']+", text.lower())

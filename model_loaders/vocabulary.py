"""The vocabulary of a token stream: text to ids and back, as transformers' T5Tokenizer has it.

A vocabulary is the bytes of a sentencepiece model (T5's `spiece.model`) or of a `tokenizer.json`. V: the number of ids.
"""

import re
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from .safetensors_file import load_tensors, name_some, read_header

VOCABULARY_TENSORS = ("spiece_model", "tokenizer_json")  # of bytes, which carry either in a weight file
_FILES = ("spiece.model", "tokenizer.json")  # in this order: the first is what the reference's T5Tokenizer reads
_SPECIAL = ("<pad>", "</s>", "<unk>")
_SENTINEL = re.compile(r"<extra_id_\d+>")  # T5's marks of masked spans, which T5Tokenizer does not count
_WANTED = "give a spiece.model, a tokenizer.json, or a weight file that carries one"


class Vocabulary:
    """Token ids 0..size-1 and their text.

    data: the bytes of either kind of file; name: what errors call it. pad_id, eos_id, unknown_id: the model's own.
    Raises ValueError for bytes that are neither, or that lack one of those three, and ImportError without the library.
    """

    def __init__(self, data: bytes, name: str):
        kind = _TokenizerJson if data.startswith(b"{") else _Sentencepiece
        self._data = data
        try:
            self._pieces = kind(data)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{name} cannot be read as a vocabulary: {_WANTED}.") from error
        missing = [text for text, id in zip(_SPECIAL, self._pieces.special, strict=True) if id is None]
        if missing:
            raise ValueError(f"The vocabulary {name} has no {' and no '.join(missing)}: {_WANTED}, of the T5 family.")
        self.pad_id, self.eos_id, self.unknown_id = self._pieces.special

    @property
    def size(self) -> int:
        """V, as T5Tokenizer.vocab_size: without the `<extra_id_n>` that T5 adds."""
        return self._pieces.size

    def tensors(self) -> dict[str, Tensor]:
        """The vocabulary as a weight file carries it, for `find_vocabulary`: a tensor of bytes by its name."""
        return vocabulary_tensor(self._data)

    def tokens(self, text: str) -> list[int]:
        """The ids of a text, without EOS; what the vocabulary does not know is `unknown_id`."""
        return [id for id, _ in self._pieces.encode(text)]

    def encode(self, text: str, length: int) -> list[int]:
        """The ids of a text that has to fit a stream of `length` tokens, EOS last, without padding.

        Raises ValueError for a text that is empty, does not fit, or holds what the vocabulary does not know.
        """
        if not text.strip():
            raise ValueError("An empty text was given and at least one word is needed: write what the clip shows.")
        pieces = self._pieces.encode(text)
        unknown = [part for id, part in pieces if id == self.unknown_id]
        if unknown:
            raise ValueError(f"The text holds {name_some(map(repr, dict.fromkeys(unknown)))}, which the model's "
                             "vocabulary does not know: leave that out or say it otherwise.")  # fmt: skip
        if len(pieces) + 1 > length:
            raise ValueError(f"The text is of {len(pieces) + 1} tokens with its end and the stream holds {length}: "
                             "shorten it.")  # fmt: skip
        return [*(id for id, _ in pieces), self.eos_id]

    def pad(self, ids: Sequence[int], length: int) -> list[int]:
        """ids, `length` at most, filled up to `length` with `pad_id`."""
        return [*ids, *[self.pad_id] * (length - len(ids))]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, as `batch_decode(skip_special_tokens=True)` gives it: pad, EOS, unknown and ids that are not
        in the vocabulary are left out, and what follows an EOS is not. Source: specs/univigu.md §6.2."""
        dropped = (self.pad_id, self.eos_id, self.unknown_id)
        return self._pieces.decode([id for id in map(int, ids) if 0 <= id < self.size and id not in dropped]).strip()


def find_vocabulary(path: str | Path) -> Vocabulary:
    """Read the vocabulary of a file or folder.

    path: a sentencepiece model, a tokenizer.json, a safetensors file with either of them as a uint8 tensor
    (`spiece_model`, as in ComfyUI's umt5_xxl_fp16.safetensors, or `tokenizer_json`), a folder that holds one of the
    first two, or a diffusers folder with such a tokenizer/.

    Raises FileNotFoundError, and ValueError for a file that holds no vocabulary; further as `Vocabulary`.
    """
    return Vocabulary(*read_vocabulary(path))


def read_vocabulary(path: str | Path) -> tuple[bytes, str]:
    """The bytes of the vocabulary of a file or folder, as `find_vocabulary` takes it, and what errors call it."""
    path = Path(path)
    if path.is_dir():
        files = [folder / name for folder in (path / "tokenizer", path) for name in _FILES]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise FileNotFoundError(f"The folder {path} holds no {' or '.join(_FILES)}: {_WANTED}.")
        return file.read_bytes(), file.name
    if not path.is_file():
        raise FileNotFoundError(f"There is no vocabulary at {path}: {_WANTED}.")
    if path.suffix != ".safetensors":
        return path.read_bytes(), path.name
    carried = [name for name in VOCABULARY_TENSORS if read_header(path).dtypes.get(name) == "U8"]
    if not carried:
        raise ValueError(f"{path.name} carries no vocabulary (no tensor {' or '.join(VOCABULARY_TENSORS)}): {_WANTED}.")
    return load_tensors(path, carried[:1])[carried[0]].numpy().tobytes(), path.name


def vocabulary_tensor(data: bytes) -> dict[str, Tensor]:
    """The bytes of a vocabulary as a weight file carries them: one uint8 tensor [bytes], under its name."""
    name = VOCABULARY_TENSORS[data.startswith(b"{")]
    return {name: torch.frombuffer(bytearray(data), dtype=torch.uint8)}


def make_word_vocabulary(words: Iterable[str]) -> bytes:
    """A tokenizer.json for a closed list of words, for small models: a token is a word in lower case, or a full stop or
    comma, which decode to the word before. Ids: pad 0, EOS 1, unknown 2, then these two, then the words in order.

    Raises ValueError for a word that is not made of letters and digits alone, ImportError without tokenizers.
    """
    tokenizers = _import("tokenizers")
    words = list(dict.fromkeys(word.lower() for word in words))
    odd = [word for word in words if not word.isalnum()]
    if odd:
        raise ValueError(f"{odd[0]!r} is no single word of letters and digits: take it apart.")
    ids = {token: id for id, token in enumerate([*_SPECIAL, ".", ",", *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token=_SPECIAL[2]))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Punctuation("isolated")]
    )
    # Of BERT's word pieces only its setting of punctuation is wanted: no token here starts with the prefix of a piece.
    tokenizer.decoder = tokenizers.decoders.WordPiece(prefix="##", cleanup=True)
    return tokenizer.to_str().encode()


class _Sentencepiece:
    """A sentencepiece model, as `Vocabulary` needs it."""

    def __init__(self, data: bytes):
        if not data:
            raise ValueError("the library takes no bytes for no model, and does not complain")
        self._model = _import("sentencepiece").SentencePieceProcessor(model_proto=data)
        found = (self._model.pad_id(), self._model.eos_id(), self._model.unk_id())
        self.special = tuple(None if id < 0 else id for id in found)
        self.size = self._model.get_piece_size()

    def encode(self, text: str) -> list[tuple[int, str]]:
        """(id, the part of the text it stands for)."""
        pieces = self._model.encode(text, out_type=str)  # of what it does not know, the characters themselves
        return [(id, piece.replace("▁", "")) for id, piece in zip(self._model.encode(text), pieces, strict=True)]

    def decode(self, ids: list[int]) -> str:
        return self._model.decode(ids)


class _TokenizerJson:
    """A tokenizer.json, as `Vocabulary` needs it."""

    def __init__(self, data: bytes):
        tokenizers = _import("tokenizers")
        try:
            self._model = tokenizers.Tokenizer.from_str(data.decode())
        except Exception as error:  # the library raises no class of its own
            raise ValueError(str(error)) from error
        # What a file may ask for besides would be cut or added behind our back.
        self._model.no_truncation()
        self._model.no_padding()
        self.special = tuple(map(self._model.token_to_id, _SPECIAL))
        self.size = sum(not _SENTINEL.fullmatch(token) for token in self._model.get_vocab(with_added_tokens=False))

    def encode(self, text: str) -> list[tuple[int, str]]:
        """(id, the part of the text it stands for)."""
        found = self._model.encode(text, add_special_tokens=False)
        return [(id, text[start:end]) for id, (start, end) in zip(found.ids, found.offsets, strict=True)]

    def decode(self, ids: list[int]) -> str:
        return self._model.decode(ids, skip_special_tokens=False)


def _import(package: str):
    try:
        return import_module(package)
    except ImportError as error:
        raise ImportError(f"Texts need {package}: pip install 'comfyui-strata[standalone]'.") from error

"""Clips as the network takes them, kept on disk: the VAE sees each clip once.

A clip is one file `HASH.safetensors`, the hash being over the clip's key and the VAE's; what cannot be used is
`HASH.bad.json`. Files are written aside and renamed, so any number of processes may share a folder and be killed at any
moment; a temporary file that is left then is never read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from ..imaging.atomic import replace_file
from ..model_loaders.safetensors_file import Header, load_tensors, read_header
from ..model_loaders.vae import WanVae
from .clips import ClipSource, say
from .vae_network import encode_layers

_FORMAT = "latents 2"
# Half the disk of float32. Latents are about N(0, 1), where float16 is off by 5e-4 of a value at most.
_STORED = torch.float16


@dataclass(frozen=True)
class CachedClip:
    """A clip's layers as the family's latents [C, T, h, w], float32 on the CPU, its prompt, and its texts by stream."""

    name: str
    prompt: str
    latents: dict[str, Tensor]
    texts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bad:
    """A clip that cannot be used, and why in one sentence."""

    name: str
    reason: str


def file_key(path: str | Path) -> str:
    """SHA-256 of a file's content. Raises OSError."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class LatentCache:
    """The clips of a source as latents, from `folder` or, where they are not there yet, from the VAE.

    vae_key: what stands for the VAE's weights, `file_key` of its file. say: hears of clips that cannot be used, of
    damaged files and, once, of a disk that takes no more; training goes on without. The VAE is not for several threads:
    each needs a cache with a VAE of its own, over the same folder if wanted.
    """

    def __init__(self, source: ClipSource, vae: WanVae, vae_key: str, folder: str | Path,
                 say: Callable[[str], None] = say, *, normalised: bool = True):
        self._source, self._vae, self._folder, self._say = source, vae, Path(folder), say
        self._normalised = normalised
        kind = "normalised" if normalised else "raw"
        self._stems = [_stem(_FORMAT, vae_key, str(vae.dtype), kind, source.key(i)) for i in range(len(source))]
        self._bad: dict[int, Bad] = {}
        self._usable: list[int] | None = None
        self._disk_refused = False

    def __len__(self) -> int:
        return len(self._stems)

    def get(self, i: int) -> CachedClip | None:
        """Clip i, or None when it cannot be used; the numbers are the same whether it was cached or not."""
        header = self._header(i)
        if header is None:
            return self._make(i)
        try:
            latents = {layer: tensor.float() for layer, tensor in load_tensors(header.path).items()}
        except (ValueError, OSError):
            self._discard(i)
            return self._make(i)
        return CachedClip(header.metadata["name"], header.metadata["prompt"], latents, _texts_of(header))

    def prepare(self, rank: int = 0, world: int = 1) -> list[Bad]:
        """Encode what is not cached yet, of clips rank, rank + world, ...; returns those of them that cannot be used.

        Clips that failed in an earlier run are tried again. With several processes a barrier must follow, before
        `usable` is read.
        """
        self._usable = None
        share = range(rank, len(self), world)
        for i in tqdm(share, desc="Encoding clips", unit="clip", disable=None):
            if self._header(i) is None:
                self._make(i)
        return [self._bad[i] for i in share if i in self._bad]

    @property
    def usable(self) -> list[int]:
        """The clips that `prepare` found fit for use: the same list in every process that shares the folder.

        Fixed when first read after `prepare`. (Only where the disk took no note of a bad clip may another process list
        it; `get` returns None there.) Raises ValueError when there are none.
        """
        if self._usable is None:
            bad = {i: found for i in range(len(self)) if (found := self._find_bad(i))}
            if len(bad) == len(self):
                raise ValueError(f"None of the {len(self)} clips can be used, first: {bad[0].reason}")
            self._usable = [i for i in range(len(self)) if i not in bad]
        return self._usable

    def describe(self, i: int) -> tuple[frozenset[str], str, dict[str, str]]:
        """The layers, the prompt and the texts of clip i, which must be usable, without its latents where these are
        stored."""
        header = self._header(i)
        if header is not None:
            return frozenset(header.shapes), header.metadata["prompt"], _texts_of(header)
        clip = self._make(i)
        return (frozenset(clip.latents), clip.prompt, clip.texts) if clip else (frozenset(), "", {})

    def stem(self, i: int) -> str:
        """What clip i is stored under: another name for other pixels or another VAE."""
        return self._stems[i]

    def _header(self, i: int) -> Header | None:
        """The header of a clip's file when that is there and whole, as its length shows."""
        try:
            header = read_header(self._file(i))
        except FileNotFoundError:
            return None
        except (ValueError, OSError):
            header = None
        if header is None or not {"name", "prompt", "texts"} <= header.metadata.keys():
            self._discard(i)
            return None
        return header

    def _make(self, i: int) -> CachedClip | None:
        try:
            clip = self._encode(i)
        except (ValueError, OSError) as error:
            bad = self._bad[i] = Bad(self._source.name(i), str(error))
            self._say(f"Skipped: {bad.reason}")
            self._store(self._note(i), json.dumps(asdict(bad)).encode())
            return None
        self._bad.pop(i, None)
        with contextlib.suppress(OSError):
            self._note(i).unlink(missing_ok=True)
        about = {"name": clip.name, "prompt": clip.prompt, "texts": json.dumps(clip.texts)}
        data = save({layer: latents.to(_STORED) for layer, latents in clip.latents.items()}, about)
        self._store(self._file(i), data)
        return clip

    def _encode(self, i: int) -> CachedClip:
        example = self._source.read(i)
        latents = {}
        encoded = encode_layers(self._vae, list(example.layers.values()), self._normalised)
        for layer, made in zip(example.layers, encoded):
            stored = made.to(_STORED)
            if not torch.isfinite(stored).all():
                raise ValueError(f"Clip '{example.name}': the VAE made values of its {layer} that are not finite; "
                                 "load the VAE in float32.")
            latents[layer] = stored.float().cpu()
        return CachedClip(example.name, example.prompt, latents, example.texts)

    def _store(self, path: Path, data: bytes) -> None:
        try:
            replace_file(path, data)
        except OSError as error:
            if not self._disk_refused:
                self._say(f"Warning: {error} Training goes on, and what cannot be stored is made again when needed.")
            self._disk_refused = True

    def _find_bad(self, i: int) -> Bad | None:
        # Latents count for more than a note, which an earlier run may have left.
        if self._file(i).exists():
            return None
        try:
            return self._bad.get(i) or Bad(**json.loads(self._note(i).read_bytes()))
        except (OSError, ValueError, TypeError):  # no note, or a damaged one
            return None

    def _discard(self, i: int) -> None:
        self._say(f"Warning: the cached latents of '{self._source.name(i)}' are damaged and are made again.")
        with contextlib.suppress(OSError):
            self._file(i).unlink(missing_ok=True)

    def _file(self, i: int) -> Path:
        return self._folder / f"{self._stems[i]}.safetensors"

    def _note(self, i: int) -> Path:
        return self._folder / f"{self._stems[i]}.bad.json"


def _texts_of(header: Header) -> dict[str, str]:
    return json.loads(header.metadata["texts"])


def _stem(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()

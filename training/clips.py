"""What is trained on: synthetic shots, or a user's own clips, as one kind of source."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from torch import Tensor
from tqdm import tqdm

from ..imaging.encodings.layers import decode
from ..imaging.files.clips import EXR, STILLS, read_clip
from ..imaging.sizes.fit import common_fit, still_to_clip
from ..imaging.sizes.shot_windows import fit_clip
from ..joint.streams import Family
from .clip_layouts import Listing, find_clips, printable
from .scenes import VERSION
from .shot_folder import ShotFolder
from .shots import FIRST_TRAINING_SEED, Example, family_layers, sayings, synthetic_example

_READING = 1  # how files become an example; raise it when that changes, because latents are cached by it


class ClipSource(Protocol):
    """Numbered clips, all of one size, each with at least one layer of a family."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """What clip i is called in messages."""

    def key(self, i: int) -> str:
        """The identity of clip i and of all that decides its pixels and its prompt, without reading a pixel.

        Never raises for an i that there is.
        """

    def read(self, i: int) -> Example:
        """Clip i. Raises ValueError or OSError in one sentence that names the clip when it cannot be used."""


def say(text: str) -> None:
    """Talk goes to stderr, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)


class SyntheticShots:
    """The shots of `count` seeds; from `folder`, where one is given, as the 8-bit pictures that it keeps. Raises
    ValueError for a size that `check_size` refuses."""

    def __init__(self, family: Family, count: int, frames: int, height: int, width: int,
                 first_seed: int = FIRST_TRAINING_SEED, *, framing: str = "wide", folder: str | Path = ""):
        check_size(frames, height, width, 2 * family.latents.cell)
        if count < 1:
            raise ValueError(f"{count} synthetic shots were asked for, at least 1 is needed.")
        self.family = family
        self.size, self.framing = (frames, height, width), framing
        self._folder = ShotFolder(Path(folder), *self.size, framing) if folder else None
        self._seeds = range(first_seed, first_seed + count)

    def __len__(self) -> int:
        return len(self._seeds)

    def name(self, i: int) -> str:
        return f"synthetic shot {self._seeds[i]}"

    def key(self, i: int) -> str:
        how = [self.framing, "8 bit" if self._folder else "exact"]
        return _digest("synthetic", VERSION, self.family.name, *self.size, *how, self._seeds[i])

    def read(self, i: int) -> Example:
        if self._folder is None:
            return synthetic_example(self.family, self._seeds[i], *self.size, self.framing)
        layers, caption, summary = self._folder.shot(self._seeds[i])
        pictures = {name: image.float() / 255 for name, image in family_layers(self.family, layers).items()}
        return Example(self.name(i), pictures, *sayings(self.family, caption, summary))


class OwnClips:
    """Clips from disk in one of the layouts of `clip_layouts`: their first `frames` frames, at height x width.

    A clip may lack layers, though not all. Pictures are scaled until they cover height x width, and their centre is
    kept; values outside 0..1 are clipped. A single picture beside longer layers stands still for all frames. `say`
    hears of files that were passed over.
    Raises ValueError or FileNotFoundError in one sentence for a size that `check_size` refuses and as `find_clips`; a
    clip that cannot be used shows only when it is read.
    """

    def __init__(self, family: Family, where: str | Path, frames: int, height: int, width: int,
                 say: Callable[[str], None] = say):
        check_size(frames, height, width, 2 * family.latents.cell)
        where = Path(where)
        self.family = family
        self.size = frames, height, width
        self._clips, warnings = find_clips(where, family)
        self._root = where if where.is_dir() else where.parent
        for warning in warnings:
            say(printable(f"Warning: {warning}"))

    def __len__(self) -> int:
        return len(self._clips)

    def name(self, i: int) -> str:
        return self._clips[i].name

    def key(self, i: int) -> str:
        clip = self._clips[i]
        files = {layer: [self._state(path) for path in paths] for layer, paths in clip.files.items()}
        texts = {name: self._state(text) if isinstance(text, Path) else text
                 for name, text in {"prompt": clip.prompt, **clip.texts}.items()}
        return _digest("own", _READING, self.family.name, *self.size, clip.name, texts, files)

    def read(self, i: int) -> Example:
        """Clip i. Raises ValueError for a clip that cannot be used (no layer, too few frames, layers of several sizes,
        a damaged file, ...), OSError for a file that is missing or cannot be reached, each in one sentence with the
        clip's name; ImportError for EXR without the OpenEXR library, as no clip is at fault then.
        """
        clip = self._clips[i]
        try:
            texts = {name: _read_text(text) for name, text in clip.texts.items()}
            return Example(clip.name, self._read_layers(clip), _read_text(clip.prompt), texts)
        except (ValueError, OSError) as error:
            kind = OSError if isinstance(error, OSError) else ValueError
            raise kind(printable(f"Clip '{clip.name}': {error}")) from error

    def _read_layers(self, clip: Listing) -> dict[str, Tensor]:
        frames, height, width = self.size
        encodings = {stream.name: stream.encoding for stream in self.family.streams}
        if not clip.files:
            raise ValueError(f"it has no layer, but at least one of {', '.join(self.family.pictures)} is needed.")
        layers, originals = {}, {}
        for layer, paths in clip.files.items():
            if len(paths) > 1:
                raise ValueError(f"{' and '.join(path.name for path in paths)} both are its {layer}; remove one.")
            path = paths[0]
            still = path.suffix.lower() in (*STILLS, EXR) and path.is_file()
            images = read_clip(path, 1 if still else frames, data=encodings[layer] != "colour").images
            originals[layer] = images.to("meta")  # sizes only: one layer of 4K is gigabytes
            layers[layer] = _cover(encodings[layer], images, height, width)
        if common_fit(originals).frames < frames:
            # Repeating all of it would teach that nothing ever moves.
            raise ValueError(f"it holds single pictures only, but {frames} frames are needed; put each layer's "
                             "sequence in a folder of its own, or train on 1 frame.")
        return {layer: still_to_clip(images, frames) for layer, images in layers.items()}

    def _state(self, path: Path) -> list:
        """What tells whether a file, or any file of a sequence, is another one than before."""
        try:
            files = sorted(path.iterdir()) if path.is_dir() else [path]
        except OSError:
            files = [path]
        # A dataset that moves as a whole stays the same data.
        names = [(f.relative_to(self._root) if f.is_relative_to(self._root) else f).as_posix() for f in files]
        return [[name, *_stamp(file)] for name, file in zip(names, files)]


def check_size(frames: int, height: int, width: int, step: int = 16) -> None:
    """Raise ValueError in one sentence for a clip that the video VAE and the transformer's patches, of `step` pixels
    together, cannot take."""
    if frames < 1 or frames % 4 != 1:
        below = max(1, (frames - 1) // 4 * 4 + 1)
        raise ValueError(f"Clips of {frames} frames were asked for, but 4n+1 are needed; take {below} or {below + 4}.")
    if min(height, width) < step or height % step or width % step:
        raise ValueError(f"Clips of {width}x{height} pixels were asked for, but multiples of {step} are needed; "
                         "round them.")


def _cover(encoding: str, images: Tensor, height: int, width: int) -> Tensor:
    """[F, H, W, 3] to [F, height, width, 3] in 0..1: the largest centred part of that shape, scaled to that size."""
    fitted = fit_clip(images, height, width).clamp(0, 1)
    if encoding == "normal" and images.shape[1:3] != (height, width):
        return decode("normal", fitted)  # means of unit vectors are shorter ones
    return fitted  # normals too stay as given where nothing is scaled, as they do in inference


def _read_text(text: str | Path) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.read_text(encoding="utf-8-sig").strip()  # -sig: Notepad's own mark at the start
    except UnicodeDecodeError:
        raise ValueError(f"{text} is not UTF-8 text; save it as UTF-8.") from None


def _stamp(file: Path) -> tuple[int, ...]:
    """Size and time of change; nothing for what is not there, which reading reports."""
    try:
        state = file.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return ()
    return state.st_size, state.st_mtime_ns


def _digest(*parts) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

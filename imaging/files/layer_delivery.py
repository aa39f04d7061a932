"""The layers of a shot to numbered frames on disk: multilayer EXR, or a folder of 16-bit stills a layer."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from ..atomic import cannot_write
from .deep_stills import still_bytes, still_shape
from .exr_file import exr_bytes
from .layer_exr import Delivery, check_layers, is_frame, layer_parts, too_bright_for_half
from .layer_names import DELIVERED
from .versions import (
    FIRST_FRAME,
    check_no_other_frames,
    frame_name,
    new_version_folder,
    of_another_clip,
    version_name,
    write_frames,
)


@dataclass(frozen=True)
class Delivered:
    """folder: of the version. written, kept: files that were made, and that lay there whole. notes: sentences on what
    the files could not hold as it was."""

    folder: Path
    version: int
    written: int
    kept: int
    notes: tuple[str, ...] = ()


def save_exr(
    layers: Mapping[str, Tensor],
    delivery: Delivery,
    parent: Path,
    name: str,
    *,
    version: int = 0,
    first: int = FIRST_FRAME,
    after_frame: Callable[[], None] = lambda: None,
) -> Delivered:
    """Write layers, [F, H, W, C] by name, as PARENT/NAME_v001/NAME_v001.1001.exr and so on, one frame at a time.

    version: 0 makes a new one; another goes on with it, keeping the frames of it that are whole. A still goes with
    every frame of a clip. after_frame: called once a frame. Raises ValueError in one sentence for layers that
    `check_layers` refuses and for a version that holds another clip's frames, OSError for a disk that refuses (finished
    frames stay, nothing half-written does), ImportError without the OpenEXR library.
    """
    frames, _, _ = check_layers(layers)
    wide = too_bright_for_half(layers, delivery)
    # Made before the folder, so that a missing library or an unknown name leaves nothing behind.
    layer_parts(_at(layers, 0), delivery, 0, wide)
    folder, version = _open_version(parent, name, version)
    stem = version_name(name, version)

    def jobs() -> Iterator:
        for i in range(frames):
            parts = layer_parts(_at(layers, i), delivery, i, wide)
            yield frame_name(stem, first + i, ".exr"), partial(exr_bytes, parts), partial(is_frame, parts=parts)

    notes = [f"{layer} exceeds 65504, the most half can hold: it is stored as float." for layer in sorted(wide)]
    notes += [
        f"{layer} has values outside 0..1, which no matte has: they were clamped."
        for layer, images in layers.items()
        if DELIVERED[layer] == "mask" and _outside(images)
    ]
    names = _names(stem, first, frames, ".exr")
    return _write(folder, version, {folder: jobs()}, {folder: names}, tuple(notes), after_frame)


def save_stills(
    layers: Mapping[str, Tensor],
    suffix: str,
    parent: Path,
    name: str,
    *,
    version: int = 0,
    first: int = FIRST_FRAME,
    texts: Mapping[str, str] | None = None,
    after_frame: Callable[[], None] = lambda: None,
) -> Delivered:
    """Write layers as PARENT/NAME_v001/LAYER/NAME_LAYER_v001.1001.png and so on, 16 bits, values as they are.

    suffix: of `deep_stills.SUFFIXES`. texts: put into each PNG. The rest as in `save_exr`; a layer's values outside
    0..1 are clamped, which the notes say. after_frame: called once a picture.
    """
    check_layers(layers)
    folder, version = _open_version(parent, name, version)
    jobs, names = {}, {}
    for layer, images in layers.items():
        stem = version_name(f"{name}_{layer}", version)
        names[folder / layer] = _names(stem, first, len(images), suffix)
        jobs[folder / layer] = _still_jobs(layer, images, names[folder / layer], suffix, texts)
    notes = tuple(
        f"{layer} has values outside 0..1, which {suffix[1:]} cannot hold: they were clamped; use EXR to keep them."
        for layer, images in layers.items()
        if _outside(images)
    )
    return _write(folder, version, jobs, names, notes, after_frame)


def _outside(images: Tensor) -> bool:
    """Whether any value is below 0 or above 1."""
    return any(bool((image < 0).any() or (image > 1).any()) for image in images)


def _at(layers: Mapping[str, Tensor], frame: int) -> dict[str, Tensor]:
    return {layer: images[frame if len(images) > 1 else 0] for layer, images in layers.items()}


def _names(stem: str, first: int, count: int, suffix: str) -> list[str]:
    return [frame_name(stem, first + i, suffix) for i in range(count)]


def _still_jobs(layer: str, images: Tensor, names: list[str], suffix: str, texts) -> Iterator:
    for name, image in zip(names, images):
        still = _as_still(layer, image)
        yield name, partial(still_bytes, still, suffix, texts), partial(_is_still, shape=tuple(still.shape))


def _as_still(layer: str, image: Tensor) -> Tensor:
    """[H, W, C], with one channel for masks."""
    return image[..., :3].mean(dim=-1, keepdim=True) if DELIVERED[layer] == "mask" else image


def _is_still(path: Path, shape: tuple[int, int, int]) -> bool:
    there = still_shape(path.read_bytes())
    if there not in (None, shape):
        raise of_another_clip(path)
    return there is not None


def _open_version(parent: Path, name: str, version: int) -> tuple[Path, int]:
    if version == 0:
        return new_version_folder(parent, name)
    folder = parent / version_name(name, version)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder, version


def _write(folder, version, jobs: Mapping[Path, Iterator], names: Mapping[Path, list[str]], notes, after_frame):
    """Write the frames of each folder; a version that stays empty is removed again."""
    written = kept = 0
    try:
        for place, frames in jobs.items():
            if place.is_dir():
                check_no_other_frames(place, names[place])
            for made in write_frames(place, frames):
                written, kept = written + made, kept + (not made)
                after_frame()
    finally:
        if not written + kept:
            for place in dict.fromkeys([*jobs, folder]):  # what lies in the version's folder goes before it
                with suppress(OSError):  # it holds something, or is not there
                    place.rmdir()
    return Delivered(folder, version, written, kept, notes)

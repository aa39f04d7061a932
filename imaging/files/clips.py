"""Clips on disk: videos, stills, numbered sequences of stills or EXR frames."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..atomic import replace_file, replace_files
from ..checks import check_pixels
from ..encodings.layers import Encoding, encode, find_encoding
from .exr import exr_writer, read_exr
from .video import count_video_frames, mp4_bytes, read_video

VIDEOS = (".mp4", ".mov", ".webm", ".mkv")
STILLS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
EXR = ".exr"

_STILL_RATE = Fraction(24)  # for files that state none: film's rate, the usual one for sequences
_FIRST_NUMBER = 1001  # where a film shot's frames start, so that handles can be added in front


@dataclass(frozen=True)
class Clip:
    """Pictures in time.

    images: [F, H, W, 3] float32, sRGB-encoded colour or data in 0..1 (EXR highlights above 1 are kept). rate: frames a
    second.
    """

    images: Tensor
    rate: Fraction


def read_clip(
    path: str | Path, frames: int | None = None, *, data: bool = False, keep: Collection[int] | None = None
) -> Clip:
    """Read a video, a still (one frame), an .exr or a folder with one numbered sequence of stills or EXR frames.

    frames: how many to read from the start, None for all. keep: the numbers of those among them that are returned, None
    for all. data: pixels are not colour, so linear EXR values are returned as they stand; otherwise they are
    sRGB-encoded (IEC 61966-2-1), like every other file already is. Alpha is dropped, EXIF and video rotation applied.
    Stills, and EXR that states no rate, come at 24 frames a second.
    Raises FileNotFoundError when nothing is there, ValueError in one sentence when it cannot be read, is empty, mixes
    sizes or is shorter than `frames`, and ImportError for EXR without the OpenEXR library.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist, but a clip is needed there; check the path.")
    if frames is not None and frames < 1:
        raise ValueError(
            f"{frames} frames of {path} were asked for, at least 1 is needed; leave the number out to read all."
        )
    if path.suffix.lower() in VIDEOS and path.is_file():
        pictures, rate = read_video(path, frames, keep)
    else:
        files = _sequence(path) if path.is_dir() else [path]
        read = [_read_picture(file, data) for i, file in enumerate(files[:frames]) if keep is None or i in keep]
        pictures, rate = [picture for picture, _ in read], read[0][1] if read else _STILL_RATE
    needed = (frames or 1) if keep is None else len(keep)
    if len(pictures) < needed:
        raise ValueError(
            f"{path} holds {len(pictures)} frames, but {needed} are needed; give a longer clip or ask for less."
        )
    sizes = sorted({f"{picture.shape[1]}x{picture.shape[0]}" for picture in pictures})
    if len(sizes) > 1:
        raise ValueError(
            f"{path} mixes frames of {', '.join(sizes)} pixels, but one size is needed; resize or sort them out."
        )
    images = torch.from_numpy(_as_float(np.stack(pictures)))
    check_pixels(str(path), images)
    return Clip(images, rate)


def count_frames(path: str | Path) -> int:
    """How many frames `read_clip` reads from there, at the cost of decoding them all but of no memory.

    Raises as `read_clip`; a video without a frame has 0."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist, but a clip is needed there; check the path.")
    if path.is_dir():
        return len(_sequence(path))
    return count_video_frames(path) if path.suffix.lower() in VIDEOS else 1


def write_clip(images: Tensor, path: str | Path, rate: Fraction, format: str = "png", encoding: str = "colour") -> Path:
    """Write [F, H, W, 1|3|4] float in 0..1 (alpha is dropped) as the layer named by the last part of `path`.

    format: "png" and "exr" make the folder `path` with NAME.1001.png, NAME.1002.png, ..., "mp4" the file `path`.mp4:
      png   16-bit RGB, values as they are, clamped to 0..1
      exr   by `encoding`, "colour": scene-linear half R, G, B; "normal": float X, Y, Z in -1..1; "mask": float A
      mp4   H.264 crf 12, 8-bit BT.709, yuv420p or, for odd sizes, yuv444p; lossy, for viewing
    An older clip of that name and format is replaced, as a whole or not at all. Returns what `read_clip` reads back.
    Raises ValueError in one sentence for an unknown format or encoding and for pixels that `check_pixels` refuses,
    OSError when the disk refuses, ImportError for EXR without the OpenEXR library.
    """
    path = Path(path)
    if format not in (*_FRAME_WRITERS, "mp4"):
        raise ValueError(f"Unknown clip format {format!r}: use one of {', '.join(_FRAME_WRITERS)}, mp4.")
    images = encode(encoding, images)
    if format == "mp4":
        file = path if path.suffix.lower() == ".mp4" else path.with_name(f"{path.name}.mp4")
        replace_file(file, mp4_bytes(images, rate))
        return file
    names = [f"{path.name}.{_FIRST_NUMBER + i:04}.{format}" for i in range(len(images))]
    writer = _FRAME_WRITERS[format]
    row = find_encoding(encoding)
    replace_files(path, ((name, writer(frame, rate, row)) for name, frame in zip(names, images, strict=True)))
    # What an older, longer clip of this name left behind would be read as the end of this one.
    for file in path.iterdir():
        if re.fullmatch(rf"{re.escape(path.name)}\.\d{{4,}}\.{format}", file.name) and file.name not in names:
            file.unlink()
    return path


def _png_writer(frame: Tensor, _rate: Fraction, _encoding: Encoding) -> Callable[[Path], None]:
    """What writes one frame, [H, W, 3] in 0..1, to a path; a PNG can state neither its rate nor what it encodes."""
    codes = (frame.float().clamp(0, 1) * 65535).round().cpu().numpy().astype(np.uint16)
    _, data = cv2.imencode(".png", codes[..., ::-1])  # OpenCV's order is B, G, R

    def write(path: Path):
        # Not cv2.imwrite, which cannot say why it failed and knows no unicode names on Windows.
        path.write_bytes(data.tobytes())

    return write


_NUMBER = re.compile(r"(\d+)_?$")  # ComfyUI's Save Image ends names in an underscore: shot_00001_.png

_FRAME_WRITERS = {"png": _png_writer, "exr": exr_writer}


def _sequence(folder: Path) -> list[Path]:
    """The frames in a folder, in the order of their numbers. Raises ValueError unless they are exactly one sequence."""
    files = [
        file for file in folder.iterdir() if file.suffix.lower() in (*STILLS, EXR) and not file.name.startswith(".")
    ]
    if not files:
        raise ValueError(f"The folder {folder} holds no frames, but {_kinds(*STILLS, EXR)} are needed; check the path.")
    sequences = sorted({_NUMBER.sub("", file.stem) + "#" + file.suffix for file in files})
    if len(sequences) > 1:
        raise ValueError(
            f"The folder {folder} holds {len(sequences)} sequences ({', '.join(sequences[:4])}), but one is needed; "
            "move each into a folder of its own."
        )
    return sorted(files, key=_natural)


def _natural(file: Path) -> tuple[int, str]:
    # All names share what stands before the number, so the number decides: 9 before 10, padded or not.
    number = _NUMBER.search(file.stem)
    return int(number.group(1)) if number else 0, file.name


def _read_picture(path: Path, data: bool) -> tuple[np.ndarray, Fraction]:
    """One frame, [H, W, 3] float32, and its rate."""
    suffix = path.suffix.lower()
    if suffix == EXR:
        picture, rate = read_exr(path, data=data)
        return picture, rate or _STILL_RATE
    if suffix not in STILLS:
        raise ValueError(f"{path} is no clip: {_kinds(*VIDEOS, *STILLS, EXR)} or a folder is needed; convert it first.")
    content = np.frombuffer(path.read_bytes(), np.uint8)
    # Three channels of any depth, turned upright as EXIF says.
    picture = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if content.size else None
    if picture is None:
        raise ValueError(f"{path} could not be read as a picture, but a whole file is needed; export or copy it again.")
    if picture.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{path} holds {picture.dtype} pixels, but 8 or 16 bits are needed; save it so, or as EXR.")
    return _as_float(picture[..., ::-1]), _STILL_RATE  # OpenCV's order is B, G, R


def _as_float(pictures: np.ndarray) -> np.ndarray:
    scale = {"uint8": 255, "uint16": 65535, "float32": 1}[pictures.dtype.name]
    pictures = pictures.astype(np.float32, copy=False)
    pictures /= scale
    return pictures


def _kinds(*suffixes: str) -> str:
    return ", ".join(suffix[1:] for suffix in suffixes)

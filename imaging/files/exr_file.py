"""OpenEXR files as parts of named channels, through the optional OpenEXR library (the `exr` extra).

The library cannot be trusted with the disk: it reports no error when the last bytes do not fit, leaves out parts that a
cut file lacks, and writes other numbers than given for arrays that are not contiguous. So files are made in memory and
their parts are counted.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HALF_MAX = 65504.0  # beyond it half is infinite

@dataclass(frozen=True)
class Part:
    """One part of a file. name: "" for the only one. header: attributes by OpenEXR's names. channels: [h, w] float16
    or float32 by full name, all of the data window's size."""

    name: str
    header: Mapping[str, object]
    channels: Mapping[str, np.ndarray]

    def plane(self, channel: str) -> np.ndarray:
        """A channel as [H, W] float32 in the display window: renderers crop or overscan. Outside its data it is 0."""
        pixels = self.channels[channel]
        (data_left, data_top), _ = self.header["dataWindow"]
        (left, top), (right, bottom) = self.header["displayWindow"]
        picture = np.zeros((bottom - top + 1, right - left + 1), np.float32)
        x, y = data_left - left, data_top - top
        inside = pixels[max(0, -y) : max(0, picture.shape[0] - y), max(0, -x) : max(0, picture.shape[1] - x)]
        x, y = max(0, x), max(0, y)
        picture[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        return picture


def exr_library():
    """The OpenEXR module. Raises ImportError in one sentence without it."""
    try:
        import OpenEXR
    except ImportError as error:
        raise ImportError(
            "EXR files need the OpenEXR library, which is not installed; run `pip install OpenEXR` in this "
            "Python, or use png."
        ) from error
    return OpenEXR


def exr_bytes(parts: Sequence[Part]) -> bytes:
    """A whole scanline file. Headers take Fraction for rates and the library's own TimeCode and compressions."""
    library = exr_library()
    made = [
        library.Part(
            {"type": library.scanlineimage, **part.header},
            {name: np.ascontiguousarray(pixels) for name, pixels in part.channels.items()},
            part.name,
        )
        for part in parts
    ]
    buffer = io.BytesIO()
    library.File(made).write(buffer)
    return buffer.getvalue()


def read_parts(path: Path, *, header_only: bool = False) -> list[Part]:
    """All parts of a file; without channels if `header_only`.

    Raises ValueError in one sentence for a file that is damaged, cut short or deep, OSError when it is not there,
    ImportError without the library.
    """
    library = exr_library()
    path.stat()  # the library says nothing but "unable to open"
    try:
        declared = library.File(str(path), header_only=True).parts
        # Separate, or the library hands R, G, B over as one array under a name of its own.
        parts = declared if header_only else library.File(str(path), separate_channels=True).parts
        if not declared or len(parts) < len(declared):
            raise ValueError(f"{len(declared) - len(parts)} of its {len(declared)} parts are cut off")
        return [
            Part(part.header.get("name", ""), part.header, {n: c.pixels for n, c in part.channels.items()})
            for part in parts
        ]
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} could not be read as an EXR ({error}), but a whole file is needed; render or copy it again."
        ) from error

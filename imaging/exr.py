"""OpenEXR frames, through the optional OpenEXR library (the `exr` extra).

Conventions: colour is scene-linear half in R, G, B; vectors are X, Y, Z in -1..1 and alpha is A, both 32-bit float.
Depth is inverse_depth.Z, 1 near and 0 far; flow is forward.u, forward.v (v up) in units of its reach.
Files say what they hold in `colorInteropID` (ASWF Color Interop Forum) and carry `framesPerSecond`.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .colour import linear_to_srgb
from .depth import warmth_to_colours
from .flow import flow_to_colours
from .layers import Encoding

_HALF_MAX = 65504.0

def _motion_colours(motion: Tensor) -> Tensor:
    """Files count v upwards, pictures downwards: [H, W, 2] in units of the reach to [H, W, 3]."""
    return flow_to_colours(motion[None] * motion.new_tensor([1.0, -1.0]), 1.0)[0][0]


# The first set that a file holds is read: its channels, and how they become a picture, [H, W, C] to [H, W, 1|3]. Nuke,
# Blender and we name a picture's own channels so; the layers are what we write.
_SCENE_LINEAR = (("R", "G", "B"), ("Y",))
_READ_ORDER: dict[tuple[str, ...], Callable[[Tensor], Tensor]] = {
    ("R", "G", "B"): linear_to_srgb,
    ("X", "Y", "Z"): lambda vectors: 0.5 * vectors + 0.5,
    ("Y",): linear_to_srgb,
    ("A",): lambda alpha: alpha,
    ("inverse_depth.Z",): lambda warmth: warmth_to_colours(warmth.clamp(0, 1)),
    ("forward.u", "forward.v"): _motion_colours,
}


def read_exr(path: Path, *, data: bool) -> tuple[np.ndarray, Fraction | None]:
    """One frame, [H, W, 3] float32, with the frame rate if the file states one.

    R, G, B and the gray Y are taken as scene-linear and returned sRGB-encoded, or untouched with `data`. X, Y, Z come
    back as 0.5 n + 0.5, A three times, depth and flow in their colours, always without a curve. Values above 1 are
    kept. The picture is the display window: what lies outside the data window is 0. Raises ValueError for a file that
    cannot be read, ImportError without the library.
    """
    try:
        # Separate, or the library hands R, G, B over as one array under a name of its own.
        file = _library().File(str(path), separate_channels=True)
        header, channels = file.header(), file.channels()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} could not be read as an EXR ({error}), but a whole file is needed; render or copy it again."
        ) from error
    names = next((names for names in _READ_ORDER if set(names) <= set(channels)), None)
    if names is None:
        known = " or ".join(map(",".join, _READ_ORDER))
        raise ValueError(
            f"{path} holds the channels {', '.join(sorted(channels))}, but {known} is needed; "
            "shuffle the wanted layer into one of those names."
        )
    stored = np.stack([channels[name].pixels.astype(np.float32) for name in names], axis=-1)
    pixels = torch.from_numpy(_in_display_window(stored, header))
    if not (data and names in _SCENE_LINEAR):
        pixels = _READ_ORDER[names](pixels)
    return pixels.expand(*pixels.shape[:2], 3).numpy(), header.get("framesPerSecond")


def exr_writer(frame: Tensor, rate: Fraction, encoding: Encoding) -> Callable[[Path], None]:
    """What writes one frame, [H, W, 3] float in 0..1 (above 1 is kept), to a path, as `encoding` says, zip-compressed.

    Raises ImportError in one sentence without the library; the writer raises OSError when the disk refuses.
    """
    library = _library()
    values = encoding.exr_values(frame).float().cpu().numpy()
    # A highlight beyond what half can hold would become infinity, so such a frame is stored as 32-bit float.
    half = encoding.exr_colour and float(np.abs(values).max()) <= _HALF_MAX
    values = values.astype(np.float16 if half else np.float32)
    header = {
        "type": library.scanlineimage,
        "compression": library.ZIP_COMPRESSION,
        "framesPerSecond": rate,
        "colorInteropID": "lin_rec709_scene" if encoding.exr_colour else "data",
    }
    channels = {name: np.ascontiguousarray(values[..., i]) for i, name in enumerate(encoding.exr_channels)}

    def write(path: Path):
        try:
            library.File(header, channels).write(str(path))
        except RuntimeError as error:  # how the library reports the disk: 'Failed to write to "path". File too large.'
            raise OSError(str(error).rstrip(".").rpartition(". ")[2]) from error

    return write


def _library():
    try:
        import OpenEXR
    except ImportError as error:
        raise ImportError(
            "EXR files need the OpenEXR library, which is not installed; run `pip install OpenEXR` in this "
            "Python, or use png."
        ) from error
    return OpenEXR


def _in_display_window(pixels: np.ndarray, header: dict) -> np.ndarray:
    """Place the data window, [h, w, C], in the display window, [H, W, C]: renderers crop or overscan."""
    (data_left, data_top), _ = header["dataWindow"]
    (left, top), (right, bottom) = header["displayWindow"]
    picture = np.zeros((bottom - top + 1, right - left + 1, pixels.shape[-1]), np.float32)
    x, y = data_left - left, data_top - top
    part = pixels[max(0, -y) : max(0, picture.shape[0] - y), max(0, -x) : max(0, picture.shape[1] - x)]
    x, y = max(0, x), max(0, y)
    picture[y : y + part.shape[0], x : x + part.shape[1]] = part
    return picture

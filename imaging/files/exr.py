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

from ..colour import linear_to_srgb
from ..encodings.depth import warmth_to_colours
from ..encodings.flow import flow_to_colours
from ..encodings.layers import Encoding
from .exr_file import HALF_MAX, Part, exr_bytes, exr_library, read_parts


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
    ("inverse_depth.Z",): warmth_to_colours,
    ("forward.u", "forward.v"): _motion_colours,
}


def read_exr(path: Path, *, data: bool) -> tuple[np.ndarray, Fraction | None]:
    """One frame, [H, W, 3] float32, with the frame rate if the file states one.

    R, G, B and the gray Y are taken as scene-linear and returned sRGB-encoded, or untouched with `data`. X, Y, Z come
    back as 0.5 n + 0.5, A three times, depth and flow in their colours, always without a curve. Values above 1 are
    kept. The picture is the display window: what lies outside the data window is 0. Raises ValueError for a file that
    cannot be read, ImportError without the library.
    """
    part = read_parts(path)[0]
    channels = part.channels
    names = next((names for names in _READ_ORDER if set(names) <= set(channels)), None)
    if names is None:
        known = " or ".join(map(",".join, _READ_ORDER))
        raise ValueError(
            f"{path} holds the channels {', '.join(sorted(channels))}, but {known} is needed; "
            "shuffle the wanted layer into one of those names."
        )
    pixels = torch.from_numpy(np.stack([part.plane(name) for name in names], axis=-1))
    if not (data and names in _SCENE_LINEAR):
        pixels = _READ_ORDER[names](pixels)
    return pixels.expand(*pixels.shape[:2], 3).numpy(), part.header.get("framesPerSecond")


def exr_writer(frame: Tensor, rate: Fraction, encoding: Encoding) -> Callable[[Path], None]:
    """What writes one frame, [H, W, 3] float in 0..1 (above 1 is kept), to a path, as `encoding` says, zip-compressed.

    Raises ImportError in one sentence without the library; the writer raises OSError when the disk refuses.
    """
    library = exr_library()
    values = encoding.exr_values(frame).float().cpu().numpy()
    # A highlight beyond what half can hold would become infinity, so such a frame is stored as 32-bit float.
    half = encoding.exr_colour and float(np.abs(values).max()) <= HALF_MAX
    values = values.astype(np.float16 if half else np.float32)
    header = {
        "compression": library.ZIP_COMPRESSION,
        "framesPerSecond": rate,
        "colorInteropID": "lin_rec709_scene" if encoding.exr_colour else "data",
    }
    channels = {name: values[..., i] for i, name in enumerate(encoding.exr_channels)}
    data = exr_bytes([Part("", header, channels)])
    return lambda path: path.write_bytes(data)

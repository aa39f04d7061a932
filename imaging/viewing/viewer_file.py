"""Layers as the viewer on a node reads them: raw half floats, so that a picked value is what a file would hold.

F frames of H x W pixels of C channels, one after the other, rows from the top, little-endian half floats and nothing
else; what they are goes beside them, to the browser. A range of bytes is a frame, so only what is looked at is sent.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..atomic import replace_files

# How a layer of that name is shown: colour follows the exposure, normals can be lit, data is shown as stored.
KINDS = {
    "rgb": "colour", "albedo": "colour", "irradiance": "colour", "normal": "normal", "alpha": "mask", "fg": "colour",
    "bg": "colour", "depth": "data", "flow": "data", "densepose": "data", "skeleton": "data", "segmentation": "data",
}  # fmt: skip


def viewer_name(folder: str | Path, name: str) -> Path:
    """A name in `folder` that no other run has: the browser keeps what it has seen by its name."""
    letters = "".join(letter if letter.isalnum() else "_" for letter in name)
    return Path(folder) / f"strata_{letters}_{uuid.uuid4().hex}.half"


def write_viewer_file(images: Tensor, path: Path, name: str, most: int = 0) -> dict[str, Any]:
    """Write a layer and return what the viewer asks of it.

    images: [F, H, W, 1|3|4], or a mask [F, H, W], any finite or broken float values: to show what is broken is what a
    viewer is for. most: wider pictures are scaled down to so many pixels by their area means; 0 leaves them.
    Raises ValueError for an empty layer or another shape, OSError when the disk refuses; nothing half-written is left.
    """
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or not images.numel() or images.shape[-1] not in (1, 3, 4):
        raise ValueError(f"The layer '{name}' has shape {list(images.shape)}, but frames of 1, 3 or 4 channels are "
                         "needed: connect an IMAGE or a MASK.")
    shape = _narrow(images[0], most).shape

    def write(part: Path) -> None:
        with part.open("wb") as file:
            for frame in images:  # one at a time: a long shot is not doubled in memory
                half = _narrow(frame, most).to("cpu", torch.float16).contiguous().numpy()
                file.write(half.astype("<f2", copy=False).tobytes())

    replace_files(path.parent, [(path.name, write)])
    height, width, channels = shape
    return {"name": name, "kind": KINDS.get(name, "colour"), "frames": len(images), "height": height, "width": width,
            "channels": channels, "filename": path.name, "subfolder": "", "type": "temp"}


def _narrow(frame: Tensor, most: int) -> Tensor:
    """[H, W, C], no wider than `most`."""
    height, width, _ = frame.shape
    if not most or width <= most:
        return frame
    size = max(1, round(height * most / width)), most
    return interpolate(frame.permute(2, 0, 1)[None].float(), size, mode="area")[0].permute(1, 2, 0)

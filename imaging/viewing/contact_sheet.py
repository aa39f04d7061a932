"""One picture that shows every layer of a shot at a glance."""

import io
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..atomic import replace_file
from ..checks import check_pixels
from ..encodings.layers import encode

_ROW = 180  # height of a frame on the sheet, in pixels
_GAP = 8
_BACKGROUND = (38, 38, 38)  # dark and neutral, so that it tints no judgement of the layers
_NAME = (235, 235, 235)
_GIVEN, _GENERATED = (150, 150, 150), (240, 180, 90)


def contact_sheet(
    layers: dict[str, Tensor],
    path: str | Path,
    frames: int = 4,
    given: Collection[str] = (),
    exact: Collection[str] = (),
) -> Path:
    """`draw_sheet` as a PNG at `path`, which is returned. Raises ValueError as that, OSError when the disk refuses;
    nothing half-written is left."""
    roles = {name: "given" if name in given else "exact" if name in exact else "generated" for name in layers}
    buffer = io.BytesIO()
    draw_sheet(layers, frames, roles).save(buffer, "PNG")
    replace_file(Path(path), buffer.getvalue())
    return Path(path)


def draw_sheet(layers: Mapping[str, Tensor], frames: int = 4, roles: Mapping[str, str] | None = None) -> Image.Image:
    """One labelled row a layer, in the order of the mapping, of `frames` evenly spaced frames.

    layers: [F, H, W, 1|3|4] float each, clamped to 0..1 and shown as they are encoded; sizes and lengths may differ, a
    layer shorter than `frames` shows all it has. roles: a second word for the label of a layer: "generated" stands out,
    "given" and "exact" (a truth to compare with) do not. Raises ValueError for no layers, frames below 1 or pixels that
    `check_pixels` refuses.
    """
    if not layers or frames < 1:
        raise ValueError(
            f"A contact sheet of {len(layers)} layers with {frames} frames each was asked for, at least 1 of both is "
            "needed; name the layers to show."
        )
    roles = roles or {}
    name_font, role_font = ImageFont.load_default(22), ImageFont.load_default(17)
    rows = {name: _row(name, images, frames) for name, images in layers.items()}
    words = [role_font.getlength(role) for role in roles.values()]
    gutter = int(max([*words, *(name_font.getlength(name) for name in rows)])) + 2 * _GAP
    width = gutter + max(row.width for row in rows.values())
    sheet = Image.new("RGB", (width, _GAP + len(rows) * (_ROW + _GAP)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for i, (name, row) in enumerate(rows.items()):
        top = _GAP + i * (_ROW + _GAP)
        sheet.paste(row, (gutter, top))
        baseline = top + _ROW // 2
        draw.text((_GAP, baseline), name, _NAME, name_font, anchor="ls")
        if role := roles.get(name):
            colour = _GENERATED if role == "generated" else _GIVEN
            draw.text((_GAP, baseline + 24), role, colour, role_font, anchor="ls")
    return sheet


def _row(name: str, images: Tensor, frames: int) -> Image.Image:
    """The frames of one layer side by side, each followed by a gap."""
    check_pixels(f"The layer {name}", images)
    count = min(frames, len(images))
    picks = torch.linspace(0, len(images) - 1, count).round().long()
    codes = (encode("colour", images[picks]).float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    width = max(1, round(_ROW * codes.shape[2] / codes.shape[1]))
    row = Image.new("RGB", (count * (width + _GAP), _ROW), _BACKGROUND)
    for i, frame in enumerate(codes):
        picture = Image.fromarray(np.ascontiguousarray(frame)).resize((width, _ROW), Image.Resampling.LANCZOS)
        row.paste(picture, (i * (width + _GAP), 0))
    return row

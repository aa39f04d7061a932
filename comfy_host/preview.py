"""All streams side by side in the live preview of a sampling."""

from __future__ import annotations

import comfy.utils
import latent_preview

from ..joint.streams import Family
from .forward import Plan


def preview_streams(callback, model, plan: Plan, family: Family):
    """`callback` with a second preview after it: the first frame of every picture of the first clip, in one row.

    The host's callback still gets the untouched tensors (it keeps x0 for others). None stays None."""
    if callback is None:
        return None
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    rows = [row for row in range(len(family.pictures)) if not plan.is_absent(0, row)]
    if previewer is None or len(rows) == 1:
        return callback

    def with_preview(step, x0, x, total):
        callback(step, x0, x, total)
        row = x0[rows, :, :1].movedim(0, -2).flatten(-2).unsqueeze(0)  # [S, C, 1, h, w] -> [1, C, 1, h, S*w]
        image = previewer.decode_latent_to_preview_image("JPEG", row)
        comfy.utils.ProgressBar(total).update_absolute(step + 1, total, image)

    return with_preview

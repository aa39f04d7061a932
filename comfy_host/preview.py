"""All streams side by side in the live preview of a sampling."""

from __future__ import annotations

import comfy.utils
import latent_preview


def preview_streams(callback, model, streams: int):
    """`callback` with a second preview after it: the first frame of every stream of the first clip, in one row.

    The host's callback still gets the untouched tensors (it keeps x0 for others). None stays None."""
    if callback is None:
        return None
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    if previewer is None:
        return callback

    def with_preview(step, x0, x, total):
        callback(step, x0, x, total)
        row = x0[:streams, :, :1].movedim(0, -2).flatten(-2).unsqueeze(0)  # [M, C, 1, h, w] -> [1, C, 1, h, M*w]
        image = previewer.decode_latent_to_preview_image("JPEG", row)
        comfy.utils.ProgressBar(total).update_absolute(step + 1, total, image)

    return with_preview

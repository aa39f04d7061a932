"""What every function on pictures checks first."""

import torch
from torch import Tensor

_CHANNELS = {1: "1 (gray)", 2: "2 (x, y)", 3: "3 (RGB)", 4: "4 (RGBA)"}


def check_pixels(name: str, images: Tensor, channels: tuple[int, ...] = (1, 3, 4)):
    """Refuse pictures that cannot be worked on, in one sentence that starts with `name`.

    Raises ValueError unless images is [F, H, W, C] with every size at least 1, C one of `channels`, and only finite
    values.
    """
    shape = list(images.shape)
    if images.ndim != 4:
        raise ValueError(
            f"{name} has shape {shape}, but [frames, height, width, channels] is needed; add or remove the dimension."
        )
    if images.numel() == 0:
        raise ValueError(
            f"{name} is empty (shape {shape}), but at least one frame is needed; load a clip with pictures."
        )
    if shape[-1] not in channels:
        *most, last = (_CHANNELS[count] for count in channels)
        needed = f"{', '.join(most)} or {last}" if most else last
        verb = "is" if channels == (1,) else "are"
        raise ValueError(f"{name} has {shape[-1]} channels, but {needed} {verb} needed; split or convert it first.")
    _check_finite(name, images)


def check_alpha(name: str, alpha: Tensor):
    """Refuse an alpha that cannot be worked on, in one sentence that starts with `name`.

    Raises ValueError unless alpha is [F, H, W] with every size at least 1, finite, and in 0..1 but for rounding (1e-4).
    """
    shape = list(alpha.shape)
    if alpha.ndim != 3 or alpha.numel() == 0:
        raise ValueError(
            f"{name} has shape {shape}, but [frames, height, width] with at least one pixel is needed; give a mask."
        )
    _check_finite(name, alpha)
    low, high = (float(end) for end in alpha.aminmax())
    if low < -1e-4 or high > 1 + 1e-4:
        raise ValueError(
            f"{name} goes from {low:.4g} to {high:.4g}, but 0 to 1 is needed; put Strata Refine Matte before it, which "
            "sets black and white and clamps."
        )


def _check_finite(name: str, images: Tensor):
    # Frame by frame: the answer for a whole clip at once would take a quarter of the clip's memory.
    broken = [i for i, frame in enumerate(images) if not torch.isfinite(frame).all()]
    if broken:
        raise ValueError(
            f"{name} has NaN or infinite pixels in {len(broken)} of {len(images)} frames (the first is frame "
            f"{broken[0]}), but finite values are needed; repair or re-render those frames."
        )

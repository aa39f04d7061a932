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
    # Frame by frame, since a mask of a whole 4K clip would be as large as the clip.
    broken = torch.tensor([not torch.isfinite(frame).all() for frame in images])  # [F]
    if broken.any():
        raise ValueError(
            f"{name} has NaN or infinite pixels in {int(broken.sum())} of {shape[0]} frames (the first is frame "
            f"{int(broken.int().argmax())}), but finite values are needed; repair or re-render those frames."
        )

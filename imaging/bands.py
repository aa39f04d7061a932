"""Work that looks at each pixel for itself, done over clips in bands of rows.

A 3840x2160 picture of floats is 100 MB, and a formula has a dozen of them in flight; in bands these stay in the cache,
and memory holds the clips and no more, at any size and length.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .fit import common_fit

_PIXELS = 1 << 17  # a band: 1.5 MB a picture of three channels

Work = Callable[[Mapping[str, Tensor], int, slice], tuple[Tensor, ...]]


def in_bands(work: Work, clips: Mapping[str, Tensor], each_frame: Callable[[], None]) -> tuple[Tensor, ...]:
    """What `work` makes of every band of every frame, put together: clips [F, H, W, C], on the CPU, float32.

    clips: name -> [F, H, W, C], in one size; a still goes with any length. work: is given name -> [h, W, C] float32,
    the frame and the rows, and returns pictures [h, W, C'], always the same number of them. each_frame: called after
    every frame, to show progress or to raise. Raises ValueError when sizes or lengths differ.
    """
    fit = common_fit(dict(clips))
    step = max(1, _PIXELS // fit.width)
    made: tuple[Tensor, ...] = ()
    for frame in range(fit.frames):
        pictures = {name: clip[frame if len(clip) > 1 else 0] for name, clip in clips.items()}
        for start in range(0, fit.height, step):
            rows = slice(start, min(start + step, fit.height))
            parts = work({name: picture[rows].float().cpu() for name, picture in pictures.items()}, frame, rows)
            if not made:
                made = tuple(torch.empty(fit.frames, fit.height, fit.width, part.shape[-1]) for part in parts)
            for clip, part in zip(made, parts, strict=True):
                clip[frame, rows] = part
        each_frame()
    return made

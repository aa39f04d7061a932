"""Clips worked on together with flat memory, however long they are: frame by frame, or in bands of rows.

A 3840x2160 picture of floats is 100 MB, and a formula has a dozen of them in flight. Work that looks at each pixel for
itself is done in bands, which stay in the processor's cache; work that looks around takes whole frames.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_PIXELS = 1 << 17  # a band: 1.5 MB a picture of three channels

Work = Callable[[Mapping[str, Tensor], int, slice], tuple[Tensor, ...]]


def common_size(clips: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Frames, height and width that clips, [F, H, W, ...] by name, have together; a still goes with any length.

    Raises ValueError as `check_one_size` and `common_length`."""
    check_one_size(clips)
    return common_length(clips), *next(iter(clips.values())).shape[1:3]


def common_length(clips: Mapping[str, Tensor]) -> int:
    """How many frames clips [F, ...] have together; a still, one frame, holds for all.

    Raises ValueError naming the clips unless all that are longer than a still are of one length.
    """
    lengths = {len(clip) for clip in clips.values() if len(clip) > 1}
    if len(lengths) > 1:
        given = ", ".join(f"{name} {len(clip)}" for name, clip in clips.items())
        raise ValueError(
            f"The pictures differ in length ({given} frames), but one length, or a still, is needed; cut them."
        )
    return lengths.pop() if lengths else 1


def check_one_size(clips: Mapping[str, Tensor]):
    """Raise ValueError naming the clips [F, H, W, ...] unless all have one height and width."""
    if len({clip.shape[1:3] for clip in clips.values()}) > 1:
        given = ", ".join(f"{name} {clip.shape[2]}x{clip.shape[1]}" for name, clip in clips.items())
        raise ValueError(f"The pictures differ in size ({given}), but one size is needed; resize or crop them.")


def at(clip: Tensor, frame: int) -> Tensor:
    """That frame of a clip, or the one of a still: [F, ...] to [...], float32, on the CPU."""
    return clip[frame if len(clip) > 1 else 0].float().cpu()


def by_frame(
    count: int, make: Callable[[int], tuple[Tensor, ...]], after_frame: Callable[[], None] = lambda: None
) -> tuple[Tensor, ...]:
    """`make(0) .. make(count - 1)`, each some pictures [...], as clips [count, ...].

    after_frame: called after every frame, to show progress or to raise."""
    clips: tuple[Tensor, ...] = ()
    for frame in range(count):
        made = make(frame)
        clips = clips or tuple(torch.empty((count, *picture.shape), dtype=picture.dtype) for picture in made)
        for clip, picture in zip(clips, made, strict=True):
            clip[frame] = picture
        after_frame()
    return clips


def in_bands(
    work: Work, clips: Mapping[str, Tensor], after_frame: Callable[[], None] = lambda: None
) -> tuple[Tensor, ...]:
    """What `work` makes of every band of every frame, put together: clips [F, H, W, C], on the CPU, float32.

    clips: name -> [F, H, W, C], in one size; a still goes with any length. work: is given name -> [h, W, C] float32,
    the frame and the rows, and returns pictures [h, W, C'], always the same number of them. after_frame: as of
    `by_frame`. Raises ValueError when sizes or lengths differ.
    """
    frames, height, width = common_size(clips)
    step = max(1, _PIXELS // width)
    made: tuple[Tensor, ...] = ()
    for frame in range(frames):
        pictures = {name: clip[frame if len(clip) > 1 else 0] for name, clip in clips.items()}
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            parts = work({name: picture[rows].float().cpu() for name, picture in pictures.items()}, frame, rows)
            if not made:
                made = tuple(torch.empty(frames, height, width, part.shape[-1]) for part in parts)
            for clip, part in zip(made, parts, strict=True):
                clip[frame, rows] = part
        after_frame()
    return made

"""Clips of one length worked on frame by frame, so that memory stays flat however long they are."""

from collections.abc import Callable

import torch
from torch import Tensor

Tick = Callable[[int, int], object]  # told (frames done, frames in all); may raise to stop the work


def common_length(clips: dict[str, Tensor]) -> int:
    """How many frames clips [F, ...] have together; a still, one frame, holds for all.

    Raises ValueError naming the clips unless all that are longer than a still are of one length.
    """
    lengths = {len(clip) for clip in clips.values() if len(clip) > 1}
    if len(lengths) > 1:
        given = ", ".join(f"{name} {len(clip)}" for name, clip in clips.items())
        raise ValueError(
            f"The clips have different numbers of frames ({given}), but one number, or a still, is needed; trim them."
        )
    return lengths.pop() if lengths else 1


def check_one_size(clips: dict[str, Tensor]):
    """Raise ValueError naming the clips [F, H, W, ...] unless all have one height and width."""
    if len({clip.shape[1:3] for clip in clips.values()}) > 1:
        given = ", ".join(f"{name} {clip.shape[2]}x{clip.shape[1]}" for name, clip in clips.items())
        raise ValueError(f"The clips have different sizes ({given}), but one size is needed; resize or crop them.")


def at(clip: Tensor, frame: int) -> Tensor:
    """That frame of a clip, or the one of a still: [F, ...] to [...], float32."""
    return clip[frame if len(clip) > 1 else 0].float()


def by_frame(count: int, make: Callable[[int], tuple[Tensor, ...]], tick: Tick | None = None) -> tuple[Tensor, ...]:
    """`make(0) .. make(count - 1)`, each some pictures [...], as clips [count, ...]."""
    clips: tuple[Tensor, ...] = ()
    for frame in range(count):
        made = make(frame)
        clips = clips or tuple(torch.empty((count, *picture.shape), dtype=picture.dtype) for picture in made)
        for clip, picture in zip(clips, made, strict=True):
            clip[frame] = picture
        if tick is not None:
            tick(frame + 1, count)
    return clips

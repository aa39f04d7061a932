"""Between a shot of any size and length and what a captioner takes: the size, which frames, and one text from several.

The video VAE takes 4n+1 frames: all lengths here are such. F, H, W, C: frames, height, width, channels.
"""

import re

import torch.nn.functional
from torch import Tensor

from ..checks import check_pixels

FITS = ("cover", "crop", "whole")
_SENTENCE = re.compile(r".+?(?:[.!?]+(?=\s|$)|[。！？]+|$)", re.DOTALL)
_END = ".!?。！？"


def fit_clip(images: Tensor, height: int, width: int, mode: str = "cover") -> Tensor:
    """[F, H, W, C] to [F, height, width, C], or to its own size where `mode` is "whole".

    cover: the largest centred part of that shape, scaled to it by antialiased bicubic and clamped to 0..1; untouched
    where it has that size. crop: the centred part of that size in its own pixels, as Uni-ViGU's release cuts its clips
    (specs/univigu.md §6.4). whole: all of it, untouched.
    Raises ValueError for another mode, for pixels that `check_pixels` refuses, and for a clip that is too small to be
    cropped.
    """
    if mode not in FITS:
        raise ValueError(f"Unknown way {mode!r} to fit a clip: use one of {', '.join(FITS)}.")
    check_pixels("The clip", images)
    tall, wide = images.shape[1:3]
    if mode == "whole":
        return images
    if mode == "crop":
        if tall < height or wide < width:
            raise ValueError(f"The clip is {wide}x{tall} pixels, and cropping needs {width}x{height} at least: fit it "
                             "by cover, or give a smaller size.")  # fmt: skip
        return _centre(images, height, width)
    if (tall, wide) == (height, width):
        return images
    scale = max(height / tall, width / wide)
    part = _centre(images, max(1, min(tall, round(height / scale))), max(1, min(wide, round(width / scale))))
    # Clipped before too, or a highlight of 1000 would bleed over its surroundings.
    part = part.clamp(0, 1).movedim(-1, 1)  # [F, H', W', C] -> [F, C, H', W']
    part = torch.nn.functional.interpolate(part, (height, width), mode="bicubic", antialias=True)
    return part.clamp(0, 1).movedim(1, -1)


def choose_frames(count: int, most: int) -> list[int]:
    """Which of `count` frames to take, 4n+1 of them and `most` at the most: evenly from the first to the last, none
    twice. Where it is only one, it is the middle one. Raises ValueError for less than one frame."""
    chosen = _length(count, most)
    if chosen == 1:
        return [(count - 1) // 2]
    return [round(i * (count - 1) / (chosen - 1)) for i in range(chosen)]


def windows(count: int, most: int) -> list[range]:
    """`count` frames cut into as few windows as can be, all of one length, 4n+1 and `most` at the most.

    Several cover every frame and overlap by the few frames that make up the length; a single one leaves up to three
    frames at the end out, as the VAE does. Raises ValueError for less than one frame."""
    longest = _length(count, most)
    if count <= most:
        return [range(longest)]
    number = -(-count // longest)
    length = (-(-count // number) + 2) // 4 * 4 + 1  # an equal share, rounded up to 4n+1
    starts = [round(i * (count - length) / (number - 1)) for i in range(number)]
    return [range(start, start + length) for start in starts]


def merge_captions(captions: list[str]) -> str:
    """One caption from those of a shot's windows, in their order: all their sentences, each one once.

    A sentence ends at . ! ? before a space or at 。！？. It counts as said before when it differs in upper case, white
    space and end marks only. One without an end mark gets a full stop. A single caption is left as it is; empty ones
    are left out, and nothing but empty ones gives the empty text."""
    captions = list(dict.fromkeys(text for text in (" ".join(caption.split()) for caption in captions) if text))
    if len(captions) <= 1:
        return "".join(captions)
    said: dict[str, str] = {}
    for caption in captions:
        for sentence in (match.strip() for match in _SENTENCE.findall(caption)):
            words = sentence.rstrip(_END).rstrip().casefold()
            if words:
                said.setdefault(words, sentence if sentence[-1] in _END else f"{sentence}.")
    return " ".join(said.values())


def _length(count: int, most: int) -> int:
    """The greatest 4n+1 that is neither above `count` nor `most`."""
    if count < 1 or most < 1:
        raise ValueError(f"{most} of {count} frames were asked for, at least 1 of 1 is needed.")
    return (min(count, most) - 1) // 4 * 4 + 1


def _centre(images: Tensor, height: int, width: int) -> Tensor:
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]

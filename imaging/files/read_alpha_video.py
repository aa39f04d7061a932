"""Videos with their alpha, sound and timecode: the way back from `alpha_video`, and any other file with alpha."""

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from ..compositing.composite import PREMULTIPLIED
from .alpha_video import ALPHA_TAG, Sound
from .timecode import Timecode
from .video import converted, decode_frames, upright


@dataclass(frozen=True)
class AlphaClip:
    """A video with its alpha.

    images: [F, H, W, 3] float32 in 0..1, display-referred, straight. alpha: [F, H, W] in 0..1, 1 where the file has
    none. stated: "straight" or "premultiplied" as a file of ours says, "" for another's, None without alpha.
    """

    images: Tensor
    alpha: Tensor
    stated: str | None
    rate: Fraction
    timecode: Timecode | None
    sound: Sound | None


def read_alpha_video(
    path: Path, alpha: str | None = None, *, after_frame: Callable[[], None] = lambda: None
) -> AlphaClip:
    """Read a whole video with its alpha, whatever its codec; VP8 and VP9 through libvpx, as FFmpeg's own decoder leaves
    their alpha out.

    alpha: "straight" or "premultiplied" says how the file holds it; None takes what the file says, else straight.
    Premultiplied colour is divided by its alpha. Raises ValueError in one sentence when it is no video, is damaged or
    cut short.
    """
    pictures, masks, rate = [], [], Fraction(24)
    for frame, stated_rate in decode_frames(path, _alpha_decoder):
        rate = stated_rate
        pictures.append(torch.from_numpy(upright(frame, _colour_of(frame)).copy()))
        mask = _alpha_of(frame)
        masks.append(None if mask is None else torch.from_numpy(upright(frame, mask).copy()))
        after_frame()
    if not pictures:
        raise ValueError(f"{path} holds no frames, but at least one is needed; export it again.")
    stated, timecode, sound = read_beside(str(path), rate)
    divide = (alpha or stated) == PREMULTIPLIED
    images = torch.empty(len(pictures), *pictures[0].shape)
    alphas = torch.ones(images.shape[:3])
    for i, mask in enumerate(masks):
        images[i], pictures[i] = pictures[i], None  # never the whole clip in memory twice
        if mask is None:
            continue
        alphas[i] = mask
        if divide:
            images[i] /= torch.where(mask > 0, mask, 1)[..., None]
    has_alpha = any(mask is not None for mask in masks)
    return AlphaClip(images.clamp_(0, 1), alphas, stated if has_alpha else None, rate, timecode, sound)


def _colour_of(frame: av.VideoFrame) -> np.ndarray:
    """A frame's R'G'B', [H, W, 3] float32 in 0..1."""
    if frame.format.is_rgb:  # losslessly: on the way to float swscale passes through Y'CbCr
        deep = any(component.bits > 8 for component in frame.format.components)
        codes = converted(frame, format="rgba64le" if deep else "rgba").to_ndarray()[..., :3]
        return codes.astype(np.float32) / (65535 if deep else 255)
    # Of Y'CbCr it fills no packed target to the last column at every width and odd height, but it does planar float.
    return converted(frame, format="gbrpf32le").to_ndarray()


def _alpha_of(frame: av.VideoFrame) -> np.ndarray | None:
    """A frame's alpha, [H, W] float32 in 0..1; None without.

    Read from its plane, where there is one: swscale makes 0.996 of an 8-bit 1."""
    component = next((c for c in frame.format.components if c.is_alpha), None)
    if component is None:
        return None
    if len(frame.planes) < 4:  # packed
        deep = component.bits > 8
        codes = converted(frame, format="rgba64le" if deep else "rgba").to_ndarray()[..., 3]
        return codes.astype(np.float32) / (65535 if deep else 255)
    plane = frame.planes[3]
    width, kind = frame.width, np.dtype("u1" if component.bits <= 8 else ">u2" if "be" in frame.format.name else "<u2")
    rows = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    codes = rows[:, : width * kind.itemsize].copy().view(kind)
    return codes.astype(np.float32) / (2**component.bits - 1)


def _alpha_decoder(stream: av.VideoStream) -> av.CodecContext | None:
    name = {"vp9": "libvpx-vp9", "vp8": "libvpx"}.get(stream.codec_context.codec.canonical_name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return None
    return av.CodecContext.create(name, "r")


def read_beside(source: str | io.BytesIO, rate: Fraction) -> tuple[str, Timecode | None, Sound | None]:
    """What a video says of its alpha ("" if nothing), its first timecode counted at `rate`, and its first sound; no
    picture is decoded."""
    with av.open(source) as container:
        said = {key.lower(): value for s in container.streams for key, value in s.metadata.items()}
        said |= {key.lower(): value for key, value in container.metadata.items()}
        stated = said.get(ALPHA_TAG, "")
        timecode = None
        with suppress(ValueError):  # a label that the rate of the pictures does not have
            timecode = Timecode.parse(said.get("timecode", ""), rate)
        parts, sound_rate = [], 0
        if container.streams.audio:
            resampler = av.AudioResampler(format="fltp")
            for frame in container.decode(container.streams.audio[0]):
                sound_rate = frame.sample_rate
                parts += [part.to_ndarray() for part in resampler.resample(frame)]
            parts += [part.to_ndarray() for part in resampler.resample(None)]
    sound = Sound(torch.from_numpy(np.concatenate(parts, axis=1)), sound_rate) if parts else None
    return stated, timecode, sound

"""Video files with alpha: ProRes 4444, FFV1 and VP9, with sound and timecode. `read_alpha_video` is the way back.

Colour is display-referred R'G'B'. Where alpha is premultiplied, it multiplies these encoded values over a black matte,
as editing programs and browsers do it; compositing itself belongs in linear light.
"""

import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from ..atomic import cannot_write
from ..checks import check_pixels
from ..compositing.composite import PREMULTIPLIED, STRAIGHT
from ..frames import at, common_size
from .timecode import Timecode
from .versions import place_new_version
from .video import converted

ALPHA_TAG = "strata_alpha"  # what our files say of their alpha; no container has a field of its own for it
_BT709 = 1  # in ITU-T H.273, of primaries, curve and matrix
_VIDEO_RANGE = 1
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


@dataclass(frozen=True)
class Codec:
    """How one kind of file is written. bits: of alpha."""

    encoder: str
    suffix: str
    pixels: str
    bits: int
    sound: str
    options: Mapping[str, str]
    container_options: Mapping[str, str] = field(default_factory=dict)


CODECS = {
    # 10 bits of Y'CbCr, 10 of alpha: the encoder takes no more, whatever alpha_bits says of the file.
    "prores 4444": Codec(
        "prores_ks", ".mov", "yuva444p10le", 10, "pcm_s24le", {"profile": "4444", "alpha_bits": "16"},
        {"movflags": "use_metadata_tags"},
    ),
    # 16 bits of R'G'B'A, lossless; slicecrc lets a reader find damage.
    "ffv1": Codec("ffv1", ".mkv", "gbrap16le", 16, "pcm_s24le", {"level": "3", "slicecrc": "1"}),
    "vp9": Codec(
        "libvpx-vp9", ".webm", "yuva420p", 8, "libopus", {"crf": "12", "b": "0", "cpu-used": "2", "row-mt": "1"}
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Saved:
    """path: where the video lies. clamped: whether the pictures had anything outside 0..1, which video cannot hold."""

    path: Path
    clamped: bool


@dataclass(frozen=True)
class Sound:
    """samples: [channels, T] float in -1..1; rate: samples a second."""

    samples: Tensor
    rate: int


def write_alpha_video(
    path: Path,
    images: Tensor,
    alpha: Tensor | None,
    codec: str,
    rate: Fraction,
    *,
    premultiplied: bool = False,
    sound: Sound | None = None,
    timecode: Timecode | None = None,
    texts: Mapping[str, str] | None = None,
    after_frame: Callable[[], None] = lambda: None,
) -> bool:
    """Write a video of exactly F frames at `rate` to `path`, whose suffix must be the codec's.

    images: [F, H, W, 3|4] float, straight, display-referred, clamped to 0..1. alpha: [F, H, W], clamped to 0..1; None
    takes the images' fourth channel, or 1. A still of either goes with any length. sound: cut to the length of the
    pictures. texts: more metadata. Returns whether there was anything outside 0..1 to clamp. Raises ValueError in one
    sentence for what `check_pixels` refuses and an alpha of another size or length, OSError when the disk refuses
    (av.FFmpegError is one); what is then in the file is not whole.
    """
    row = _codec(codec)
    check_pixels("The video", images, (3, 4))
    if alpha is None:
        alpha = images[..., 3] if images.shape[-1] == 4 else images.new_ones(1, *images.shape[1:3])
    check_pixels("The alpha", alpha[..., None], (1,))
    frames, height, width = common_size({"images": images, "alpha": alpha})
    metadata = {
        ALPHA_TAG: PREMULTIPLIED if premultiplied else STRAIGHT,
        "comment": "alpha: premultiplied, matte black" if premultiplied else "alpha: straight, no matte colour",
        **(texts or {}),
        **({"timecode": str(timecode)} if timecode else {}),
    }
    clamped = False
    with av.open(str(path), "w", options=dict(row.container_options)) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(row.encoder, rate=rate, options=dict(row.options))
        stream.height, stream.width = height, width
        stream.pix_fmt = row.pixels
        context = stream.codec_context
        context.color_primaries = context.color_trc = _BT709
        if row.pixels.startswith("yuv"):
            context.colorspace, context.color_range = _BT709, _VIDEO_RANGE
        heard = _SoundTrack(container, row.sound, sound) if sound is not None else None
        for i in range(frames):
            given = at(images, i)[..., :3], at(alpha, i)[..., None]
            picture, mask = (values.clamp(0, 1) for values in given)
            clamped |= not (torch.equal(picture, given[0]) and torch.equal(mask, given[1]))
            frame = _encoded_frame(picture * mask if premultiplied else picture, mask, row)
            frame.pts, frame.time_base = i, 1 / rate
            container.mux(stream.encode(frame))
            if heard:
                heard.write_until((i + 1) / rate)
            after_frame()
        container.mux(stream.encode())
        if heard:
            heard.finish()
    return clamped


def save_alpha_video(
    parent: Path, name: str, images: Tensor, alpha: Tensor | None, codec: str, rate: Fraction, **more
) -> Saved:
    """`write_alpha_video` to the next version of `name` in the folder `parent`, which is made when it is missing;
    `more` goes there.

    Raises as `write_alpha_video`, and OSError in one sentence when the disk refuses; nothing half-written is left.
    """
    aside = parent / f".{uuid.uuid4().hex}{_codec(codec).suffix}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        clamped = write_alpha_video(aside, images, alpha, codec, rate, **more)
        return Saved(place_new_version(aside, parent, name), clamped)
    except (OSError, av.FFmpegError) as error:
        raise cannot_write(parent / name, error) from error
    finally:
        with suppress(OSError):  # renamed, or never begun
            aside.unlink()


def _codec(name: str) -> Codec:
    if name not in CODECS:
        raise ValueError(f"Unknown alpha video codec {name!r}: use one of {', '.join(CODECS)}.")
    return CODECS[name]


def _encoded_frame(colour: Tensor, mask: Tensor, row: Codec) -> av.VideoFrame:
    """[H, W, 3] and [H, W, 1] in 0..1 in the pixel format of a codec."""
    levels = 2**row.bits - 1
    # Rounded here to the encoder's bits, so that neither cutting nor dithering changes an alpha of 0 or 1 on the way.
    code = (mask * levels).round().to(torch.int32) << (16 - row.bits)
    codes = torch.cat([(colour * 65535).round().to(torch.int32), code], dim=-1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(codes.cpu().numpy().astype(np.uint16)), format="rgba64le")
    if not row.pixels.startswith("yuv"):
        return converted(frame, format=row.pixels)
    return converted(frame, format=row.pixels, dst_colorspace="ITU709", dst_color_range="MPEG")


class _SoundTrack:
    """Sound written beside the pictures as they come, so that no player must seek for it."""

    def __init__(self, container, codec: str, sound: Sound):
        channels = len(sound.samples)
        if channels not in _LAYOUTS:
            raise ValueError(f"The sound has {channels} channels, but 1, 2 or 6 are needed; mix it down first.")
        self.container, self.sound, self.layout, self.done = container, sound, _LAYOUTS[channels], 0
        rate = 48000 if codec == "libopus" else sound.rate  # Opus knows few rates
        self.stream = container.add_stream(codec, rate=rate, layout=self.layout)

    def write_until(self, seconds: Fraction) -> None:
        end = min(round(seconds * self.sound.rate), self.sound.samples.shape[1])
        if end <= self.done:
            return
        samples = self.sound.samples[:, self.done : end].float().clamp(-1, 1).cpu().contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.sound.rate, self.done, Fraction(1, self.sound.rate)
        self.container.mux(self.stream.encode(frame))
        self.done = end

    def finish(self) -> None:
        self.container.mux(self.stream.encode())

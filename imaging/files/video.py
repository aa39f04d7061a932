"""Video files through PyAV: every frame in, every frame out."""

import io
from collections.abc import Callable, Collection, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from torch import Tensor

_UNSTATED_RATE = Fraction(24)
# Since 17.0 PyAV converts pixels with many threads, which write over the starts of each other's rows when the width is
# no multiple of 32: now and then a block of 8 pixels is noise (seen in 18.1). Before, there was one, and no choice.
_ONE_THREAD = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}


def read_video(
    path: Path, frames: int | None, keep: Collection[int] | None = None
) -> tuple[list[np.ndarray], Fraction]:
    """The first `frames` frames (None: all), each [H, W, 3] uint8 or, from more than 8 bits, uint16; and the frame
    rate. keep: the numbers of those wanted, None for all of them.

    Upright as the file's rotation flag says, R'G'B' by the matrix and range the file states. Raises ValueError when the
    file is not a video, is damaged, or ends before the length it promises.
    """
    pictures, rate = [], _UNSTATED_RATE
    for picture, stated in islice(_decode(path, keep), frames):
        rate = stated
        if picture is not None:
            pictures.append(picture)
    return pictures, rate


def count_video_frames(path: Path) -> int:
    """How many frames a video holds, by decoding it, since what files say of it is often wrong. Raises as
    `read_video`."""
    return sum(1 for _ in _decode(path, ()))


def _decode(path: Path, keep: Collection[int] | None) -> Iterator[tuple[np.ndarray | None, Fraction]]:
    """Every frame in turn with the frame rate; None for one whose number is not in `keep`."""
    for number, (frame, rate) in enumerate(decode_frames(path)):
        yield _picture(frame) if keep is None or number in keep else None, rate


def decode_frames(
    path: Path, decoder: Callable[[av.VideoStream], av.CodecContext | None] = lambda stream: None
) -> Iterator[tuple[av.VideoFrame, Fraction]]:
    """Every frame of a video's first picture stream with the frame rate.

    decoder: another decoder than FFmpeg would choose for a stream, or None. Raises ValueError in one sentence when the
    file is not a video, is damaged, or ends before the length it promises.
    """
    number, packets, end = 0, 0, 0.0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no video stream, but one is needed; choose a file with pictures.")
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # threads by frame lose the error of a damaged frame, and the frames with it
            rate = stream.average_rate or _UNSTATED_RATE
            other = decoder(stream)
            for packet in container.demux(stream):
                packets += packet.size > 0
                for frame in packet.decode() if other is None else other.decode(packet if packet.size else None):
                    end = max(end, _end_of(frame, rate))
                    yield frame, rate
                    number += 1
            promised = _promised_end(container, stream, packets, rate)
    except av.FFmpegError as error:
        raise ValueError(
            f"{path} could not be read as a video after {number} frames ({error.strerror}), but a whole file is "
            "needed; export or copy it again."
        ) from error
    if promised - end > 0.5 / rate:
        raise ValueError(
            f"{path} ends after {end:.2f} of {promised:.2f} seconds, but a whole file is needed; export or copy it "
            "again."
        )


def mp4_bytes(images: Tensor, rate: Fraction) -> bytes:
    """[F, H, W, 3] float, clamped to 0..1, as a whole H.264 .mp4 of F frames of that size, 8-bit BT.709 video range.

    Even sizes are yuv420p, which every player shows; odd ones are yuv444p, as half-size chroma cannot carry them.
    """
    frames, height, width, _ = images.shape
    pixel_format = "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        # Tagged, since players and readers guess BT.601 or BT.709 by picture size when a file does not say.
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # 1 = BT.709 in ITU-T H.273, all three
        context.color_range = 1  # video ("MPEG") range
        for i in range(frames):
            codes = (images[i].clamp(0, 1) * 255).round().byte().cpu().numpy()
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(codes), format="rgb24")
            frame = converted(frame, format=pixel_format, dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = i, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def _picture(frame: av.VideoFrame) -> np.ndarray:
    deep = any(component.bits > 8 for component in frame.format.components)
    return upright(frame, converted(frame, format="rgb48le" if deep else "rgb24").to_ndarray())


def upright(frame: av.VideoFrame, pixels: np.ndarray) -> np.ndarray:
    """The pixels of a frame, [H, W, ...], turned as its rotation flag says."""
    return np.rot90(pixels, frame.rotation // 90)  # both count counterclockwise


def converted(frame: av.VideoFrame, **to) -> av.VideoFrame:
    """`frame.reformat(**to)` by one thread."""
    return frame.reformat(**to, **_ONE_THREAD)


def _end_of(frame: av.VideoFrame, rate: Fraction) -> float:
    """When the frame's time on screen is over, in seconds; 0 where the file does not time its frames."""
    if frame.time is None:
        return 0.0
    return frame.time + float(max(frame.duration * frame.time_base, 1 / rate))


def _promised_end(container, stream, packets: int, rate: Fraction) -> float:
    """Until when the file says its pictures last, in seconds; 0 when it says nothing.

    A file cut between two packets decodes without any error, so only this tells. Matroska and WebM state it per stream.
    MP4 counts all frames it stores, also those that an edit list hides, so only a file that lacks some is held to its
    duration, with a frame of grace because the sound may be what ends last.
    """
    if "DURATION" in stream.metadata:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if packets < stream.frames and container.duration:
        return container.duration / av.time_base - float(1 / rate)
    return 0.0

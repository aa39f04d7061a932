"""Single pictures of 16 bits a channel as PNG or TIFF, the road every program can read.

They are made by FFmpeg through PyAV, which ComfyUI brings: Pillow cannot write 16-bit colour, and OpenCV is not sure to
be there.
"""

import io
import struct
import zlib
from collections.abc import Mapping
from fractions import Fraction

import av
import numpy as np
from PIL import Image
from torch import Tensor

_PIXELS = {".png": {1: "gray16be", 3: "rgb48be", 4: "rgba64be"}, ".tiff": {1: "gray16le", 3: "rgb48le", 4: "rgba64le"}}
_CODEC = {
    ".png": ("png", {"pred": "paeth", "compression_level": "4"}),
    ".tiff": ("tiff", {"compression_algo": "deflate"}),
}
SUFFIXES = tuple(_CODEC)
_SIGNATURE_AND_HEADER = 8 + 25  # bytes of a PNG's signature and of its first chunk, IHDR, whose length is fixed


def still_bytes(picture: Tensor, suffix: str, texts: Mapping[str, str] | None = None) -> bytes:
    """[H, W, 1|3|4] float, clamped to 0..1, as a file of 16 bits a channel, values as they are; alpha is straight.

    suffix: of SUFFIXES. texts: keyword to text, for PNG only, as ComfyUI finds a graph in a picture; TIFF ignores them.
    """
    codes = (picture.float().clamp(0, 1) * 65535).round().cpu().numpy().astype(np.uint16)
    height, width, channels = codes.shape
    name, options = _CODEC[suffix]
    encoder = av.CodecContext.create(name, "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, _PIXELS[suffix][channels]
    encoder.time_base, encoder.options = Fraction(1), options
    shown = np.ascontiguousarray(codes[..., 0] if channels == 1 else codes)
    frame = av.VideoFrame.from_ndarray(shown, format=encoder.pix_fmt)
    data = b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode()))
    if suffix == ".png" and texts:
        chunks = b"".join(_text_chunk(keyword, text) for keyword, text in texts.items())
        data = data[:_SIGNATURE_AND_HEADER] + chunks + data[_SIGNATURE_AND_HEADER:]
    return data


def still_shape(data: bytes) -> tuple[int, int, int] | None:
    """Height, width and channels of the picture that the bytes decode to; None unless they do, to its last row."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            return picture.height, picture.width, len(picture.getbands())
    except (OSError, ValueError, SyntaxError):  # what Pillow raises of damaged files, by their format
        return None


def _text_chunk(keyword: str, text: str) -> bytes:
    """A PNG chunk iTXt, uncompressed UTF-8 (PNG specification, 11.3.3.4)."""
    body = b"iTXt" + keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

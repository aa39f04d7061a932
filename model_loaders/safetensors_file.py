"""Opening weight files safely: the header alone for detection, then the tensors, with one sentence for each fault."""

from __future__ import annotations

import json
import os
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself

# What the format calls the dtypes that weights come in.
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
          torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.uint8: "U8"}


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself: shape and dtype name of every tensor, and the metadata strings."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]


def read_header(path: str | Path) -> Header:
    """Read the header of a safetensors file without its tensors.

    Raises FileNotFoundError, or ValueError for a pickle, a truncated file and anything else that is no safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else MAX_HEADER + 1
        # The header is JSON, so a brace follows its length; a pickle's own magic could pass for a length.
        if length > MAX_HEADER or start[8:] != b"{":
            if start[:2] == b"PK" or start[:1] == b"\x80":
                raise ValueError(f"'{path.name}' is a pickle (.pth/.ckpt), which can run code when opened: "
                                 "convert it to .safetensors and use that.")
            raise ValueError(f"'{path.name}' is no safetensors file: use the .safetensors file of this model.")
        raw = b"{" + file.read(length - 1)
    try:
        if len(raw) < length:
            raise EOFError
        entries = json.loads(raw)
        metadata = entries.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        shapes = {key: tuple(entry["shape"]) for key, entry in entries.items()}
        dtypes = {key: entry["dtype"] for key, entry in entries.items()}
    except EOFError:
        end = size  # falls through to the sentence on truncation
        shapes, dtypes, metadata = {}, {}, {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"'{path.name}' is no safetensors file: use the .safetensors file of this model.") from None
    if size < 8 + length + end:
        raise ValueError(f"'{path.name}' is truncated: it has {size:,} of {8 + length + end:,} bytes or more; "
                         "download it again.")
    return Header(path, shapes, dtypes, metadata)


def torch_dtype(name: str) -> torch.dtype | None:
    """The dtype of a name in a header, None for one that weights do not come in."""
    return next((dtype for dtype, called in DTYPES.items() if called == name), None)


def load_tensors(path: str | Path, keys=None, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file, or those named in `keys`. Errors as `read_header`."""
    header = read_header(path)
    try:
        with safe_open(header.path, framework="pt", device=device) as file:
            return {key: file.get_tensor(key) for key in (header.shapes if keys is None else keys)}
    except SafetensorError as error:
        raise ValueError(f"'{header.path.name}' cannot be read as safetensors ({error}); download it again.") from None


def replace_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file aside and rename it, so that at any moment the old or the new one is whole.

    Makes the folder when it is missing. Raises OSError in one sentence; nothing half-written is left."""
    path = Path(path)
    try:
        with aside(path) as part:
            mode = part.stat().st_mode
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata)
            part.chmod(mode)  # the library makes files that only their owner can read, and model folders are shared
    except (OSError, SafetensorError) as error:  # the library wraps a full disk in an error of its own
        raise cannot_write(path, error) from error


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, which takes its place when the `with` ends well, and is gone when it does not. Makes
    the folder when it is missing."""
    part = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        yield part
        os.replace(part, path)
    finally:
        with suppress(OSError):  # it is not there; where the folder is a file, even asking is an error
            part.unlink()


def cannot_write(path: Path, error: Exception) -> OSError:
    """What to raise where a file could not be written."""
    return OSError(f"Could not write {path}: {getattr(error, 'strerror', None) or error}; free some space or choose a "
                   "folder you can write to, nothing half-written was left.")


def check_finite(name: str, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError naming the first tensor that holds NaN or infinity. `name` is the file's."""
    for key, tensor in tensors.items():
        # float8 has no isfinite of its own.
        values = tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor
        # The extremes tell, NaN being both, and need no memory beside the values.
        if values.is_floating_point() and values.numel() and not torch.stack(values.aminmax()).isfinite().all():
            raise ValueError(f"'{name}' holds values that are not finite (first in '{key}'): "
                             "the file is damaged; download it again.")


def name_some(keys, count: int = 3) -> str:
    """The first keys of a collection as text, and how many more there are."""
    keys = sorted(keys)
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more

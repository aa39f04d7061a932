"""A published checkpoint opened without being loaded: a .pth, a safetensors file, or a folder of its shards."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .safetensors_file import DTYPES, Header, read_header

PICKLES = (".pth", ".pt", ".ckpt", ".bin")
_MODEL = "model"  # what trainers call the weights beside a step and an optimizer's state


@dataclass(frozen=True)
class Checkpoint:
    """`header` says what there is; `read` gives one tensor, which is the caller's to keep or drop."""

    header: Header
    read: Callable[[str], Tensor]


@contextmanager
def open_checkpoint(path: str | Path) -> Iterator[Checkpoint]:
    """Open a checkpoint for as long as the `with` lasts. A pickle is read by torch's safe loader and mapped, not
    loaded; of one that holds more, only its "model".

    Raises FileNotFoundError, or ValueError for what cannot be opened safely, is truncated, or holds no tensors."""
    path = Path(path)
    if path.is_file() and path.suffix in PICKLES:
        tensors = _map_pickle(path)
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        dtypes = {key: DTYPES.get(value.dtype, str(value.dtype)) for key, value in tensors.items()}
        yield Checkpoint(Header(path, shapes, dtypes, {}), tensors.__getitem__)
        return
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"There is no .safetensors file in the folder '{path}'.")
    headers = [read_header(file) for file in files]
    whole = Header(path, {}, {}, {})
    with ExitStack() as stack:
        shards = {}
        for header in headers:
            if twice := shards.keys() & header.shapes.keys():
                raise ValueError(f"'{path.name}' holds more than one checkpoint, as {min(twice)} is in several of its "
                                 f"files, {header.path.name} among them: name the one file.")
            try:
                shard = stack.enter_context(safe_open(header.path, framework="pt"))
            except SafetensorError as error:
                raise ValueError(f"'{header.path.name}' cannot be read as safetensors ({error}); download it "
                                 "again.") from None
            shards |= dict.fromkeys(header.shapes, shard)
            for part in ("shapes", "dtypes", "metadata"):
                getattr(whole, part).update(getattr(header, part))
        yield Checkpoint(whole, lambda key: shards[key].get_tensor(key))


def _map_pickle(path: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise ValueError(f"'{path.name}' holds Python objects beside its tensors, and opening those could run code: "
                         "where you trust it, save its 'model' alone, with torch.save, and use that.") from None
    except (RuntimeError, EOFError, OSError) as error:  # no whole zip archive, or torch's old format, which has none
        reason = str(error).partition(". ")[0].splitlines()[0]
        raise ValueError(f"'{path.name}' cannot be opened as a PyTorch file ({reason}): "
                         "download it again, or save it with a newer torch.") from None
    model = held.get(_MODEL, held) if isinstance(held, dict) else held
    if isinstance(model, dict):
        tensors = {str(key): value.detach() for key, value in model.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise ValueError(f"'{path.name}' holds no tensors by name: use the checkpoint that holds the weights.")

"""Which device to compute on, outside ComfyUI."""

from __future__ import annotations

import torch


def best_device() -> str:
    """The fastest device of this machine: cuda, mps or cpu."""
    return next(name for name in ("cuda", "mps", "cpu") if _is_here(name))


def check_device(name: str) -> str:
    """`name` (cuda, cuda:1, mps, cpu), when this machine has that device. Raises ValueError naming those it has."""
    try:
        device = torch.device(name)
        usable = _is_here(device.type) and (device.type != "cuda" or (device.index or 0) < torch.cuda.device_count())
    except RuntimeError:  # no device name at all
        usable = False
    if not usable:
        here = ", ".join(kind for kind in ("cuda", "mps", "cpu") if _is_here(kind))
        raise ValueError(f"There is no device '{name}' here; this machine and its torch have {here}.")
    return name


def _is_here(kind: str) -> bool:
    return {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}.get(kind, lambda: kind == "cpu")()

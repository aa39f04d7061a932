"""Checkpoints of a training run: all that it needs to go on bit for bit, in one safetensors file a step.

Random choices need no state (`batches.seed_of`), so weights, the optimiser's moments and the running mean are all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..model_loaders.safetensors_file import load_tensors, read_header, replace_tensors

_NAME = re.compile(r"step_(\d+)\.safetensors")


@dataclass(frozen=True)
class State:
    """A run after `step` optimiser steps. Each mapping goes from a parameter's name to a float32 tensor of its shape.

    first, second: AdamW's moments. mean: the running mean of the weights, empty where none is kept. clips: a hash of
    the clips that were learned from. variant: that of the family, as text."""

    step: int
    weights: Mapping[str, Tensor]
    first: Mapping[str, Tensor]
    second: Mapping[str, Tensor]
    mean: Mapping[str, Tensor]
    clips: str
    variant: str


_PARTS = ("weights", "first", "second", "mean")


def save_state(folder: Path, state: State, keep: int) -> None:
    """Write a checkpoint, then remove all but the newest `keep`. Raises OSError; older checkpoints then stay."""
    tensors = {f"{part}/{name}": value.detach().cpu()
               for part in _PARTS for name, value in getattr(state, part).items()}
    replace_tensors(folder / f"step_{state.step:07}.safetensors", tensors,
                    {"clips": state.clips, "variant": state.variant})
    for path in _newest_first(folder)[keep:]:
        path.unlink(missing_ok=True)


def load_state(folder: Path, warn) -> State | None:
    """The newest checkpoint that can be read, None where there is none. `warn(text)` hears of those that cannot.

    Raises ValueError when there are some and none can be read."""
    paths = _newest_first(folder)
    for path in paths:
        try:
            tensors, metadata = load_tensors(path), read_header(path).metadata
        except ValueError as error:
            warn(f"The checkpoint {path.name} cannot be read and is passed over ({error})")
            continue
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        return State(int(_NAME.fullmatch(path.name)[1]), **parts, clips=metadata.get("clips", ""),
                     variant=metadata.get("variant", ""))
    if paths:
        raise ValueError(f"None of the {len(paths)} checkpoints in {folder} can be read: begin anew in another folder.")
    return None


def optimiser_moments(optimiser: torch.optim.AdamW, named: Mapping[str, Tensor]) -> tuple[dict, dict]:
    """AdamW's two moments by parameter name; empty before its first step."""
    states = {name: optimiser.state[value] for name, value in named.items() if value in optimiser.state}
    return ({name: state["exp_avg"] for name, state in states.items()},
            {name: state["exp_avg_sq"] for name, state in states.items()})


def restore_moments(optimiser: torch.optim.AdamW, named: Mapping[str, Tensor], state: State) -> None:
    """Put a checkpoint's moments back into AdamW."""
    for name, value in named.items():
        if name in state.first:
            optimiser.state[value] = {
                # A plain float32 on the CPU, as AdamW itself keeps it: its powers decide the bias correction.
                "step": torch.tensor(float(state.step)),
                "exp_avg": state.first[name].to(value.device),
                "exp_avg_sq": state.second[name].to(value.device),
            }


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step_*.safetensors") if _NAME.fullmatch(path.name)),
                  key=lambda path: int(_NAME.fullmatch(path.name)[1]), reverse=True)

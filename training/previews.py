"""Pictures of a training run: one clip's layers made by the weights as they are, beside the true ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..imaging.contact_sheet import contact_sheet
from ..imaging.layers import decode
from ..joint.sampling import Engine, Texts, initial_noise, sample
from ..joint.streams import Role, Task
from ..model_loaders.vae import WanVae

_SEED = 1  # the same noise every time, so that only the weights differ between two pictures


def preview_task(task_family, present: set[str]) -> Task:
    """The first layer there is given and the others generated; a lone layer is generated from nothing."""
    given = next(layer for layer in task_family.layers if layer in present) if len(present) > 1 else None
    roles = tuple(Role.ABSENT if layer not in present else Role.CONDITION if layer == given else Role.TARGET
                  for layer in task_family.layers)
    return Task(task_family, roles)


def write_preview(path: Path, engine: Engine, vae: WanVae, task: Task, truth: dict[str, Tensor], context: Tensor,
                  steps: int) -> Path:
    """Sample `task` and write a contact sheet with a row for each layer, the true one under the one that was made.

    truth: latents [16, T, h, w] by layer; context [1, W, E], in the dtype and on the device
    to sample in. Raises OSError when the disk refuses."""
    family = task.family
    shape = next(iter(truth.values())).shape
    clean = torch.zeros(1, len(family.streams), *shape)
    for layer, latents in truth.items():
        clean[0, family.index(layer)] = latents
    noise = initial_noise(task, tuple(shape[1:]), shape[0], _SEED)
    made = sample(engine, task, clean.to(context), noise.to(context), Texts(context), steps=steps)[0]
    rows, exact = {}, set()
    for row, stream in enumerate(family.streams):
        if stream.name not in truth:
            continue
        true = decode(stream.encoding, vae.decode(truth[stream.name]).cpu())
        if stream.name in task.targets:
            rows[stream.name] = decode(stream.encoding, vae.decode(made[row].float()).cpu())
            rows[f"{stream.name} (truth)"] = true
            exact.add(f"{stream.name} (truth)")
        else:
            rows[stream.name] = true
    return contact_sheet(rows, path, given=task.conditions, exact=exact)

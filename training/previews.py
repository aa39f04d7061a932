"""Pictures of a training run: one clip's layers and text made by the weights as they are, beside the true ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..imaging.atomic import replace_file
from ..imaging.encodings.layers import decode
from ..imaging.viewing.contact_sheet import contact_sheet
from ..joint.sampling import Engine, Texts, initial_noise, sample, sample_text
from ..joint.streams import Family, Role, Task
from ..joint.text_flow import caption_solver, random_tokens, text_grid
from ..model_loaders.vae import WanVae
from ..model_loaders.vocabulary import Vocabulary

_SEED = 1  # the same noise every time, so that only the weights differ between two pictures


def preview_task(family: Family, present: Collection[str]) -> Task:
    """The first layer there is given and the others generated, of those that the family joins; a lone layer is
    generated from nothing."""
    chosen = [layer for layer in family.layers if layer in present][:family.present]
    return family.task(chosen[1:], chosen[:1]) if len(chosen) > 1 else _alone(family, chosen[0])


def _alone(family: Family, layer: str) -> Task:
    roles = tuple(Role.TARGET if name == layer else Role.ABSENT for name in family.layers)
    return Task(family, roles)


def write_preview(path: Path, engine: Engine, vae: WanVae, task: Task, truth: Mapping[str, Tensor], texts: Texts,
                  steps: int) -> Path:
    """Sample `task` and write a contact sheet with a row for each layer, the true one under the one that was made.

    truth: latents [C, T, h, w] by layer; texts in the dtype and on the device to sample in. Raises OSError when the
    disk refuses."""
    family, like = task.family, texts.branches
    clean = _stacked(family, truth)
    noise = initial_noise(task, tuple(clean.shape[3:]), clean.shape[2], _SEED)
    made = sample(engine, task, clean.to(like), noise.to(like), texts, steps=steps)[0]
    rows, exact = {}, set()
    for row, layer in enumerate(family.pictures):
        if layer not in task.targets + task.conditions:
            continue
        encoding, normalised = family.stream(layer).encoding, family.latents.normalised
        true = decode(encoding, vae.decode(truth[layer], normalised=normalised).cpu())
        if layer in task.targets:
            rows[layer] = decode(encoding, vae.decode(made[row].float(), normalised=normalised).cpu())
            rows[f"{layer} (truth)"] = true
            exact.add(f"{layer} (truth)")
        else:
            rows[layer] = true
    return contact_sheet(rows, path, given=task.conditions, exact=exact)


def write_text_preview(path: Path, engine: Engine, task: Task, truth: Mapping[str, Tensor], text: str, texts: Texts,
                       vocabulary: Vocabulary, length: int, steps: int) -> Path:
    """Make the text of given pictures, `length` tokens in `steps` steps, and write it above the true one.

    Raises OSError when the disk refuses."""
    like, grid = texts.branches, text_grid(steps)
    generator = torch.Generator().manual_seed(_SEED)
    noise = random_tokens(1, length, vocabulary.size, generator)
    solver = caption_solver(grid, length, generator)
    ids = sample_text(engine, task, _stacked(task.family, truth).to(like), noise.to(like.device), texts, solver, grid)
    replace_file(path, f"made: {vocabulary.decode(ids[0].tolist())}\ntrue: {text}\n".encode())
    return path


def _stacked(family: Family, truth: Mapping[str, Tensor]) -> Tensor:
    """Latents [1, P, C, T, h, w] of layers [C, T, h, w]; 0 where there is none."""
    clean = torch.zeros(1, len(family.pictures), *next(iter(truth.values())).shape)
    for layer, latents in truth.items():
        clean[0, family.pictures.index(layer)] = latents
    return clean

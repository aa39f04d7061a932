"""Stochastic Condition Masking: the training objective of the joint flow, as UniVidX trains it (specs/unividx.md §7).

A step draws a task and one noise level for all its targets; conditions are held at their own small level. The network
predicts the velocity noise - clean of the targets, and only they are in the loss.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..joint.families import parse_task
from ..joint.flow import network_time, schedule
from ..joint.sampling import Engine
from ..joint.streams import Family, FlowSpec, Role, Task
from ..joint.transformer import joint_forward


@dataclass(frozen=True)
class Draw:
    """The random choices of one step: a task, the number of the noise level of its targets, and whether it is told the
    prompt."""

    task: Task
    level: int
    text: bool


def draw(family: Family, generator: torch.Generator, weights: Mapping[str, float] | None = None,
         present: Collection[str] | None = None) -> Draw:
    """A task, uniform over the 2^M - 1 that leave a stream to generate or by `weights` of task names, and a level,
    uniform over the schedule.

    `present` are the layers that there are (None: all). The others are taken out of the drawn task, and one of which
    nothing to generate remains is drawn again. Raises ValueError when `weights` name no task that could remain.
    """
    present = set(family.layers if present is None else present)
    tasks = [parse_task(family, name) for name in weights] if weights else None
    if tasks and not any(present & set(task.targets) for task in tasks):
        raise ValueError(f"None of the tasks {', '.join(weights)} generates one of {', '.join(sorted(present))}.")
    while True:
        task = tasks[int(torch.multinomial(torch.tensor(list(weights.values())), 1, generator=generator))] if tasks \
            else _any_task(family, generator)
        if present & set(task.targets):
            break
    level = int(torch.randint(family.flow.training_steps, (), generator=generator))
    roles = tuple(role if layer in present else Role.ABSENT for layer, role in zip(family.layers, task.roles))
    return Draw(Task(family, roles), level, task.uses_text)


def _any_task(family: Family, generator: torch.Generator) -> Task:
    streams = len(family.streams)
    # Bit i of the number: is stream i generated? 0 would generate none.
    bits = int(torch.randint(1, 2**streams, (), generator=generator))
    return Task(family, tuple(Role.TARGET if bits >> i & 1 else Role.CONDITION for i in range(streams)))


@dataclass(frozen=True)
class Levels:
    """The noise levels that training draws from, each [training_steps], float32.

    sigmas 1 down to nearly 0; times, what the network is told of them, 0..1000; weights, how much a step counts,
    mean 1. A level's sigma and weight are those nearest to its *rounded* time, because that is where the published
    training looks them up.
    """

    sigmas: Tensor
    times: Tensor
    weights: Tensor


def training_levels(flow: FlowSpec) -> Levels:
    """The levels of a flow. The weights are a bell over the exact times, centre 500, so that its ends count least."""
    sigmas = schedule(flow.training_steps, flow.shift)[:-1]
    exact = 1000 * sigmas
    bell = torch.exp(-2 * ((exact - 500) / 1000) ** 2)
    weights = bell - bell.min()
    weights = weights * (len(weights) / weights.sum())
    times = network_time(sigmas, flow)
    nearest = (exact[None] - times[:, None]).abs().argmin(dim=1)
    return Levels(sigmas[nearest], times, weights[nearest])


def noised(clean: Tensor, noise: Tensor, drawn: Draw, levels: Levels) -> Tensor:
    """What the network sees: (1 - s) clean + s noise, each stream with its own noise, s the level of its role.

    clean, noise [N, M, C, F, Y, X] -> the same shape."""
    sigmas = levels.sigmas[_levels(drawn)].to(clean).view(1, -1, *[1] * (clean.dim() - 2))
    return (1 - sigmas) * clean + sigmas * noise


def training_loss(engine: Engine, drawn: Draw, clean: Tensor, noise: Tensor, context: Tensor, levels: Levels) -> Tensor:
    """The weighted mean squared error of the targets' velocity, a scalar in float32.

    clean, noise [N, M, C, F, Y, X], anything where a stream is absent; context [N, W, E], the text of each clip, or
    [1, W, E] for all (the empty one where `drawn.text` is False; that choice is the caller's, who knows the
    embeddings)."""
    task = drawn.task
    layout, adapters = engine.bind(task, clean)
    times = levels.times[_levels(drawn)].to(clean.device).view(-1, 1, 1).expand(-1, len(clean), -1)
    predicted = joint_forward(
        engine.model, noised(clean, noise, drawn, levels).unbind(1), times, context, layout=layout,
        context_index=[[n if len(context) > 1 else 0] * len(task.roles) for n in range(len(clean))],
        adapters=adapters, host=engine.host)
    targets = list(layout.outputs)
    error = F.mse_loss(torch.stack(predicted, 1).float(), (noise - clean)[:, targets].float())
    return error * levels.weights[drawn.level].to(error)


def _levels(drawn: Draw) -> list[int]:
    """The number of the level of every stream."""
    held = drawn.task.family.flow.condition_index
    return [drawn.level if role is Role.TARGET else held for role in drawn.task.roles]

"""The training objective of the joint flow: of UniVidX (Stochastic Condition Masking, specs/unividx.md §7), UnityVideo
(specs/unityvideo.md A3) and Uni-ViGU (specs/univigu.md §11), which differ in fields of their families.

A step draws a task and one noise level for all pictures that it generates; what is given is held at its own small
level, or clean. The network predicts the velocity noise - clean of the targets, and only they are in the loss. A text
that is generated has a time of its own, drawn apart, and a loss of its own: the cross-entropy of its tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..joint.families import parse_task
from ..joint.flow import condition_sigma, network_time, rounded_time, schedule
from ..joint.sampling import Engine, Texts, row_states
from ..joint.streams import Family, FlowSpec, Role, Task
from ..joint.text_flow import text_time
from ..joint.transformer import joint_forward


@dataclass(frozen=True)
class Draw:
    """The random choices of one step: a task, the numbers of the noise levels of its pictures, one for each clip or one
    for all, what it reads ("prompt", the "empty" prompt, or "zeros"), and, likewise, the times 0..1 of a text that it
    generates, 1 being clean."""

    task: Task
    levels: tuple[int, ...]
    reads: str = "prompt"
    clean: tuple[float, ...] = (1.0,)


def draw(family: Family, generator: torch.Generator, weights: Mapping[str, float] | None = None,
         present: Collection[str] | None = None, drop: float = 0.0, clips: int = 1) -> Draw:
    """A task, by `weights` of task names, by default the family's or else all alike, and for each of `clips` a level of
    the schedule. (The published trainings see one clip at a time, each at its own level.)

    `present` are the layers that there are (None: all). The others are taken out of the drawn task; one of which
    nothing to generate remains is drawn again, as is, in a family whose layers need not all be there, one that lost a
    layer. `drop`: how often the prompt of a task that has one is left out. Raises ValueError when `weights` name no
    task that could remain.
    """
    present = set(family.layers if present is None else present)
    weights = dict(weights or family.task_weights)
    tasks = [parse_task(family, name) for name in weights]
    if tasks and not any(_remains(task, present) for task in tasks):
        raise ValueError(f"None of the tasks {', '.join(weights)} can be learned from {', '.join(sorted(present))}.")
    while True:
        task = tasks[int(torch.multinomial(torch.tensor(list(weights.values())), 1, generator=generator))] if tasks \
            else _any_task(family, generator)
        if _remains(task, present):
            break
    levels = tuple(_level(family.flow, generator) for _ in range(clips))
    roles = tuple(role if layer in present else Role.ABSENT for layer, role in zip(family.layers, task.roles))
    makes_text = bool(set(family.texts) & set(task.targets))
    clean = tuple(torch.rand(clips, generator=generator).tolist()) if makes_text else (1.0,)
    return Draw(Task(family, roles), levels, _reads(task, drop, generator), clean)


def learnable(family: Family, weights: Mapping[str, float], present: Collection[str]) -> bool:
    """Whether any of the tasks, by default the family's, can be learned from a clip with these layers."""
    names = weights or dict(family.task_weights)
    return not names or any(_remains(parse_task(family, name), set(present)) for name in names)


def _remains(task: Task, present: set[str]) -> bool:
    """Whether a task can be learned from a clip with these layers."""
    if task.family.present is not None:
        return present.issuperset(task.conditions + task.targets)
    return bool(present & set(task.targets))


def _any_task(family: Family, generator: torch.Generator) -> Task:
    streams = len(family.streams)
    # Bit i of the number: is stream i generated? 0 would generate none.
    bits = int(torch.randint(1, 2**streams, (), generator=generator))
    return Task(family, tuple(Role.TARGET if bits >> i & 1 else Role.CONDITION for i in range(streams)))


def _level(flow: FlowSpec, generator: torch.Generator) -> int:
    """Uniform, or the sigmoid of a normal number, to the nearest level."""
    if flow.training_times == "uniform":
        return int(torch.randint(flow.training_steps, (), generator=generator))
    noise = float(torch.sigmoid(torch.randn((), generator=generator)))  # before the shift, which the levels have
    return min(round((1 - noise) * flow.training_steps), flow.training_steps - 1)


def _reads(task: Task, drop: float, generator: torch.Generator) -> str:
    family = task.family
    told = task.uses_text and not (drop and float(torch.rand((), generator=generator)) < drop)
    if told:
        return "prompt"
    if family.no_prompt == "empty":
        return "empty"
    # Its inference knows two nothings: zeros where a text is made, the empty prompt where it is guided away from.
    return ("zeros", "empty")[int(torch.randint(2, (), generator=generator))]


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
    """The levels of a flow. A bell of weights lies over the exact times, centre 500, so that its ends count least."""
    shift = flow.shift if flow.training_shift is None else flow.training_shift
    sigmas = schedule(flow.training_steps, shift)[:-1]
    exact = 1000 * sigmas
    weights = torch.ones_like(exact)
    if flow.weighting == "bell":
        bell = torch.exp(-2 * ((exact - 500) / 1000) ** 2)
        weights = bell - bell.min()
        weights = weights * (len(weights) / weights.sum())
    times = network_time(sigmas, flow)
    nearest = (exact[None] - times[:, None]).abs().argmin(dim=1)
    return Levels(sigmas[nearest], times, weights[nearest])


class Lesson(NamedTuple):
    """What one step sees of N clips. clean, noise [N, P, C, F, Y, X]: anything where a stream is absent. context [N, W,
    E], the text that each clip reads, or [1, W, E] for all. own [1, W, E] by stream: the fixed texts of those that have
    one. ids, noisy_ids [N, S]: a text and what noise has left of it, which is read where it is generated; lengths: how
    many of its tokens are not padding."""

    clean: Tensor
    noise: Tensor
    context: Tensor
    own: Mapping[str, Tensor] = {}
    ids: Tensor | None = None
    noisy_ids: Tensor | None = None
    lengths: tuple[int, ...] = ()


def noised(clean: Tensor, noise: Tensor, drawn: Draw, levels: Levels) -> Tensor:
    """What the network sees: (1 - s) clean + s noise, each picture with its own noise, s the level of its role.

    clean, noise [N, P, C, F, Y, X] -> the same shape."""
    sigmas = torch.stack([_sigmas(drawn, role, levels) for role, stream in zip(drawn.task.roles, _streams(drawn))
                          if stream.tokens is None], dim=1).to(clean)  # [N, P], N = 1 where all are at one level
    sigmas = sigmas.view(*sigmas.shape, *[1] * (clean.dim() - 2))
    return (1 - sigmas) * clean + sigmas * noise


def noised_text(ids: Tensor, drawn: Draw, vocabulary: int, generator: torch.Generator) -> Tensor:
    """Texts [N, S] of which each token is kept with its `drawn.clean` as probability, and else is any of the
    vocabulary."""
    kept = torch.rand(ids.shape, generator=generator) < torch.tensor(drawn.clean).view(-1, 1)
    return torch.where(kept, ids, torch.randint(vocabulary, ids.shape, generator=generator))


def training_loss(engine: Engine, drawn: Draw, lesson: Lesson, levels: Levels) -> Tensor:
    """A scalar in float32: the mean squared error of the velocity of the pictures that are generated, times the weight
    of its level, plus the mean cross-entropy of the tokens, padding too, of a text that is.

    Padding counts because the sampler writes it: nothing else tells it where a text ends."""
    if lesson.ids is not None and set(drawn.task.family.texts) & set(drawn.task.conditions):
        # A text that is given has no padding when it is used, so clips are seen one by one, each in its length.
        parts = [_loss(engine, *_one(drawn, lesson, n), levels) for n in range(len(lesson.clean))]
        return torch.stack(parts).mean()
    return _loss(engine, drawn, lesson, levels)


def _loss(engine: Engine, drawn: Draw, lesson: Lesson, levels: Levels) -> Tensor:
    task, clean = drawn.task, lesson.clean
    family = task.family
    makes_text = bool(set(family.texts) & set(task.targets))
    ids = lesson.noisy_ids if makes_text else lesson.ids
    layout, adapters = engine.bind(task, clean, text_length=0 if ids is None else ids.shape[1])
    times = [time.to(clean.device).view(-1, 1).expand(len(clean), -1) for time in _times(drawn, levels)]
    context, index = Texts(lesson.context, lesson.own).context(task, len(clean))
    out = joint_forward(
        engine.model, row_states(task, noised(clean, lesson.noise, drawn, levels), ids), times, context, layout=layout,
        context_index=index, adapters=adapters, experts=engine.experts, host=engine.host)
    made = {family.layers[row]: part for row, part in zip(layout.outputs, out)}
    loss = torch.zeros((), device=clean.device)
    if pictures := [layer for layer in family.pictures if layer in made]:
        rows = [family.pictures.index(layer) for layer in pictures]
        error = torch.stack([made[layer] for layer in pictures], 1).float() - (lesson.noise - clean)[:, rows].float()
        weights = levels.weights[list(drawn.levels)].to(error)
        loss = loss + (error.square().flatten(1).mean(dim=1) * weights).mean()
    for layer in set(family.texts) & made.keys():
        loss = loss + F.cross_entropy(made[layer].float().flatten(0, 1), lesson.ids.flatten())
    return loss


def _one(drawn: Draw, lesson: Lesson, n: int) -> tuple[Draw, Lesson]:
    """One clip of a lesson, its text without padding."""
    here = slice(n, n + 1)
    drawn = drawn if len(drawn.levels) == 1 else replace(drawn, levels=drawn.levels[here])
    return drawn, lesson._replace(
        clean=lesson.clean[here], noise=lesson.noise[here],
        context=lesson.context[here] if len(lesson.context) > 1 else lesson.context,
        ids=lesson.ids[here, :lesson.lengths[n]])


def _streams(drawn: Draw):
    return drawn.task.family.streams


def _sigmas(drawn: Draw, role: Role, levels: Levels) -> Tensor:
    """The noise levels of the pictures in this role, one for each clip or one for all."""
    flow = drawn.task.family.flow
    if role is Role.TARGET:
        return levels.sigmas[list(drawn.levels)]
    # Looked up among the levels, as published, where the flow has one for what is given.
    sigma = 0.0 if flow.condition_index is None else float(levels.sigmas[flow.condition_index])
    return torch.full((len(drawn.levels),), sigma)


def _times(drawn: Draw, levels: Levels) -> list[Tensor]:
    """The time that the network is told of each stream."""
    flow, out = drawn.task.family.flow, []
    for role, stream in zip(drawn.task.roles, _streams(drawn)):
        if stream.tokens:
            times = map(text_time, drawn.clean) if role is Role.TARGET else (0.0,)
            out.append(rounded_time(torch.tensor(tuple(times)), flow))
        elif role is Role.TARGET or flow.condition_time == "targets":
            out.append(levels.times[list(drawn.levels)])
        else:
            out.append(network_time(torch.tensor(condition_sigma(flow)), flow))
    return out

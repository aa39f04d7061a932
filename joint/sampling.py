"""A whole sampling on tensors: roles, noise, guidance and the forward put together, for use outside ComfyUI.

N requests, P picture streams in row order, M streams with the text among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .adapters import ActiveAdapters, AdapterBank, AdapterSettings
from .experts import Experts
from .flow import euler, noise_conditions, schedule, stream_times
from .layout import Layout, make_layout
from .streams import Family, Role, Task
from .text_flow import TextSolver, sample_tokens
from .transformer import Host, joint_forward


@dataclass(frozen=True)
class Engine:
    """A backbone with its adapters and its streams' own parts, ready to sample. `bank` None runs without adapters."""

    model: nn.Module
    bank: AdapterBank | None
    settings: AdapterSettings
    host: Host
    experts: Experts | None = None

    def bind(self, task: Task, latents: Tensor, *, text_length: int = 0,
             all_outputs: bool = False) -> tuple[Layout, ActiveAdapters | None]:
        """How a task's streams are packed for latents [N, P, C, F, Y, X] and a text of `text_length` tokens, and the
        adapters that act in it.

        `all_outputs` lets conditions leave the network, too (`layout.make_layout`)."""
        family, head_dim = task.family, self.model.head.head.in_features // self.model.num_heads
        grid = tuple(size // patch for size, patch in zip(latents.shape[3:], self.model.patch_size))
        adapted = self.settings.active(family, task.roles) if self.bank else (False,) * len(task.roles)
        layout = make_layout(family, task.roles, adapted, grid, head_dim, text_length=text_length,
                             all_outputs=all_outputs, device=latents.device)
        return layout, ActiveAdapters(self.bank, self.settings, layout) if self.bank else None


def picture_roles(task: Task) -> tuple[Role, ...]:
    """The roles of the picture streams, in row order."""
    return tuple(role for role, stream in zip(task.roles, task.family.streams) if stream.tokens is None)


def row_states(task: Task, latents: Tensor, ids: Tensor | None) -> list[Tensor | None]:
    """What `joint_forward` takes, in row order: latents [N, P, C, F, Y, X] apart, and ids [N, S] where text stands."""
    pictures = iter(latents.unbind(1))
    return [ids if stream.tokens else next(pictures) for stream in task.family.streams]


def initial_noise(task: Task, latent: tuple[int, int, int], channels: int, seed: int) -> Tensor:
    """Noise [1, P, C, F, Y, X] of one clip: one float32 draw over all streams on the CPU, as the published code and
    ComfyUI's samplers both draw it."""
    shape = (len(task.family.pictures), channels, *latent)
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)).unsqueeze(0)


@dataclass(frozen=True)
class Texts:
    """What the streams read, as embeddings. `branches` [B, W, E]: the user's prompt and, where it is guided away from
    another, that one. `own` [1, W, E] by stream: the fixed prompts of streams that have one."""

    branches: Tensor
    own: Mapping[str, Tensor] = field(default_factory=dict)

    def context(self, task: Task, requests: int) -> tuple[Tensor, list[list[int]]]:
        """The texts [R, W, E] for `joint_forward`, and which one each stream of each request reads; requests are
        branch-major. Raises ValueError when a stream's own text is missing."""
        clips = requests // len(self.branches)
        index = [[n // clips] * len(task.roles) for n in range(requests)]
        return with_own_texts(task.family, task.roles, self.branches, index, self.own)


def with_own_texts(family: Family, roles: Sequence[Role], context: Tensor, index: list[list[int]],
                   own: Mapping[str, Tensor]) -> tuple[Tensor, list[list[int]]]:
    """Texts [R, W, E] and which one each stream of each request reads, with the fixed texts [1, W, E] of those present
    streams that have one after them. Raises ValueError when one of these is missing."""
    names = [stream.name for stream, role in zip(family.streams, roles) if stream.prompt and role != Role.ABSENT]
    if lacking := [name for name in names if name not in own]:
        raise ValueError(f"The text of {', '.join(lacking)} is not embedded: a text encoder is needed.")
    rows = {name: len(context) + i for i, name in enumerate(names)}
    return (torch.cat([context, *(own[name].to(context) for name in names)]),
            [[rows.get(stream.name, row) for stream, row in zip(family.streams, request)] for request in index])


def predict(engine: Engine, task: Task, x: Tensor, sigma: float, texts: Texts, *, ids: Tensor | None = None,
            text_time: float = 0.0, wanted: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """The velocity of all pictures at one sigma, 0 where a stream is not generated, and the logits of the text, None
    where that is not generated: x [N, P, C, F, Y, X] -> (the same shape, [N, S, V] or [K, V]).

    N = branches * clips, branch-major. `ids` [N, S]: the family's text, at `text_time` 0..1000 where it is generated;
    `wanted` as `joint_forward` has it."""
    family = task.family
    layout, adapters = engine.bind(task, x, text_length=0 if ids is None else ids.shape[1])
    times = [time.expand(x.shape[0], -1) for time in stream_times(task, sigma, text_time, x.device)]
    context, index = texts.context(task, x.shape[0])
    out = joint_forward(engine.model, row_states(task, x, ids), times, context, layout=layout, context_index=index,
                        adapters=adapters, experts=engine.experts, host=engine.host, wanted=wanted)
    made = {family.layers[row]: part for row, part in zip(layout.outputs, out)}
    velocity = torch.zeros_like(x)
    for j, layer in enumerate(family.pictures):
        if layer in made:
            velocity[:, j] = made[layer]
    return velocity, next((made[layer] for layer in family.texts if layer in made), None)


def effective_guidance(guidance: float, prompt_is_empty: bool) -> float:
    """The CFG scale that will be used: 1.0 for the empty prompt, else as asked.

    The tasks without text were trained with the empty prompt alone, so guiding away from another one would compare it
    with something never seen, at twice the cost (the published scripts do the same since May 2026)."""
    return 1.0 if prompt_is_empty else guidance


@torch.inference_mode()
def sample(engine: Engine, task: Task, clean: Tensor, noise: Tensor, texts: Texts, *, guidance: float = 1.0,
           steps: int | None = None, callback: Callable[[int, Tensor], None] | None = None,
           ids: Tensor | None = None) -> Tensor:
    """Sample the pictures of a task.

    clean, noise [N, P, C, F, Y, X] (what stands in `clean` at a target's place is ignored). `texts` has a second branch
    exactly when `guidance` differs from 1. `steps` defaults to the family's. `ids` [N, S]: a text that is given.
    Returns [N, P, C, F, Y, X]: targets sampled, conditions exactly as given in `clean`.
    """
    return _sample(engine, task, clean, noise, texts, guidance, steps or task.family.flow.steps, callback, ids, None)[0]


@torch.inference_mode()
def sample_with_text(engine: Engine, task: Task, clean: Tensor, noise: Tensor, texts: Texts, ids: Tensor,
                     solver: TextSolver, *, guidance: float = 1.0,
                     callback: Callable[[int, Tensor], None] | None = None) -> tuple[Tensor, Tensor]:
    """Sample the pictures of a task as `sample` does and, in lock step, the text [N, S] from noise `ids`.

    In the end the finished pictures and text are looked at once more, and every token becomes its likeliest (as
    published, specs/univigu.md §6.3). Guidance is the pictures' alone."""
    x, ids = _sample(engine, task, clean, noise, texts, guidance, solver.steps, callback, ids, solver)
    _, logits = predict(engine, task, x, 0.0, Texts(texts.branches[:1], texts.own), ids=ids)
    return x, logits.argmax(dim=-1)


def _sample(engine: Engine, task: Task, clean: Tensor, noise: Tensor, texts: Texts, guidance: float, steps: int,
            callback: Callable[[int, Tensor], None] | None, ids: Tensor | None,
            solver: TextSolver | None) -> tuple[Tensor, Tensor | None]:
    flow, roles, branches = task.family.flow, picture_roles(task), len(texts.branches)
    done = 0

    def step(x: Tensor, sigma: float) -> Tensor:
        nonlocal ids, done
        wanted = None if solver is None else solver.wanted(done)
        velocity, logits = predict(
            engine, task, _repeat(x, branches), sigma, texts, ids=_repeat(ids, branches), text_time=1000 * sigma,
            wanted=_only_first(wanted, branches))
        if solver is not None:
            ids = solver.step(done, ids, logits[:len(ids)] if wanted is None else logits)
        done += 1
        if branches == 1:
            return velocity
        with_text, without = velocity.chunk(2)
        return without + guidance * (with_text - without)

    x = euler(step, noise_conditions(clean, noise, roles, flow), schedule(steps, flow.shift), callback)
    given = torch.tensor([role is Role.CONDITION for role in roles], device=x.device)
    return torch.where(given.view(1, -1, 1, 1, 1, 1), clean, x), ids


@torch.inference_mode()
def sample_text(engine: Engine, task: Task, clean: Tensor, ids: Tensor, texts: Texts, solver: TextSolver, grid: Tensor,
                callback: Callable[[int, Tensor], None] | None = None) -> Tensor:
    """Make the text [N, S] of given pictures: clean [N, P, C, F, Y, X], `ids` noise, `grid` [n + 1] the times 0..1 of
    the solver's n steps. `callback(i, ids)` sees the input of every step. A step in which no token jumps costs
    nothing."""
    def logits(ids: Tensor, time: float, wanted: Tensor | None) -> Tensor:
        return predict(engine, task, clean, 0.0, texts, ids=ids, text_time=time, wanted=wanted)[1]

    return sample_tokens(logits, ids, solver, grid, callback)


def _repeat(state: Tensor | None, branches: int) -> Tensor | None:
    return state if state is None or branches == 1 else torch.cat([state] * branches)


def _only_first(wanted: Tensor | None, branches: int) -> Tensor | None:
    """Of all branches, only the first one's text is read."""
    return wanted if wanted is None else torch.cat([wanted, *[torch.zeros_like(wanted)] * (branches - 1)])

"""A whole sampling on tensors: roles, noise, guidance and the forward put together, for use outside ComfyUI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .adapters import ActiveAdapters, AdapterBank, AdapterSettings
from .flow import euler, noise_conditions, schedule, stream_times
from .layout import Layout, make_layout
from .streams import Role, Task
from .transformer import Host, joint_forward


@dataclass(frozen=True)
class Engine:
    """A backbone with its adapters, ready to sample. `bank` None runs the bare backbone."""

    model: nn.Module
    bank: AdapterBank | None
    settings: AdapterSettings
    host: Host

    def bind(self, task: Task, latents: Tensor, *, all_outputs: bool = False) -> tuple[Layout, ActiveAdapters | None]:
        """How a task's streams are packed for latents [N, M, C, F, Y, X], and the adapters that act in it.

        `all_outputs` lets conditions leave the network, too (`layout.make_layout`)."""
        family, head_dim = task.family, self.model.head.head.in_features // self.model.num_heads
        grid = tuple(size // patch for size, patch in zip(latents.shape[3:], self.model.patch_size))
        adapted = self.settings.active(family, task.roles) if self.bank else (False,) * len(task.roles)
        layout = make_layout(family, task.roles, adapted, grid, head_dim, all_outputs=all_outputs,
                             device=latents.device)
        return layout, ActiveAdapters(self.bank, self.settings, layout) if self.bank else None


def initial_noise(task: Task, latent: tuple[int, int, int], channels: int, seed: int) -> Tensor:
    """Noise [1, M, C, F, Y, X] of one clip: one float32 draw over all streams on the CPU, as the published code and
    ComfyUI's samplers both draw it."""
    shape = (len(task.roles), channels, *latent)
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)).unsqueeze(0)


def velocity(engine: Engine, task: Task, x: Tensor, sigma: float, context: Tensor,
             branches: int = 1) -> Tensor:
    """The velocity of all streams at one sigma, 0 where a stream is given: x [N, M, C, F, Y, X] -> the same shape.

    context [branches, W, E]: N = branches * clips requests, branch-major; every clip of a branch reads its text."""
    layout, adapters = engine.bind(task, x)
    clips = x.shape[0] // branches
    times = stream_times(sigma, task.roles, task.family.flow, x.device).expand(x.shape[0], -1, -1)
    out = joint_forward(
        engine.model, x, times, context, layout=layout, adapters=adapters, host=engine.host,
        context_index=[[n // clips] * len(task.roles) for n in range(x.shape[0])])
    full = torch.zeros_like(x)
    full[:, list(layout.outputs)] = out
    return full


def effective_guidance(guidance: float, prompt_is_empty: bool) -> float:
    """The CFG scale that will be used: 1.0 for the empty prompt, else as asked.

    The tasks without text were trained with the empty prompt alone, so guiding away from another one would compare it
    with something never seen, at twice the cost (the published scripts do the same since May 2026)."""
    return 1.0 if prompt_is_empty else guidance


@torch.inference_mode()
def sample(engine: Engine, task: Task, clean: Tensor, noise: Tensor, positive: Tensor, negative: Tensor | None = None,
           *, guidance: float = 1.0, steps: int | None = None,
           callback: Callable[[int, Tensor], None] | None = None) -> Tensor:
    """Sample the targets of a task.

    clean, noise [N, M, C, F, Y, X] (what stands in `clean` at a target's place is ignored), positive and negative
    [1, W, E]; the negative text is read only when guidance differs from 1. `steps` defaults to the family's.
    Returns [N, M, C, F, Y, X]: targets sampled, conditions exactly as given in `clean`.
    """
    flow = task.family.flow
    x = noise_conditions(clean, noise, task.roles, flow)
    sigmas = schedule(steps or flow.steps, flow.shift)
    guided = guidance != 1.0
    context = torch.cat((positive, negative)) if guided else positive

    def step(x: Tensor, sigma: float) -> Tensor:
        if not guided:
            return velocity(engine, task, x, sigma, context)
        with_text, without = velocity(engine, task, torch.cat((x, x)), sigma, context, branches=2).chunk(2)
        return without + guidance * (with_text - without)

    x = euler(step, x, sigmas, callback)
    given = torch.tensor([role is Role.CONDITION for role in task.roles], device=x.device)
    return torch.where(given.view(1, -1, 1, 1, 1, 1), clean, x)

"""The continuous flow of pictures: z = (1 - sigma) x + sigma noise, velocity = noise - x, Euler from sigma 1 to 0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .streams import FlowSpec, Role, Task


def schedule(steps: int, shift: float) -> Tensor:
    """Sigmas [steps + 1] from 1 down to 0, float32: shift*u / (1 + (shift-1)*u) of evenly spaced u.

    Raises ValueError for less than one step."""
    if steps < 1:
        raise ValueError(f"Sampling takes at least 1 step, got {steps}.")
    u = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return (shift * u / (1 + (shift - 1) * u)).float()


def condition_sigma(flow: FlowSpec) -> float:
    """The noise level at which a CONDITION is held: sigma `condition_index` of the training schedule (0.00498), or
    0 where there is none."""
    if flow.condition_index is None:
        return 0.0
    return float(schedule(flow.training_steps, flow.shift)[flow.condition_index])


def network_time(sigma: Tensor, flow: FlowSpec) -> Tensor:
    """What the time embedding receives for sigma 0..1: 0..1000, rounded as the family rounds. float32."""
    return rounded_time(sigma.float() * 1000.0, flow)


def rounded_time(time: Tensor, flow: FlowSpec) -> Tensor:
    """A time 0..1000 as the family rounds it, float32."""
    return time if flow.round_time is None else time.to(getattr(torch, flow.round_time)).float()


def told_sigma(role: Role, sigma: float, flow: FlowSpec) -> float:
    """The sigma that the network is told of a picture while the targets are at `sigma`."""
    return sigma if role is Role.TARGET or flow.condition_time == "targets" else condition_sigma(flow)


def stream_times(task: Task, sigma: float, text_time: float = 0.0, device=None) -> list[Tensor]:
    """Times [1, 1] of whole streams, in row order, while pictures that are generated are at `sigma`. A text that is
    generated is at `text_time`, 0..1000; one that is given at 0."""
    flow = task.family.flow
    pictures = {role: network_time(torch.tensor([[told_sigma(role, sigma, flow)]], device=device), flow)
                for role in task.roles}
    texts = {role: rounded_time(torch.tensor([[text_time if role is Role.TARGET else 0.0]], device=device), flow)
             for role in task.roles}
    return [(texts if stream.tokens else pictures)[role] for stream, role in zip(task.family.streams, task.roles)]


def noise_conditions(clean: Tensor, noise: Tensor, roles: tuple[Role, ...], flow: FlowSpec) -> Tensor:
    """The latents a sampling starts from: targets pure noise, conditions (1 - s) clean + s noise.

    clean, noise [N, M, ...] -> [N, M, ...]. s is `condition_sigma`; the noise of a condition is the first stream's
    or its own (`FlowSpec.condition_noise`)."""
    held = torch.tensor(condition_sigma(flow), dtype=clean.dtype, device=clean.device)
    source = noise[:, :1].expand_as(noise) if flow.condition_noise == "first" else noise
    given = (1 - held) * clean + held * source
    target = torch.tensor([role is Role.TARGET for role in roles], device=clean.device)
    return torch.where(target.view(1, -1, *[1] * (clean.dim() - 2)), noise, given)


def euler(velocity: Callable[[Tensor, float], Tensor], x: Tensor, sigmas: Tensor,
          callback: Callable[[int, Tensor], None] | None = None) -> Tensor:
    """Integrate dx = velocity(x, sigma) dsigma along `sigmas`. `callback(i, x)` sees the input of every step."""
    for i, (here, there) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist())):
        if callback is not None:
            callback(i, x)
        x = x + velocity(x, here) * (there - here)
    return x

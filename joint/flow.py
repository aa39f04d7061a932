"""The continuous flow: z = (1 - sigma) x + sigma noise, velocity = noise - x, Euler from sigma 1 to 0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .streams import FlowSpec, Role


def schedule(steps: int, shift: float) -> Tensor:
    """Sigmas [steps + 1] from 1 down to 0, float32: shift*u / (1 + (shift-1)*u) of evenly spaced u.

    Raises ValueError for less than one step."""
    if steps < 1:
        raise ValueError(f"Sampling takes at least 1 step, got {steps}.")
    u = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return (shift * u / (1 + (shift - 1) * u)).float()


def condition_sigma(flow: FlowSpec) -> float:
    """The noise level at which a CONDITION is held: sigma `condition_index` of the training schedule (0.00498)."""
    return float(schedule(flow.training_steps, flow.shift)[flow.condition_index])


def network_time(sigma: Tensor, flow: FlowSpec) -> Tensor:
    """What the time embedding receives for sigma 0..1: 0..1000, rounded as the family rounds. float32."""
    time = sigma.float() * 1000.0
    return time if flow.round_time is None else time.to(getattr(torch, flow.round_time)).float()


def stream_times(sigma: Tensor | float, roles: tuple[Role, ...], flow: FlowSpec, device=None) -> Tensor:
    """Times [1, M, 1] of whole streams: targets at `sigma`, conditions at theirs."""
    held = condition_sigma(flow)
    values = torch.tensor([float(sigma) if role is Role.TARGET else held for role in roles], device=device)
    return network_time(values, flow).view(1, -1, 1)


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

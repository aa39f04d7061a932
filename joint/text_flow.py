"""The discrete flow of text: every token jumps from noise to text, one by one (Gat et al., arXiv 2407.15595).

At time t of 0..1 each token of a text is its own with probability t, else any token of the vocabulary. The network
gives the posterior, softmax(logits), of each clean token; in a step a token jumps to a draw from its posterior with a
probability that does not depend on the network. So the jumps can be drawn first (`JumpFirst`): the same distribution as
drawing everything first and then seldom using it (`PublishedCaption`, `PublishedJoint`, which are the published
samplers to the token), while most logits, and whole forwards, are not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


def text_grid(steps: int) -> Tensor:
    """Times [n + 1] from 0 to 1, float32, of a caption's steps; n is `steps`, or one more where the published solver's
    division rounds up (49 becomes 50). Raises ValueError for less than one step."""
    if steps < 1:
        raise ValueError(f"Sampling takes at least 1 step, got {steps}.")
    size = 1 / steps
    return torch.tensor([size * i for i in range(ceil(1 / size))] + [1.0])


def text_time(t: float) -> float:
    """What the network is told of the time t of a text: whole numbers 1000..0."""
    return float(torch.round((1.0 - torch.tensor(t)) * 1000).clamp(0, 1000))


def caption_rates(grid: Tensor) -> Tensor:
    """The probability [n] with which a token jumps in each step along a grid [n + 1]; in the last one all do.

    1 - exp(-h / (1 - t)): the published Euler step of the mixture path's rate."""
    return torch.cat((1 - torch.exp(-grid.diff() / (1 - grid[:-1]))[:-1], torch.ones(1)))


def joint_rates(steps: int) -> Tensor:
    """The same [steps] for a caption that is made together with its video, as published: step number / last number."""
    return torch.linspace(0, 1, steps) if steps > 1 else torch.ones(1)


def random_tokens(count: int, length: int, vocabulary: int, generator: torch.Generator) -> Tensor:
    """Texts [count, length] of noise: any token, each alike."""
    return torch.randint(vocabulary, (count, length), generator=generator, device=generator.device)


class TextSolver(Protocol):
    """How texts [N, S] of token ids are stepped."""

    steps: int

    def wanted(self, step: int) -> Tensor | None:
        """The tokens [N, S], bool, whose logits a step needs; None for all."""

    def step(self, step: int, ids: Tensor, logits: Tensor | None) -> Tensor:
        """The texts after a step: `logits` [N, S, V], or [K, V] of the K wanted tokens, None where there are none."""


class JumpFirst:
    """All jumps are drawn at the start, and only tokens that jump are asked for. Draws invert the cumulated posterior:
    one number a token, where the published samplers draw one for every entry of the vocabulary."""

    def __init__(self, rates: Tensor, count: int, length: int, generator: torch.Generator):
        """rates [n]: the probability of a jump in each step. The generator's device is that of the texts."""
        self.steps, self.generator = len(rates), generator
        drawn = torch.rand(self.steps, count, length, generator=generator, device=generator.device)
        self.jumps = drawn < rates.to(drawn).view(-1, 1, 1)

    @property
    def forwards(self) -> int:
        """In how many steps anything jumps."""
        return int(self.jumps.flatten(1).any(dim=1).sum())

    def wanted(self, step: int) -> Tensor:
        return self.jumps[step]

    def step(self, step: int, ids: Tensor, logits: Tensor | None) -> Tensor:
        if logits is None:
            return ids
        ids = ids.clone()
        ids[self.jumps[step]] = draw_tokens(logits, self.generator)
        return ids


def draw_tokens(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A token for each row of logits [K, V]: int64 [K]. Raises ValueError for logits that are not finite."""
    # In float32 a place has 2^24 values and a sum rounds to 6e-8: of 256,000 tokens the unlikely would never be drawn.
    wide = torch.float32 if generator.device.type == "mps" else torch.float64
    places = torch.rand(len(logits), 1, generator=generator, device=generator.device, dtype=wide).to(logits.device)
    # A few rows at a time: all of a text's at once would need a gigabyte.
    return torch.cat([_tokens_at(part, place) for part, place in zip(logits.split(16), places.split(16))])


def _tokens_at(logits: Tensor, places: Tensor) -> Tensor:
    """The token [K] at each of `places` [K, 1], 0..1, of the posterior's cumulated sum."""
    if not torch.isfinite(logits).all():
        raise ValueError("The model's text logits are not finite: use another dtype, or download the model again.")
    cumulated = torch.softmax(logits.float(), dim=-1).cumsum(dim=-1, dtype=places.dtype)
    # Rounding leaves the sum a little off 1, and a place must lie inside it.
    found = torch.searchsorted(cumulated, places * cumulated[:, -1:], right=True)
    return found.squeeze(1).clamp_max(logits.shape[-1] - 1)


class PublishedCaption:
    """The published sampler of a caption, draw for draw: flow_matching 1.0.10's MixtureDiscreteEulerSolver in float64
    (specs/univigu.md §6.2). Equal seeds give equal tokens only on one kind of device."""

    def __init__(self, grid: Tensor, generator: torch.Generator):
        self.grid, self.steps, self.generator = grid, len(grid) - 1, generator

    def wanted(self, step: int) -> None:
        return None

    def step(self, step: int, ids: Tensor, logits: Tensor) -> Tensor:
        drawn = self._draw(torch.softmax(logits.float(), dim=-1).double().flatten(0, 1)).view_as(ids)
        if step == self.steps - 1:
            return drawn
        rate = 1 / (1 - self.grid[step])
        intensity = torch.where(drawn == ids, 0.0, rate.to(logits.device))
        chance = torch.rand(ids.shape, generator=self.generator, device=ids.device)
        jumps = chance < 1 - torch.exp(-(self.grid[step + 1] - self.grid[step]).to(logits.device) * intensity)
        if jumps.any():
            # The target of a jump is certain, but the published code draws it, too, which moves the generator on.
            self._draw(F.one_hot(drawn[jumps], logits.shape[-1]).double())
        return torch.where(jumps, drawn, ids)

    def _draw(self, weights: Tensor) -> Tensor:
        return torch.multinomial(weights, 1, generator=self.generator).squeeze(1)


class PublishedJoint:
    """The published sampler of a caption beside its video, draw for draw (specs/univigu.md §6.3)."""

    def __init__(self, steps: int, generator: torch.Generator):
        self.steps, self.generator = steps, generator
        self.rates = joint_rates(steps).double()

    def wanted(self, step: int) -> None:
        return None

    def step(self, step: int, ids: Tensor, logits: Tensor) -> Tensor:
        posterior = torch.softmax(logits.float(), dim=-1)
        drawn = torch.multinomial(posterior.flatten(0, 1), 1, generator=self.generator).view_as(ids)
        chance = torch.rand(ids.shape, generator=self.generator, device=ids.device)
        return torch.where(chance < self.rates[step].item(), drawn, ids)


def sample_tokens(logits: Callable[[Tensor, float, Tensor | None], Tensor], ids: Tensor, solver: TextSolver,
                  grid: Tensor, callback: Callable[[int, Tensor], None] | None = None) -> Tensor:
    """Make a text [N, S] of noise `ids` along the times `grid` [n + 1] of the solver's n steps.

    `logits(ids, time, wanted)` asks the network, `time` in 0..1000; it is not asked in a step in which no token jumps.
    `callback(i, ids)` sees the input of every step."""
    for i in range(solver.steps):
        if callback is not None:
            callback(i, ids)
        wanted, found = solver.wanted(i), None
        if wanted is None or wanted.any():
            found = logits(ids, text_time(float(grid[i])), wanted)
        ids = solver.step(i, ids, found)
    return ids


def caption_solver(grid: Tensor, length: int, generator: torch.Generator, *, published: bool = False) -> TextSolver:
    """What steps one text of `length` tokens of given pictures along a grid [n + 1]: with the fewest forwards, or draw
    for draw as published."""
    if published:
        return PublishedCaption(grid, generator)
    return JumpFirst(caption_rates(grid), 1, length, generator)


def joint_solver(steps: int, length: int, generator: torch.Generator, *, published: bool = False) -> TextSolver:
    """The same for a text that is made beside its pictures in so many steps."""
    if published:
        return PublishedJoint(steps, generator)
    return JumpFirst(joint_rates(steps), 1, length, generator)

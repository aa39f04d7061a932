"""How well a model makes the layers of shots it has never seen: synthetic shots of held-out seeds, exact truth.

Every number stands beside those of stand-ins for the model, made from the truth, since alone it says little:
  constant  the truth's own mean over the shot, finished as the layer's encoding is (for normals the mean direction)
  copy      the first given layer of the task, taken for the target; where nothing is given there is none
  vae       the truth through the VAE and back: what a perfect model would get
  truth     the truth itself, for relations alone: clipped to 0..1 as the network takes it, it does not fit perfectly
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..imaging.fit import Fit
from ..imaging.layers import decode, encode
from ..joint.sampling import Engine, initial_noise, sample
from ..joint.sampling import Texts as Branches
from ..joint.streams import Family, Task
from ..model_loaders.vae import WanVae
from .metrics.checks import skimage
from .scores import Layers, Numbers, measure_layer, measure_relations
from .shots import FIRST_TRAINING_SEED, synthetic_example

_SMALLEST = 16  # pixels: SSIM's window is 11


@dataclass(frozen=True)
class Plan:
    """What to measure: tasks of one family, on the shots of `seeds`, at a size, with so many sampling steps. `seed`
    chooses the noise: another one is another draw for every shot, the same one is the same for every model."""

    tasks: tuple[Task, ...]
    seeds: range
    frames: int
    height: int
    width: int
    steps: int
    seed: int = 0

    def check(self) -> None:
        """Raise ValueError for seeds that are no held-out ones and for pictures too small to measure."""
        if self.seeds.start < 0 or self.seeds.stop > FIRST_TRAINING_SEED:
            raise ValueError(f"Shots {self.seeds.start} to {self.seeds.stop - 1} were asked for, but only 0 to "
                             f"{FIRST_TRAINING_SEED - 1} are held out, the others are trained on: choose from those.")
        if min(self.height, self.width) < _SMALLEST:
            raise ValueError(f"Pictures of {self.width}x{self.height} are too small to measure: give --size "
                             f"{_SMALLEST}x{_SMALLEST} or more.")

    @property
    def family(self) -> Family:
        """The family of the tasks."""
        return self.tasks[0].family

    def on(self, family: Family) -> Plan:
        """The same plan for a variant of its family."""
        return replace(self, tasks=tuple(replace(task, family=family) for task in self.tasks))

    def noise_seed(self, shot: int) -> int:
        """The seed of a shot's noise; with `seed` 0 the shot's own. No two pairs of them share one."""
        return self.seed * FIRST_TRAINING_SEED + shot


@dataclass(frozen=True)
class Texts:
    """What the model reads, [1, W, E] each: the empty prompt, and for tasks trained with text the shots' captions by
    seed, and what to steer away from with what strength. A shot without a caption gets the empty prompt."""

    empty: Tensor
    captions: dict[int, Tensor] = field(default_factory=dict)
    negative: Tensor | None = None
    guidance: float = 1.0

    def of(self, task: Task, seed: int) -> tuple[Tensor, Tensor | None, float]:
        """Positive, negative and guidance of a task on a shot."""
        if task.uses_text and seed in self.captions:
            return self.captions[seed], self.negative, self.guidance
        return self.empty, None, 1.0  # the empty prompt is never guided: `joint.sampling.effective_guidance`


@dataclass(frozen=True)
class Result:
    """One task on one shot. `layers` and `truth` are whole sets [F, H, W, 3] in 0..1, in `layers` what was given is as
    given. `numbers` are those of the "model" and of its stand-ins."""

    seed: int
    task: Task
    layers: Layers
    truth: Layers
    numbers: dict[str, Numbers]


def check_packages() -> None:
    """Raise ImportError, saying what to install, where the metrics would: better before the sampling than after."""
    skimage("metrics")


def evaluate(engine: Engine, vae: WanVae, plan: Plan, texts: Texts,
             on_step: Callable[[], None] = lambda: None) -> Iterator[Result]:
    """Measure every task of the plan on every shot, shot by shot; `on_step` is called after each sampling step.

    Latents take the texts' device and dtype. Raises ValueError where a layer that the model made has NaN in it.
    """
    family, fit = plan.family, Fit(plan.frames, plan.height, plan.width)
    targets = [layer for layer in family.layers if any(layer in task.targets for task in plan.tasks)]
    for seed in plan.seeds:
        truth = synthetic_example(family, seed, plan.frames, plan.height, plan.width).layers
        latents = torch.stack([vae.encode(fit.pad(encode(stream.encoding, truth[stream.name])))
                               for stream in family.streams])  # [M, C, T, h, w]
        constant = {layer: _finish(family, layer, truth[layer].mean((0, 1, 2), keepdim=True).expand_as(truth[layer]))
                    for layer in targets}
        through = _decode(vae, family, latents, fit, targets)
        measured = {"constant": _measure_layers(constant, truth), "vae": _measure_layers(through, truth)}
        for task in plan.tasks:
            made = _sample(engine, task, latents, texts.of(task, seed), plan.steps, plan.noise_seed(seed), on_step)
            sets = {"model": _decode(vae, family, made, fit, task.targets), "constant": constant, "vae": through}
            if task.conditions:
                first = truth[task.conditions[0]]
                sets["copy"] = {layer: _finish(family, layer, first) for layer in task.targets}
            numbers = {}
            for name, layers in sets.items():
                layers = {layer: layers[layer] for layer in task.targets}
                alone = measured[name] if name in measured else _measure_layers(layers, truth)
                numbers[name] = {key: number for key, number in alone.items() if key[0] in layers}
                numbers[name] |= measure_relations(task, truth | layers)
            numbers["truth"] = measure_relations(task, truth)
            yield Result(seed, task, truth | sets["model"], truth, numbers)


def _sample(engine: Engine, task: Task, latents: Tensor, text: tuple[Tensor, Tensor | None, float], steps: int,
            seed: int, on_step: Callable[[], None]) -> Tensor:
    """The latents [M, C, T, h, w] of a task given its conditions out of `latents`; the network never sees the rest."""
    positive, negative, guidance = text
    clean = torch.zeros_like(latents)
    given = [task.family.index(layer) for layer in task.conditions]
    clean[given] = latents[given]
    noise = initial_noise(task, tuple(latents.shape[2:]), latents.shape[1], seed)
    texts = Branches(positive if negative is None else torch.cat((positive, negative)))
    result = sample(engine, task, clean[None].to(positive), noise.to(positive), texts, guidance=guidance,
                    steps=steps, callback=lambda i, x: on_step())
    return result[0].float()


def _decode(vae: WanVae, family: Family, latents: Tensor, fit: Fit, layers: Iterable[str]) -> Layers:
    """The named layers of latents [M, C, T, h, w] as finished pictures."""
    return {layer: _finish(family, layer, fit.crop(vae.decode(latents[family.index(layer)]).cpu())) for layer in layers}


def _finish(family: Family, layer: str, images: Tensor) -> Tensor:
    return decode(family.streams[family.index(layer)].encoding, images)


def _measure_layers(layers: Layers, truth: Layers) -> Numbers:
    return {key: number for layer, images in layers.items()
            for key, number in measure_layer(layer, images, truth[layer]).items()}

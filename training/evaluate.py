"""How well a model makes the layers of shots it has never seen: synthetic shots of held-out seeds, exact truth.

Every number stands beside those of stand-ins for the model, made from the truth, since alone it says little:
  constant  one value for the whole shot: the truth's own mean, finished as the layer's encoding is (for normals the
            mean direction), or where a layer's code has one, that of nothing and nobody: `scores.BLANK`
  usual     one value for all shots: the same mean over shots that are trained on. What a model says that has learned
            what there is, and looks at nothing; for captions the most usual one (`caption_scores`)
  copy      a given layer taken for the target, the one most like a picture: of `_COPIED` the first that is given, or
            else the first given of the task; where nothing is given there is none
  vae       the truth through the VAE and back: what a perfect model would get
  truth     the truth itself, for relations alone: clipped to 0..1 as the network takes it, it does not fit perfectly
  shuffled  for captions, the true one of another shot
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor

from ..imaging.encodings.layers import decode, encode
from ..imaging.sizes.fit import Fit
from ..joint.sampling import Engine, initial_noise, sample, sample_text, sample_with_text
from ..joint.sampling import Texts as Branches
from ..joint.streams import Family, Task
from ..joint.text_flow import caption_solver, joint_solver, random_tokens, text_grid
from ..model_loaders.vae import WanVae
from ..model_loaders.vocabulary import Vocabulary
from .caption_scores import caption_numbers, constant_caption
from .metrics.checks import skimage
from .rendering.captions import caption
from .rendering.staging import stage
from .scores import BLANK, Layers, Numbers, measure_layer, measure_relations
from .shots import FIRST_TRAINING_SEED, Example, synthetic_example

_SMALLEST = 16  # pixels: SSIM's window is 11
_USUAL = 500  # shots, of which only the facts are needed: enough for what is most usual
_USUAL_PICTURES, _USUAL_SIZE = 32, 32  # shots, of one frame, and its pixels: their means move little with more
_COPIED = ("rgb", "bg", "fg")


@dataclass(frozen=True)
class Plan:
    """What to measure: tasks of one family, on the shots of `seeds` in a `framing` of `rendering.staging`, at a size,
    with so many sampling steps. `seed` chooses the noise: another one is another draw for every shot, the same one is
    the same for every model."""

    tasks: tuple[Task, ...]
    seeds: range
    frames: int
    height: int
    width: int
    steps: int
    seed: int = 0
    framing: str = "wide"

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
    """What the model reads, [1, W, E] each: what stands for no prompt; for tasks trained with text the shots' prompts,
    by seed, and what to steer away from with what strength; by stream the fixed prompts of those that have one. A shot
    without a prompt gets none."""

    empty: Tensor
    captions: dict[int, Tensor] = field(default_factory=dict)
    negative: Tensor | None = None
    guidance: float = 1.0
    own: dict[str, Tensor] = field(default_factory=dict)

    def of(self, task: Task, seed: int) -> tuple[Tensor, Tensor | None, float]:
        """Positive, negative and guidance of a task on a shot."""
        if task.uses_text and seed in self.captions:
            return self.captions[seed], self.negative, self.guidance
        return self.empty, None, 1.0  # the empty prompt is never guided: `joint.sampling.effective_guidance`


@dataclass(frozen=True)
class Result:
    """One task on one shot. `layers` and `truth` are all the layers that the shot has, [F, H, W, 3] in 0..1; in
    `layers` the task's targets are the model's. `texts` are those that the model made, with the true ones. `numbers`
    are those of the "model" and of its stand-ins."""

    seed: int
    task: Task
    layers: Layers
    truth: Layers
    numbers: dict[str, Numbers]
    texts: dict[str, tuple[str, str]] = field(default_factory=dict)


def check_packages() -> None:
    """Raise ImportError, saying what to install, where the metrics would: better before the sampling than after."""
    skimage("metrics")


def evaluate(engine: Engine, vae: WanVae, plan: Plan, texts: Texts, on_step: Callable[[], None] = lambda: None,
             words: Vocabulary | None = None) -> Iterator[Result]:
    """Measure every task of the plan on every shot, shot by shot; `on_step` is called after each sampling step.

    A task of which the shot lacks a layer is left out there: nobody has no skeleton. `words` are those of the family's
    text. Latents take the texts' device and dtype. Raises ValueError where a layer that the model made has NaN in it,
    and for a true caption that the model's text cannot hold.
    """
    family, fit = plan.family, Fit(plan.frames, plan.height, plan.width, plan.family.latents.cell)
    guess, usual = usual_caption(plan.framing) if family.texts else "", usual_layers(family, plan.framing)
    for seed in plan.seeds:
        example = synthetic_example(family, seed, plan.frames, plan.height, plan.width, plan.framing)
        truth = example.layers
        there = truth.keys() | example.texts.keys()
        tasks = [task for task in plan.tasks if {*task.conditions, *task.targets} <= there]
        targets = [layer for layer in truth if any(layer in task.targets for task in tasks)]
        latents = {layer: _encode(vae, family, layer, fit.pad(images)) for layer, images in truth.items()
                   if any(layer in task.conditions + task.targets for task in tasks)}
        stand_ins = {
            "constant": {layer: _constant(family, layer, truth[layer], truth[layer]) for layer in targets},
            "usual": {layer: _constant(family, layer, truth[layer], usual.get(layer)) for layer in targets},
            "vae": _decode(vae, family, latents, fit, targets),
        }
        measured = {name: _measure_layers(layers, example) for name, layers in stand_ins.items()}
        for task in tasks:
            drawn = _Sampling(engine, task, texts, words, plan, seed, on_step)
            made, said = drawn.run(latents, example.texts)
            pictures = [layer for layer in task.targets if layer in family.pictures]
            sets = {"model": _decode(vae, family, made, fit, pictures)} | stand_ins
            if given := [layer for layer in task.conditions if layer in truth]:
                copied = truth[next((layer for layer in _COPIED if layer in given), given[0])]
                sets["copy"] = {layer: _finish(family, layer, copied) for layer in pictures}
            numbers = {}
            for name, layers in sets.items():
                layers = {layer: layers[layer] for layer in pictures}
                alone = measured[name] if name in measured else _measure_layers(layers, example)
                numbers[name] = {key: number for key, number in alone.items() if key[0] in layers}
                numbers[name] |= measure_relations(task, truth | layers)
            numbers["truth"] = measure_relations(task, truth)
            for text in said:
                other = caption(stage(seed + 1, plan.framing).facts)
                for name, wording in {"model": said[text], "usual": guess, "shuffled": other}.items():
                    numbers.setdefault(name, {}).update(
                        caption_numbers(wording, example.texts[text], *example.exact[text]))
            yield Result(seed, task, truth | sets["model"], truth, numbers,
                         {text: (made_text, example.texts[text]) for text, made_text in said.items()})


@lru_cache(maxsize=1)
def usual_caption(framing: str) -> str:
    """The caption of what is most usual in the shots that are trained on."""
    return constant_caption(stage(FIRST_TRAINING_SEED + i, framing).facts for i in range(_USUAL))


@lru_cache(maxsize=8)
def usual_layers(family: Family, framing: str) -> Layers:
    """The mean [1, 1, 1, 3] of each layer over shots that are trained on; of those alone whose constant is a mean."""
    shots = [synthetic_example(family, FIRST_TRAINING_SEED + i, 1, _USUAL_SIZE, _USUAL_SIZE, framing).layers
             for i in range(_USUAL_PICTURES)]
    return {layer: torch.cat([shot[layer] for shot in shots]).mean((0, 1, 2), keepdim=True)
            for layer in family.pictures if layer not in BLANK}


@dataclass(frozen=True)
class _Sampling:
    """One task on the shot of one seed."""

    engine: Engine
    task: Task
    texts: Texts
    words: Vocabulary | None
    plan: Plan
    seed: int
    on_step: Callable[[], None]

    def run(self, latents: Layers, known: Mapping[str, str]) -> tuple[Layers, dict[str, str]]:
        """The latents [C, T, h, w] and the texts of the targets, given the conditions out of `latents` and `known`; the
        network never sees the rest."""
        task, family = self.task, self.task.family
        positive, negative, guidance = self.texts.of(task, self.seed)
        branches = Branches(positive if negative is None else torch.cat((positive, negative)), self.texts.own)
        some = next(iter(latents.values()))
        clean = torch.zeros(1, len(family.pictures), *some.shape)  # [1, P, C, T, h, w]
        for layer in set(task.conditions) & set(family.pictures):
            clean[0, family.pictures.index(layer)] = latents[layer]
        noise = initial_noise(task, tuple(some.shape[1:]), some.shape[0], self.plan.noise_seed(self.seed))
        clean, noise = clean.to(positive), noise.to(positive)
        made_texts = [text for text in family.texts if text in task.targets]
        callback = _ignoring_its_arguments(self.on_step)
        if not made_texts:
            result = sample(self.engine, task, clean, noise, branches, guidance=guidance, steps=self.plan.steps,
                            ids=self._given_ids(known), callback=callback)
            return self._layers(result), {}
        length, generator = family.stream(made_texts[0]).tokens.length, torch.Generator(positive.device)
        generator.manual_seed(self.plan.noise_seed(self.seed))
        ids = random_tokens(1, length, self.words.size, generator)
        if len(task.targets) > len(made_texts):
            solver = joint_solver(self.plan.steps, length, generator)
            result, ids = sample_with_text(self.engine, task, clean, noise, branches, ids, solver, guidance=guidance,
                                           callback=callback)
        else:
            grid = text_grid(self.plan.steps)
            solver = caption_solver(grid, length, generator)
            ids, result = sample_text(self.engine, task, clean, ids, branches, solver, grid, callback=callback), clean
        return self._layers(result), {made_texts[0]: self.words.decode(ids[0].tolist())}

    def _given_ids(self, known: Mapping[str, str]) -> Tensor | None:
        for text in self.task.family.texts:
            length = self.task.family.stream(text).tokens.length
            return torch.tensor([self.words.encode(known[text], length)], device=self.texts.empty.device)
        return None

    def _layers(self, result: Tensor) -> Layers:
        pictures = self.task.family.pictures
        return {layer: result[0, pictures.index(layer)].float() for layer in self.task.targets if layer in pictures}


def _ignoring_its_arguments(function: Callable[[], None]) -> Callable:
    return lambda *_: function()


def _encode(vae: WanVae, family: Family, layer: str, images: Tensor) -> Tensor:
    """Pictures as the family's latents [C, T, h, w]."""
    return vae.encode(encode(family.stream(layer).encoding, images), normalised=family.latents.normalised)


def _decode(vae: WanVae, family: Family, latents: Layers, fit: Fit, layers: Iterable[str]) -> Layers:
    """The named layers of latents [C, T, h, w] as finished pictures."""
    return {layer: _finish(family, layer, fit.crop(
        vae.decode(latents[layer], normalised=family.latents.normalised).cpu())) for layer in layers}


def _constant(family: Family, layer: str, truth: Tensor, images: Tensor | None) -> Tensor:
    """The mean of `images` everywhere, or nothing and nobody where the layer's code has that; shaped as the truth."""
    if layer in BLANK:
        return torch.full_like(truth, BLANK[layer])
    return _finish(family, layer, images.mean((0, 1, 2), keepdim=True).expand_as(truth))


def _finish(family: Family, layer: str, images: Tensor) -> Tensor:
    return decode(family.stream(layer).encoding, images)


def _measure_layers(layers: Layers, example: Example) -> Numbers:
    numbers = {}
    for layer, images in layers.items():
        numbers |= measure_layer(layer, images, example.layers[layer], example.exact.get(layer, ()))
    return numbers

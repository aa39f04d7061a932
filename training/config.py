"""What a training run is, as one TOML file: read, checked whole, and written beside the result."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import get_type_hints

from ..joint.families import WAN, get_family, parse_task, vary, with_size, with_text_length
from ..joint.streams import Family
from ..joint.variants import Variant
from .rendering.staging import FRAMINGS

CONFIG = "config.toml"  # what it is called beside the result


@dataclass(frozen=True)
class NewBackbone:
    """Sizes of a backbone to be made from scratch, in Wan's layout. dim is a multiple of 128, the width of a head."""

    dim: int = 128
    ffn_dim: int = 256
    layers: int = 2


@dataclass(frozen=True)
class Model:
    """What is trained, and from what.

    backbone: a Wan text-to-video file, or empty where `[new_backbone]` makes one. vae: the file whose latents the
    backbone knows. text_encoder: UMT5; without it every prompt is the empty one, whose embedding is then taken from
    beside `start`, or, for a new backbone, drawn. start: adapters or own parts to go on from, empty to begin anew.
    rank: of new adapters. train: "adapters", what the family adds to the backbone (UniVidX: its adapters, UnityVideo
    and Uni-ViGU: their streams' own parts), or "all", the backbone with it. UniVidX is published as the first, the
    others as the second.
    """

    vae: str
    backbone: str = ""
    text_encoder: str = ""
    start: str = ""
    rank: int = 32
    train: str = "adapters"


@dataclass(frozen=True)
class Data:
    """What is learned from: `clips`, a folder or a CSV of your own, or `synthetic` shots, of that many seeds.

    framing: of synthetic shots, "wide" or "close". shots: a folder of their renderings as `shot_folder` makes them,
    where those that are not there yet are put; empty renders without keeping. frames (4n + 1), height, width (multiples
    of 16) in pixels: what every clip is brought to. cache: the folder of the encoded clips, which several runs may
    share; empty for one inside the run's own.
    """

    clips: str = ""
    synthetic: int = 0
    framing: str = "wide"
    shots: str = ""
    frames: int = 21
    height: int = 480
    width: int = 640
    cache: str = ""


@dataclass(frozen=True)
class Text:
    """The text that a family's text stream learns, and the prompt beside it.

    vocabulary: a spiece.model, tokenizer.json or weight file that carries one; empty takes that of [model] start, or,
    for synthetic shots, one of all words of their captions. length: tokens, 0 for the family's; clips whose text is
    longer are left out. learn: the clip's "caption", or the "prompt" itself (the first stage of Uni-ViGU). drop: how
    often the prompt is left out of what the streams read (UnityVideo 0.1; Uni-ViGU 0.9, then 0.1 to 0.5).
    """

    vocabulary: str = ""
    length: int = 0
    learn: str = "caption"
    drop: float = 0.0


@dataclass(frozen=True)
class Stage:
    """A part of a run, `steps` long: `tasks` as the table [tasks], `learn` and `drop` as in [text]."""

    steps: int
    tasks: Mapping[str, float] = field(default_factory=dict)
    learn: str = "caption"
    drop: float = 0.0


@dataclass(frozen=True)
class Optimiser:
    """AdamW with a linear warm-up and a cosine from learning_rate to final_learning_rate. The defaults are published.

    steps: of the optimiser; each sees batch x accumulation clips on every process. clip_norm: gradients are scaled down
    to this norm, 0 leaves them. ema: decay of the running mean of the weights, which is what is saved for use; 0 for
    none, which saves the weights themselves. added_factor: what streams have of their own learns this much faster than
    the backbone (UnityVideo: 10); adapters do not.
    """

    steps: int
    batch: int = 1
    accumulation: int = 1
    learning_rate: float = 1e-4
    final_learning_rate: float = 1e-6
    warmup: int = 0
    weight_decay: float = 0.01
    clip_norm: float = 0.0
    ema: float = 0.0
    added_factor: float = 1.0


@dataclass(frozen=True)
class Run:
    """How it runs. Everything is counted in optimiser steps; 0 switches the pictures off.

    mixed_precision: "no" or "bf16". gradient_checkpointing: compute every block again on the way back, for memory.
    keep: how many checkpoints stay. picture_steps: sampling steps of a picture.
    """

    seed: int = 1
    mixed_precision: str = "no"
    gradient_checkpointing: bool = False
    log_every: int = 10
    save_every: int = 500
    keep: int = 2
    pictures_every: int = 500
    picture_steps: int = 20


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. `tasks` weighs the tasks that are drawn, by name; empty draws them as published. `stages` split a
    run; each then says for itself what would else stand in [tasks] and [text]."""

    family: str
    model: Model
    data: Data
    optimiser: Optimiser
    run: Run = field(default_factory=Run)
    variant: Variant = field(default_factory=Variant)
    new_backbone: NewBackbone | None = None
    text: Text = field(default_factory=Text)
    tasks: Mapping[str, float] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """The stages, or the whole run as one."""
        return self.stages or (Stage(self.optimiser.steps, self.tasks, self.text.learn, self.text.drop),)

    def stage(self, step: int) -> Stage:
        """What is learned in step 0, 1, ...; the last stage has no end."""
        ends = accumulate(stage.steps for stage in self.all_stages)
        return next((stage for stage, end in zip(self.all_stages, ends) if step < end), self.all_stages[-1])

    def resolve_family(self) -> Family:
        """The family in its variant, with the size and the length of texts that are trained. Raises ValueError."""
        family = vary(WAN if self.family == WAN.name else get_family(self.family), self.variant)
        family = with_size(family, self.data.frames, self.data.height, self.data.width)
        return with_text_length(family, self.text.length) if self.text.length else family

    def check(self) -> None:
        """Raise ValueError, in one sentence, for the first value that cannot be."""
        family = self.resolve_family()
        self._check_stages(family)
        _one_of("[model] train", self.model.train, ("adapters", "all"))
        if family.name == WAN.name and self.model.train != "all":
            raise ValueError('The wan family adds nothing to its backbone that could learn: set train = "all".')
        _one_of("[data] framing", self.data.framing, FRAMINGS)
        _one_of("[run] mixed_precision", self.run.mixed_precision, ("no", "bf16"))
        if bool(self.model.backbone) == (self.new_backbone is not None):
            raise ValueError("Give either [model] backbone, a Wan file, or a table [new_backbone] with its sizes.")
        if self.new_backbone is not None:
            if self.model.train != "all":
                raise ValueError('A [new_backbone] knows nothing yet, so it has to learn, too: set train = "all".')
            if self.new_backbone.dim % 128:
                raise ValueError(f"[new_backbone] dim is {self.new_backbone.dim}, but a multiple of 128 is needed.")
        if self.variant.joint == "channel_concat" and self.new_backbone is None:
            raise ValueError('joint = "channel_concat" has other projections than a published backbone: '
                             "give a table [new_backbone].")
        if bool(self.data.clips) == bool(self.data.synthetic):
            raise ValueError("Give either [data] clips, a folder or CSV, or [data] synthetic, a number of shots.")
        for table, names, least in (
            (self.optimiser, ("steps", "batch", "accumulation"), 1),
            (self.optimiser, ("learning_rate", "final_learning_rate", "warmup", "weight_decay", "clip_norm", "ema"), 0),
            (self.optimiser, ("added_factor",), 0), (self.text, ("length",), 0),
            (self.model, ("rank",), 1), (self.data, ("synthetic", ), 0),
            (self.run, ("log_every", "save_every", "keep", "picture_steps"), 1),
            (self.run, ("seed", "pictures_every"), 0),
            *([(self.new_backbone, ("dim", "ffn_dim", "layers"), 1)] if self.new_backbone else []),
        ):
            for name in names:
                value = getattr(table, name)
                if not least <= value < float("inf"):
                    raise ValueError(f"{name} is {value:g}, but at least {least} is needed.")
        if self.optimiser.ema >= 1:
            raise ValueError(f"ema is {self.optimiser.ema:g}, but a decay below 1 is needed, such as 0.999.")

    def _check_stages(self, family: Family) -> None:
        if self.stages and (self.tasks or (self.text.learn, self.text.drop) != (Text().learn, Text().drop)):
            raise ValueError("[[stages]] say for themselves what is learned: move [tasks] and [text] learn and drop "
                             "into them.")
        if self.stages and sum(stage.steps for stage in self.stages) != self.optimiser.steps:
            raise ValueError(f"The [[stages]] have {sum(stage.steps for stage in self.stages)} steps and [optimiser] "
                             f"{self.optimiser.steps}: they must add up.")
        for stage in self.all_stages:
            for name, weight in stage.tasks.items():
                parse_task(family, name)
                if weight <= 0:
                    raise ValueError(f"[tasks] {name} is {weight:g}, but weights are above 0; leave out what is "
                                     "unwanted.")
            _one_of("[text] learn", stage.learn, ("caption", "prompt"))
            if not 0 <= stage.drop <= 1:
                raise ValueError(f"[text] drop is {stage.drop:g}, but 0 to 1 is needed.")
            if self.stages and stage.steps < 1:
                raise ValueError(f"A stage of {stage.steps} steps was asked for, but at least 1 is needed.")
        if not family.texts and self.text != Text(drop=self.text.drop):
            raise ValueError(f"The {family.name} family makes no text: leave vocabulary, length and learn out of "
                             "[text].")


def read_config(path: str | Path, folder: str | Path | None = None) -> TrainConfig:
    """Read and check a TOML file. Relative paths in it count from `folder`, by default the file's.

    Raises FileNotFoundError, or ValueError in one sentence: no TOML, an unknown or missing name, a wrong type or value.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no training config '{path}'.")
    toml = _toml_reader()
    try:
        tables = toml.loads(path.read_text(encoding="utf-8-sig"))  # -sig: Notepad's own mark at the start
    except (toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path.name}' is no TOML file ({error}).") from None
    try:
        config = _build(TrainConfig, tables, "")
        config.check()
    except ValueError as error:
        raise ValueError(f"'{path.name}': {error}") from None
    return _anchored(config, path.parent if folder is None else Path(folder))


def config_text(config: TrainConfig) -> str:
    """The whole config as TOML, defaults included, so that it says everything that decides the result."""
    import tomli_w

    return tomli_w.dumps({name: value for name, value in asdict(config).items() if value not in (None, {}, ())})


def _toml_reader():
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    import tomli  # the same, for Python 3.10

    return tomli


def _build(kind: type, values: object, where: str):
    """A dataclass from a TOML table, its types checked; `where` names the table in errors."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {values!r}, but a table [{where}] is needed.")
    known = {f.name: f for f in fields(kind)}
    hints = get_type_hints(kind)
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}" if near else f"there are {', '.join(known)}"
            raise ValueError(f"[{where or 'top'}] has no {name!r}: {hint}.")
    made = {}
    for name, spec in known.items():
        if name not in values:
            if spec.default is MISSING and spec.default_factory is MISSING:
                raise ValueError(f"{name} is missing in [{where or 'top'}].")
            continue
        made[name] = _value(hints[name], values[name], f"{where}.{name}".strip("."))
    return kind(**made)


def _value(hint, value, where: str):
    for table in (Model, Data, Optimiser, Run, Variant, NewBackbone, Text):
        if hint in (table, table | None):
            return _build(table, value, where)
    if hint == tuple[Stage, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{where} is {value!r}, but tables [[{where}]] are needed.")
        return tuple(_build(Stage, stage, where) for stage in value)
    if hint == Mapping[str, float]:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {value!r}, but a table of task = weight is needed.")
        return {name: _value(float, weight, f"{where}.{name}") for name, weight in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{where} is {value!r}, but {hint.__name__} is needed.")
    return value


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, but one of {', '.join(allowed)} is needed.")


def _anchored(config: TrainConfig, folder: Path) -> TrainConfig:
    """The same with its paths absolute, so that the saved config still names them from another folder."""
    def full(path: str) -> str:
        return str((folder / Path(path).expanduser()).resolve()) if path else ""

    m, d, t = config.model, config.data, config.text
    return replace(config, model=replace(m, vae=full(m.vae), backbone=full(m.backbone), start=full(m.start),
                                         text_encoder=full(m.text_encoder)),
                   data=replace(d, clips=full(d.clips), shots=full(d.shots), cache=full(d.cache)),
                   text=replace(t, vocabulary=full(t.vocabulary)))

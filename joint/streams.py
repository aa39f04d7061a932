"""What a family of layers is: streams, roles, tasks and the flow that joins them, as frozen data.

A *stream* is the tokens of one layer, or of a caption. A *task* gives every stream a role. Everything in which the
published systems differ is a field here or a table in `families.py`; the forward never looks at a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .variants import Variant


class Role(Enum):
    """What happens to a stream in a task."""

    TARGET = "generated"
    CONDITION = "given"
    ABSENT = "absent"


@dataclass(frozen=True)
class Own:
    """The parts that a stream has of its own, each by its name in `experts.Experts`; streams that name the same part
    share it. None takes the backbone's, or, where the backbone has no such part, goes without.

    `embedding`: from latents or token ids to the network's width. `identity`: a vector added after it. `time`: the
    network from a time to its embedding and six modulation rows. `modulation`: a vector added to the embedding of the
    time before it becomes those rows. `ffn`: the feed-forward networks of all blocks. `head`: back to latents, or to a
    logit for every token of the vocabulary.
    """

    embedding: str | None = None
    identity: str | None = None
    time: str | None = None
    modulation: str | None = None
    ffn: str | None = None
    head: str | None = None


@dataclass(frozen=True)
class TokenSpec:
    """Text as token ids, made by discrete flow matching (Gat et al., arXiv 2407.15595): mixture path, uniform source.

    `length`: tokens of a text that is generated. `steps`: the published number of its sampler."""

    length: int = 256
    steps: int = 100


@dataclass(frozen=True)
class StreamSpec:
    """One layer as the network knows it.

    `letter` names it in tasks. `adapter` is the checkpoint's name of the gated LoRA on its self-attention projections,
    None where the published model runs the bare backbone. `encoding` is the pixel treatment in
    `imaging.encodings.layers`, None for text. `columns` shifts its positions by that many of its own widths to the
    right. `own` are its own parts.
    `prompt` is the fixed text that it reads, None where it reads the user's. `tokens` says that it is text.
    """

    name: str
    letter: str
    adapter: str | None = None
    encoding: str | None = "colour"
    columns: int = 0
    own: Own = Own()
    prompt: str | None = None
    tokens: TokenSpec | None = None


@dataclass(frozen=True)
class FlowSpec:
    """The continuous flow of a family: schedule, and what a CONDITION stream looks like to the network.

    `shift` bends the schedule towards noise; `steps` is the published number. A CONDITION sits at sigma number
    `condition_index` of the `training_steps`-step schedule, never quite at 0; None is exactly 0. `condition_noise` says
    whose noise fills that little: "first" (the published inference: every condition takes the first stream's initial
    noise) or "own" (as in the published training). `condition_time` is the time that the network is told of it: its
    "own", or that of the "targets". `round_time` is the dtype through which times pass before the network sees them
    (the published training and inference both round to bfloat16), None for exact times. `training_shift` bends the
    schedule of the training, None as `shift`. `training_times`: levels of that schedule, drawn "uniform" or, as the
    sigmoid of a normal number, "logit_normal"; `weighting`: how much a level counts, by a "bell" or the "same".
    """

    shift: float = 5.0
    steps: int = 50
    training_steps: int = 1000
    condition_index: int | None = 999
    condition_noise: str = "first"
    condition_time: str = "own"
    round_time: str | None = "bfloat16"
    training_shift: float | None = None
    training_times: str = "uniform"
    weighting: str = "bell"


@dataclass(frozen=True)
class LatentSpec:
    """The latents of a family's pictures: those of the Wan 2.1 VAE, or of Wan 2.2's with 48 channels and cells of 16
    pixels. `normalised`: brought to mean 0 and deviation 1 by the VAE's own table, or raw as the VAE makes them."""

    channels: int = 16
    cell: int = 8
    normalised: bool = True

    @property
    def vae(self) -> str:
        """The name of the VAE's usual file."""
        return "wan_2.1_vae.safetensors" if self.channels == 16 else "wan2.2_vae.safetensors"


@dataclass(frozen=True)
class TextSpec:
    """How a family's prompts are embedded by UMT5, as keyword arguments of `model_loaders.text.encode_prompts`.

    `share_first_bias`: every block uses the first one's relative positions (UMT5's weights in a T5 encoder).
    `zero_padding`: rows past the prompt's length are 0. `clean`: the prompt passes Wan's text cleaning."""

    share_first_bias: bool = False
    zero_padding: bool = True
    clean: bool = True


@dataclass(frozen=True)
class Task:
    """A role for every stream of a family, in stream order. `str(task)` is the published name, such as R2AIN."""

    family: Family
    roles: tuple[Role, ...]

    def __str__(self) -> str:
        def letters(role: Role) -> str:
            return "".join(s.letter for s, r in zip(self.family.streams, self.roles) if r is role)

        return f"{letters(Role.CONDITION) or 't'}2{letters(Role.TARGET)}"

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the layers that are given."""
        return self._names(Role.CONDITION)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the layers that are generated."""
        return self._names(Role.TARGET)

    @property
    def uses_text(self) -> bool:
        """Whether this task was trained with a prompt; the others were trained with the empty one."""
        return self.family.text_tasks is None or str(self) in self.family.text_tasks

    def _names(self, role: Role) -> tuple[str, ...]:
        return tuple(s.name for s, r in zip(self.family.streams, self.roles) if r is role)


@dataclass(frozen=True)
class Family:
    """What one checkpoint knows.

    `streams` in row order. `present`: how many of them take part in a task, the first always among them; None is all.
    `file_adapters` are the adapters that its file holds, in creation order. `ffn_adapter` is the one whose feed-forward
    LoRA acts on every row, conditions included, None where each stream's own acts with its attention LoRA. `text_tasks`
    names the tasks trained with a prompt, None is all. `no_prompt`: what a task without a prompt reads, the embedding
    of the "empty" prompt or "zeros". `task_weights`: how often its training draws each task, none where all alike.
    `frames`, `height`, `width` (pixels) and `rate` (frames per second) are the published defaults, `guidance` the
    published CFG scale for a prompt that is not empty, `negative_prompt` the published one. `latents` and `text` say
    how pictures and prompts are brought to the network. `variant` is how it departs from what is published;
    `families.vary` sets it with all that follows from it.
    """

    name: str
    title: str
    backbone: str
    streams: tuple[StreamSpec, ...]
    flow: FlowSpec
    text_tasks: frozenset[str] | None
    guidance: float
    height: int
    width: int
    frames: int
    rate: int
    negative_prompt: str
    file_adapters: tuple[str, ...] = ()
    ffn_adapter: str | None = None
    present: int | None = None
    no_prompt: str = "empty"
    task_weights: tuple[tuple[str, float], ...] = ()
    latents: LatentSpec = LatentSpec()
    text: TextSpec = TextSpec()
    variant: Variant = Variant()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the streams in row order."""
        return tuple(s.name for s in self.streams)

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the streams that are pictures, in row order."""
        return tuple(s.name for s in self.streams if s.tokens is None)

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the streams that are text, in row order."""
        return tuple(s.name for s in self.streams if s.tokens is not None)

    def index(self, layer: str) -> int:
        """Row of a layer. Raises ValueError naming the layers there are."""
        if layer not in self.layers:
            raise ValueError(f"The {self.name} family has no layer '{layer}'; its layers are {', '.join(self.layers)}.")
        return self.layers.index(layer)

    def stream(self, layer: str) -> StreamSpec:
        """The stream of a layer. Raises ValueError naming the layers there are."""
        return self.streams[self.index(layer)]

    def task(self, targets, given=None) -> Task:
        """The task that generates the layers named in `targets` from those in `given`, by default all others.

        Raises ValueError for an unknown layer, one that stands on both sides, a number of layers that the family does
        not join, and when nothing is left to generate."""
        made = {self.index(name) for name in targets}
        if not made:
            raise ValueError(f"Every layer of the {self.name} family is given, so nothing is left to generate: "
                             "leave at least one layer out.")
        rows = set(range(len(self.streams)))
        held = rows - made if given is None else {self.index(name) for name in given}
        if both := made & held:
            raise ValueError(f"{self.streams[min(both)].name} is to be given and generated at once: choose one.")
        self.check_present(made | held)
        return Task(self, tuple(
            Role.TARGET if i in made else Role.CONDITION if i in held else Role.ABSENT for i in sorted(rows)))

    def check_present(self, rows: set[int]) -> None:
        """Raise ValueError unless a task may have these streams and no others."""
        names = ", ".join(self.streams[i].name for i in sorted(rows))
        if self.present is None:
            if len(rows) < len(self.streams):
                lacking = ", ".join(name for i, name in enumerate(self.layers) if i not in rows)
                raise ValueError(f"A task of the {self.name} family has all its layers, but {lacking} is missing.")
        elif 0 not in rows or not 2 <= len(rows) <= self.present:
            most = "one other" if self.present == 2 else f"one to {self.present - 1} others"
            raise ValueError(f"The {self.name} family joins {self.streams[0].name} with {most} "
                             f"({', '.join(self.layers[1:])}), but {names} were asked for.")

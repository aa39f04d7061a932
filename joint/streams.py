"""What a family of layers is: streams, roles, tasks and the flow that joins them, as frozen data.

A *stream* is the tokens of one layer. A *task* gives every stream a role. Everything in which the published systems
differ is a field here or a table in `families.py`; the forward never looks at a name. A field stands here only once the
forward reads it: a stream's own projections, identity vector, modulation row or text tokens join `StreamSpec` as data
when a family first needs them, and `transformer.joint_forward` already treats a request as a list of segments.
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
class StreamSpec:
    """One layer as the network knows it.

    `letter` names it in tasks. `adapter` is the checkpoint's name of the gated LoRA on its self-attention projections,
    None where the published model runs the bare backbone. `encoding` is the pixel treatment in `imaging.layers`.
    `rope_offset` shifts its positions by (frames, rows, columns) of tokens.
    """

    name: str
    letter: str
    adapter: str | None
    encoding: str = "colour"
    rope_offset: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class FlowSpec:
    """The continuous flow of a family: schedule, and what a CONDITION stream looks like to the network.

    `shift` bends the schedule towards noise; `steps` is the published number. A CONDITION sits at sigma number
    `condition_index` of the `training_steps`-step schedule, never quite at 0. `condition_noise` says whose noise fills
    that little: "first" (the published inference: every condition takes the first stream's initial noise) or "own" (as
    in the published training). `round_time` is the dtype through which times pass before the network sees them
    (the published training and inference both round to bfloat16), None for exact times.
    """

    shift: float = 5.0
    steps: int = 50
    training_steps: int = 1000
    condition_index: int = 999
    condition_noise: str = "first"
    round_time: str | None = "bfloat16"


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
        return str(self) in self.family.text_tasks

    def _names(self, role: Role) -> tuple[str, ...]:
        return tuple(s.name for s, r in zip(self.family.streams, self.roles) if r is role)


@dataclass(frozen=True)
class Family:
    """What one checkpoint knows.

    `streams` in row order. `file_adapters` are the adapters that its file holds, in creation order. `ffn_adapter` is
    the one whose feed-forward LoRA acts on every row, conditions included, None where each stream's own acts with its
    attention LoRA. `text_tasks` names the tasks trained with a prompt. `frames`, `height`, `width` (pixels) and `rate`
    (frames per second) are the published defaults, `guidance` the published CFG scale for a prompt that is not empty,
    `negative_prompt` the published one. `variant` is how it departs from what is published; `families.vary` sets it
    with all that follows from it.
    """

    name: str
    title: str
    streams: tuple[StreamSpec, ...]
    flow: FlowSpec
    file_adapters: tuple[str, ...]
    ffn_adapter: str | None
    text_tasks: frozenset[str]
    guidance: float
    height: int
    width: int
    frames: int
    rate: int
    negative_prompt: str
    variant: Variant = Variant()

    @property
    def layers(self) -> tuple[str, ...]:
        """Layer names in row order."""
        return tuple(s.name for s in self.streams)

    def index(self, layer: str) -> int:
        """Row of a layer. Raises ValueError naming the layers there are."""
        if layer not in self.layers:
            raise ValueError(f"The {self.name} family has no layer '{layer}'; its layers are {', '.join(self.layers)}.")
        return self.layers.index(layer)

    def task(self, targets) -> Task:
        """The task that generates the layers named in `targets` and is given all others.

        Raises ValueError for an unknown layer or when nothing is left to generate."""
        rows = {self.index(name) for name in targets}
        if not rows:
            raise ValueError(f"Every layer of the {self.name} family is given, so nothing is left to generate: "
                             "leave at least one layer out.")
        return Task(self, tuple(Role.TARGET if i in rows else Role.CONDITION for i in range(len(self.streams))))

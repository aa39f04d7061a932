"""The published systems as data, and task names in and out.

UniVidX (github houyuanchen111/UniVidX, Apache-2.0): Wan2.1-T2V-14B with gated LoRA, two checkpoints of 4 layers each.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from itertools import combinations

from .streams import Family, FlowSpec, Role, StreamSpec, Task
from .variants import SHARED, Variant

# Wan 2.1's stock negative prompt, which the published scripts use: over-exposed, static, blurred, subtitles, ...
WAN_NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，"
    "画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)

INTRINSIC = Family(
    name="intrinsic",
    title="UniVidX intrinsic: rgb, albedo, irradiance, normal",
    streams=(
        StreamSpec("rgb", "R", "rgb"),
        StreamSpec("albedo", "A", "albedo"),
        StreamSpec("irradiance", "I", "irradiance"),
        StreamSpec("normal", "N", "normal", encoding="normal"),
    ),
    flow=FlowSpec(),
    file_adapters=("rgb", "albedo", "irradiance", "normal"),
    # The authors' code calls the feed-forward network un-routed, so the adapter injected last acts on every row.
    ffn_adapter="normal",
    text_tasks=frozenset({"t2RAIN", "A2RIN", "I2RAN", "N2RAI", "AI2RN", "AN2RI", "IN2RA"}),
    guidance=5.0,
    height=480,
    width=640,
    frames=21,
    rate=15,
    negative_prompt=WAN_NEGATIVE_PROMPT,
)

ALPHA = Family(
    name="alpha",
    title="UniVidX alpha: rgb (the blended plate), alpha, fg, bg",
    streams=(
        # The file holds an adapter "com" for the plate, but the authors' code asks for "rgb", which does not exist:
        # the plate runs on the bare backbone, as a target too.
        StreamSpec("rgb", "R", None),
        StreamSpec("alpha", "P", "pha", encoding="mask"),
        StreamSpec("fg", "F", "fgr"),
        StreamSpec("bg", "B", "bgr"),
    ),
    flow=FlowSpec(),
    file_adapters=("com", "pha", "fgr", "bgr"),
    ffn_adapter="bgr",
    text_tasks=frozenset({"t2RPFB", "P2RFB", "F2RPB", "B2RPF", "PF2RB", "PB2RF"}),
    guidance=1.0,
    height=432,
    width=768,
    frames=21,
    rate=15,
    negative_prompt=WAN_NEGATIVE_PROMPT,
)

FAMILIES: dict[str, Family] = {family.name: family for family in (INTRINSIC, ALPHA)}


def vary(family: Family, variant: Variant) -> Family:
    """A published family as this variant. Raises ValueError for a family that is a variant already."""
    if family.variant != Variant():
        raise ValueError(f"The {family.name} family is a variant already ({family.variant}): vary the published one.")
    if variant.adapters == "shared":
        family = replace(family, streams=tuple(replace(stream, adapter=SHARED) for stream in family.streams),
                         file_adapters=(SHARED,), ffn_adapter=SHARED)
    if variant.ffn == "per_stream":
        family = replace(family, ffn_adapter=None)
    return replace(family, variant=variant)


def get_family(name: str) -> Family:
    """The family called `name`. Raises ValueError naming the families there are."""
    if name not in FAMILIES:
        raise ValueError(f"There is no family '{name}'; the families are {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def tasks(family: Family) -> tuple[Task, ...]:
    """Every task of a family with all its streams present: 2^M - 1 of them, fewest conditions first, in row order."""
    rows = range(len(family.streams))
    return tuple(
        Task(family, tuple(Role.CONDITION if i in given else Role.TARGET for i in rows))
        for n in range(len(family.streams))
        for given in combinations(rows, n)
    )


def parse_task(family: Family, name: str) -> Task:
    """The task written `name`: conditions, "2", targets, letters in any order and case; "t" stands for no condition.

    Every letter of the family must stand on one side. Raises ValueError with the nearest right names otherwise.
    """
    given, two, made = name.strip().upper().partition("2")
    given = given.removeprefix("T")
    letters = [s.letter for s in family.streams]
    if two and made and sorted(given + made) == sorted(letters):
        return Task(family, tuple(Role.CONDITION if x in given else Role.TARGET for x in letters))

    def likeness(candidate: str) -> tuple[int, float]:
        """Letters that stand on the right side, then likeness as text."""
        right_given, _, right_made = candidate.partition("2")
        return (sum(x in right_given for x in given) + sum(x in right_made for x in made),
                difflib.SequenceMatcher(None, name.lower(), candidate.lower()).ratio())

    nearest = sorted(map(str, tasks(family)), key=likeness, reverse=True)[:3]
    key = ", ".join(f"{s.letter} {s.name}" for s in family.streams)
    raise ValueError(f"'{name}' is no task of the {family.name} family ({key}; each on one side of the 2); "
                     f"the nearest are {', '.join(nearest)}.")

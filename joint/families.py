"""The published systems as data, and task names in and out.

UniVidX (github houyuanchen111/UniVidX, Apache-2.0): Wan2.1-T2V-14B with gated LoRA, two checkpoints of 4 layers each.
UnityVideo (github dvlab-research/UnityVideo, MIT): Wan2.2-TI2V-5B trained whole, rgb with one of five other layers.
Uni-ViGU (github Fr0zenCrane/Uni-ViGU): Wan2.1-T2V-1.3B trained whole, with a caption of token ids.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from itertools import combinations

from .streams import Family, FlowSpec, LatentSpec, Own, Role, StreamSpec, Task, TextSpec, TokenSpec
from .variants import ADAPTER_CHOICES, PRESENCE_CHOICES, SHARED, Variant

# Wan 2.1's stock negative prompt, which the published scripts use: over-exposed, static, blurred, subtitles, ...
WAN_NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，"
    "画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)

INTRINSIC = Family(
    name="intrinsic",
    title="UniVidX intrinsic: rgb, albedo, irradiance, normal",
    backbone="Wan2.1-T2V-14B",
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
    backbone="Wan2.1-T2V-14B",
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



def _world_layer(name: str, letter: str, prompt: str) -> StreamSpec:
    """A layer beside UnityVideo's rgb: all five share projections and head, and each has its vector and sentence."""
    return StreamSpec(name, letter, encoding=name, columns=1, prompt=prompt,
                      own=Own(embedding="layer", identity=name, head="layer"))


# How often the release trains a layer (of 1.4), and how often it makes rgb and layer, the layer, or rgb.
_LAYER_WEIGHTS = {"D": 0.2, "F": 0.2, "P": 0.2, "K": 0.4, "S": 0.4}
_DIRECTION_WEIGHTS = {"t2R{}": 0.5, "R2{}": 0.25, "{}2R": 0.25}

UNITY = Family(
    name="unity",
    title="UnityVideo: rgb with depth, flow, densepose, skeleton or segmentation",
    backbone="Wan2.2-TI2V-5B",
    streams=(
        StreamSpec("rgb", "R"),
        # The sentences are those of the training, to the letter.
        _world_layer("depth", "D", "depth map visualization, scene depth from camera, near in warm colors and far in "
                                   "cool colors."),
        _world_layer("flow", "F", "optical flow visualization showing motion direction with color and magnitude with "
                                  "intensity."),
        _world_layer("densepose", "P", "densepose visualization with body part UV coordinates."),
        _world_layer("skeleton", "K", "human skeleton pose visualization with body keypoints and limbs."),
        _world_layer("segmentation", "S", "segmentation mask of foreground objects against background."),
    ),
    flow=FlowSpec(shift=1.0, steps=20, condition_index=None, condition_time="targets", round_time=None,
                  training_shift=5.0, training_times="logit_normal", weighting="same"),
    text_tasks=None,
    guidance=1.0,
    height=256,
    width=256,
    frames=33,
    rate=8,
    negative_prompt=WAN_NEGATIVE_PROMPT,
    present=2,
    task_weights=tuple((direction.format(layer), often * share / 1.4)
                       for direction, share in _DIRECTION_WEIGHTS.items() for layer, often in _LAYER_WEIGHTS.items()),
    latents=LatentSpec(channels=48, cell=16),
)

VIGU = Family(
    name="vigu",
    title="Uni-ViGU: video with its caption",
    backbone="Wan2.1-T2V-1.3B",
    streams=(
        StreamSpec("rgb", "R"),
        StreamSpec("caption", "C", encoding=None, tokens=TokenSpec(),
                   own=Own(embedding="text", time="text", ffn="text", head="text")),
    ),
    flow=FlowSpec(shift=3.0, steps=100, condition_index=None, weighting="same"),
    text_tasks=frozenset({"C2R", "t2RC"}),
    guidance=5.0,
    height=480,
    width=832,
    frames=81,
    rate=16,
    negative_prompt="",
    # A caption without a hint reads zeros, guidance steers away from the empty prompt: two different nothings.
    no_prompt="zeros",
    task_weights=(("t2RC", 1.0),),
    latents=LatentSpec(normalised=False),
    text=TextSpec(share_first_bias=True, zero_padding=False, clean=False),
)

# Wan itself, rgb from a text: no published system of ours, but what a small backbone learns before it is frozen.
WAN = Family(
    name="wan",
    title="Wan: rgb from a text",
    backbone="Wan2.1-T2V-1.3B",
    streams=(StreamSpec("rgb", "R"),),
    flow=FlowSpec(),
    text_tasks=None,
    guidance=5.0,
    height=480,
    width=832,
    frames=81,
    rate=16,
    negative_prompt=WAN_NEGATIVE_PROMPT,
)

FAMILIES: dict[str, Family] = {family.name: family for family in (INTRINSIC, ALPHA, UNITY, VIGU)}


def vary(family: Family, variant: Variant) -> Family:
    """A published family as this variant. Raises ValueError for a family that is a variant already, and for choices
    that this family does not have."""
    if family.variant != Variant():
        raise ValueError(f"The {family.name} family is a variant already ({family.variant}): vary the published one.")
    unused = [name for name in family.file_adapters if name not in {stream.adapter for stream in family.streams}]
    choices = dict(ADAPTER_CHOICES if family.file_adapters else PRESENCE_CHOICES if family.present else {})
    if not unused:
        choices.pop("plate", None)
    for name in variant.changes():
        if name not in choices:
            raise ValueError(f"The {family.name} family has no {name} to choose"
                             + (f"; its choices are {', '.join(choices)}." if choices else "."))
    if variant.adapters == "shared":
        family = replace(family, streams=tuple(replace(stream, adapter=SHARED) for stream in family.streams),
                         file_adapters=(SHARED,), ffn_adapter=SHARED)
    if variant.plate == "own":
        family = replace(family, streams=tuple(
            replace(stream, adapter=stream.adapter or unused[0]) for stream in family.streams))
    if variant.ffn == "per_stream":
        family = replace(family, ffn_adapter=None)
    if variant.condition_time == "own":
        family = replace(family, flow=replace(family.flow, condition_time="own"))
    if variant.modulation == "per_stream":
        family = replace(family, streams=tuple(
            replace(stream, own=replace(stream.own, modulation=stream.name)) for stream in family.streams))
    if variant.together == "all":
        # Further layers lie further right, each as far from the one before it as the first from rgb.
        family = replace(family, present=len(family.streams), streams=tuple(
            replace(stream, columns=i) for i, stream in enumerate(family.streams)))
    if variant.sentences == "none":
        family = replace(family, streams=tuple(replace(stream, prompt=None) for stream in family.streams))
    if variant.latents == "wan2.1":
        family = replace(family, latents=LatentSpec(), backbone="Wan2.1-T2V-1.3B")
    return replace(family, variant=variant)


def with_text_length(family: Family, length: int) -> Family:
    """A family whose texts are of `length` tokens. Raises ValueError for less than one."""
    if length < 1:
        raise ValueError(f"A text of {length} tokens was asked for, but at least 1 is needed.")
    return replace(family, streams=tuple(
        replace(stream, tokens=replace(stream.tokens, length=length)) if stream.tokens else stream
        for stream in family.streams))


def with_size(family: Family, frames: int, height: int, width: int) -> Family:
    """A family that knows clips of so many frames of `height` x `width` pixels, which are its defaults then."""
    return replace(family, frames=frames, height=height, width=width)


def get_family(name: str) -> Family:
    """The family called `name`. Raises ValueError naming the families there are."""
    if name not in FAMILIES:
        raise ValueError(f"There is no family '{name}'; the families are {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def tasks(family: Family) -> tuple[Task, ...]:
    """The tasks of a family, fewest conditions first, in row order: all its streams in the 2^M - 1 ways in which at
    least one is generated; where not all are present, the first with each of the others in the three such ways."""
    rows = range(len(family.streams))
    sets = [tuple(rows)] if family.present is None else [(0, other) for other in rows[1:]]
    return tuple(
        Task(family, tuple(
            Role.CONDITION if i in given else Role.TARGET if i in present else Role.ABSENT for i in rows))
        for n in range(len(sets[0]))
        for present in sets
        for given in combinations(present, n)
    )


def parse_task(family: Family, name: str) -> Task:
    """The task written `name`: conditions, "2", targets, letters in any order and case; "t" stands for no condition.

    Every letter of the family stands on one side, or, where not all layers are present, those that are. Raises
    ValueError with the nearest right names otherwise.
    """
    given, two, made = name.strip().upper().partition("2")
    given = given.removeprefix("T")
    letters = [s.letter for s in family.streams]
    known = len(set(given + made)) == len(given + made) and set(given + made) <= set(letters)
    if two and made and known and (family.present is not None or len(given + made) == len(letters)):
        family.check_present({letters.index(x) for x in given + made})
        return Task(family, tuple(
            Role.CONDITION if x in given else Role.TARGET if x in made else Role.ABSENT for x in letters))

    def likeness(candidate: str) -> tuple[int, float]:
        """Letters that stand on the right side, then likeness as text."""
        right_given, _, right_made = candidate.partition("2")
        return (sum(x in right_given for x in given) + sum(x in right_made for x in made),
                difflib.SequenceMatcher(None, name.lower(), candidate.lower()).ratio())

    nearest = sorted(map(str, tasks(family)), key=likeness, reverse=True)[:3]
    key = ", ".join(f"{s.letter} {s.name}" for s in family.streams)
    which = "each" if family.present is None else "those that take part"
    raise ValueError(f"'{name}' is no task of the {family.name} family ({key}; {which} on one side of the 2); "
                     f"the nearest are {', '.join(nearest)}.")

"""Captions read back into facts and measured: known answers, stand-ins, and text that is no caption at all."""

import random
import time
from dataclasses import replace
from functools import cache

import pytest

from comfyui_strata.training import metrics
from comfyui_strata.training.caption_scores import (
    CAPTION_METRICS,
    caption_numbers,
    constant_caption,
)
from comfyui_strata.training.rendering.caption_facts import caption_facts
from comfyui_strata.training.rendering.captions import (
    VOCABULARY,
    Facts,
    LightFact,
    ObjectFact,
    caption,
    words,
)
from comfyui_strata.training.rendering.staging import stage
from comfyui_strata.training.shots import FIRST_TRAINING_SEED

exact = pytest.approx
FACTS = Facts(
    (ObjectFact(1, "person", "orange", "plain", "waves"), ObjectFact(2, "ball", "red", "striped", "bounces")),
    "room", "grey", "checkered", "white", (LightFact("lamp", "warm", True), LightFact("lamp", "blue", False)),
    "pans to the left",
)  # fmt: skip
TRUE = caption(FACTS)
NOTHING = Facts((), "", "", "", "", (), "")


def numbers(predicted: str, facts: Facts = FACTS) -> dict[str, float | None]:
    return {metric.name: number for (_, metric), number in caption_numbers(predicted, caption(facts), facts).items()}


def scores(predicted: str, facts: Facts = FACTS) -> dict[str, tuple[int, int, int]]:
    found = metrics.fact_scores(caption_facts(predicted), facts)
    return {name: (score.hits, score.said, score.true) for name, score in found.items()}


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_every_caption_is_read_back_exactly():
    for seed in range(400):
        facts = stage(seed).facts
        for some in (facts, facts.seen({2, 3}), facts.seen(set())):
            numbered = tuple(replace(each, id=i) for i, each in enumerate(some.objects, start=1))
            assert caption_facts(caption(some)) == replace(some, objects=numbered), caption(some)


@pytest.mark.parametrize(("text", "facts"), [
    ("", NOTHING),
    ("the camera", NOTHING),
    ("CAMERA SHAKES", replace(NOTHING, camera="shakes")),
    ("box", replace(NOTHING, objects=(ObjectFact(1, "box", "", "", ""),))),
    ("a red box a red box", replace(NOTHING, objects=(ObjectFact(1, "box", "red", "plain", ""),
                                                      ObjectFact(2, "box", "red", "plain", "")))),
    ("person with a striped", replace(NOTHING, objects=(ObjectFact(1, "person", "", "", ""),))),
    ("person with an orange shirt slides to the", replace(
        NOTHING, objects=(ObjectFact(1, "person", "orange", "plain", ""),))),
    ("sun moving warm lamp", replace(NOTHING, lights=(LightFact("sun", "", False), LightFact("lamp", "warm", True)))),
    ("in a field in a room with red ground blue ground", replace(
        NOTHING, place="field", ground="red", ground_texture="plain")),
    ("redbox boxes camera sinksx", NOTHING),
])
def test_broken_captions_keep_what_they_do_state(text, facts):
    assert caption_facts(text) == facts


# ---- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other", "error"), [
    ("kitten", "sitting", 3 / 7), ("", "", 0), ("", "abc", 1), ("abc", "", 1), ("abc", "abc", 0), ("ab", "ba", 1),
    ("flaw", "lawn", 2 / 4), ("aXbYc", "abc", 2 / 5),
])
def test_edit_error_by_hand(one, other, error):
    assert metrics.edit_error(one, other) == exact(error)
    assert metrics.edit_error(list(one), list(other)) == exact(error)


def test_edit_error_is_what_the_definition_says():
    @cache
    def slow(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    draw = random.Random(0)
    for _ in range(100):
        a, b = ("".join(draw.choices("xyz", k=draw.randrange(9))) for _ in range(2))
        assert metrics.edit_error(a, b) * max(len(a), len(b)) == exact(slow(a, b))


def test_exact_match_looks_at_words():
    assert metrics.exact_match(TRUE.upper().replace(".", ""), TRUE) == 100
    assert metrics.exact_match(TRUE.replace("red", "blue"), TRUE) == 0


# ---- facts -----------------------------------------------------------------------------------------------------------


def test_the_true_caption_has_every_fact():
    found = numbers(TRUE)
    assert {name for name, number in found.items() if number == 100} == set(found) - {"word edits", "character edits"}
    assert found["word edits"] == found["character edits"] == 0


def test_facts_by_hand():
    found = scores(
        "A red box spins and a blue person bounces and a striped red ball bounces in a room with a grey ground. "
        "A blue sun and a warm lamp light the scene. The camera pans to the right."
    )
    # Person and ball are taken for the true ones, the box is one too many.
    assert found == {
        "kind": (2, 3, 2), "colour": (1, 3, 2), "texture": (2, 3, 2), "motion": (1, 3, 2),
        "light": (1, 2, 2), "tint": (2, 2, 2), "moving": (1, 2, 2),
        "place": (1, 1, 1), "ground": (1, 1, 1), "ground_texture": (0, 1, 1), "wall": (0, 0, 1), "camera": (0, 1, 1),
        "all": (12, 22, 19),
    }  # fmt: skip


def test_kinds_come_before_colours_when_objects_are_matched():
    facts = replace(FACTS, objects=(ObjectFact(1, "ball", "red", "plain", "spins"),
                                    ObjectFact(2, "box", "blue", "plain", "spins")))
    found = scores("A blue ball spins and a red box spins in a room", facts)
    assert found["kind"] == (2, 2, 2) and found["colour"] == (0, 2, 2) and found["motion"] == (2, 2, 2)
    swapped = scores("A blue box spins and a red ball spins in a room", facts)
    assert swapped["colour"] == swapped["kind"] == (2, 2, 2)


def test_objects_are_a_multiset():
    two = replace(FACTS, objects=2 * (ObjectFact(1, "ball", "red", "plain", "spins"),))
    assert scores("a red ball spins", two)["kind"] == (1, 1, 2)
    assert scores("a red ball spins " * 3, two)["kind"] == (2, 3, 2)


def test_what_is_not_there_is_not_measured():
    field = stage(next(seed for seed in range(99) if stage(seed).facts.place == "field")).facts
    assert numbers(caption(field), field)["wall recall"] is None
    silent = numbers("")
    assert silent["fact precision"] is None and silent["fact recall"] == silent["fact F1"] == 0
    assert metrics.fact_scores(NOTHING, NOTHING)["all"].f1 is None


def test_a_caption_that_loses_words_gets_worse_by_every_measure():
    draw = random.Random(0)
    order = list(range(len(words(TRUE))))
    draw.shuffle(order)
    found = []
    for lost in (0, 6, 12, 24, len(order)):
        gone = set(order[:lost])
        found.append(numbers(" ".join("blah" if i in gone else word for i, word in enumerate(words(TRUE)))))
    for name, better in (("word edits", 1), ("character edits", 1), ("fact recall", -1), ("fact F1", -1)):
        series = [better * each[name] for each in found]
        assert series == sorted(series) and series[0] < series[2] < series[-1], name


# ---- stand-ins -------------------------------------------------------------------------------------------------------


def test_stand_ins_are_between_nothing_and_the_truth():
    typical = constant_caption(stage(FIRST_TRAINING_SEED + i).facts for i in range(200))
    facts = [stage(seed).facts for seed in range(60)]
    true = [caption(each) for each in facts]
    assert set(words(typical)) <= set(VOCABULARY) and caption(caption_facts(typical)) == typical

    def mean(captions) -> float:
        return sum(numbers(text, each)["fact F1"] for text, each in zip(captions, facts)) / len(facts)

    shuffled = true[1:] + true[:1]
    assert all(a != b for a, b in zip(shuffled, true))
    assert mean(true) == 100 and mean([""] * 60) == 0
    assert 20 < mean(shuffled) < mean([typical] * 60) < 60


def test_the_constant_caption_holds_what_is_most_usual():
    ball, box = ObjectFact(7, "ball", "red", "plain", "spins"), ObjectFact(3, "box", "blue", "striped", "stays still")
    sun, lamp = LightFact("sun", "warm", True), LightFact("lamp", "cool", False)
    shots = [
        Facts((ball, box), "room", "grey", "plain", "white", (lamp,), "rises"),
        Facts((box, replace(ball, colour="pink")), "field", "green", "plain", "", (sun,), "shakes"),
        Facts((ball,), "room", "grey", "marbled", "pink", (lamp, sun), "shakes"),
        Facts((ball, ball, ball), "studio", "black", "plain", "white", (lamp,), "sinks"),
    ]
    assert constant_caption(shots) == (
        "A red ball spins and a striped blue box stays still in a room with a grey ground and white walls. "
        "A cool lamp lights the scene. The camera shakes."
    )
    with pytest.raises(ValueError, match="of no shots; give the facts of some"):
        constant_caption([])


# ---- anything at all -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "", " ", ".,.,", "\x00\ud800\n\t", "Ünïcödé 🎬 猫 ١٢٣ \u202e", "ball " * 10_000, "moving " * 10_000,
    "a red ball spins in a room. " * 1500,
    " ".join(random.Random(0).choices(VOCABULARY, k=10_000)), "((((([a-z]+)*$" * 1000, "x" * 60_000,
], ids=["empty", "space", "stops", "control", "unicode", "balls", "moving", "again", "shuffled", "pattern", "long"])
def test_any_text_is_measured_in_no_time(text):
    start = time.process_time()
    found = numbers(text)
    assert time.process_time() - start < 5
    assert len(found) == len(CAPTION_METRICS) and found["exact match"] == 0
    for metric in CAPTION_METRICS:
        number = found[metric.name]
        assert number is None or 0 <= number <= (100 if metric.unit == "%" else 1), metric.name
    assert found["word edits"] > 0.5 and found["fact F1"] < 60

"""What is measured of a caption, and what to hold its numbers against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from functools import lru_cache, partial

from . import metrics
from .rendering.caption_facts import caption_facts
from .rendering.captions import Facts, LightFact, ObjectFact, caption, words
from .scores import Metric, Numbers, take

_SUBJECTS = {
    "kind": "object kind", "colour": "object colour", "texture": "object texture", "motion": "object motion",
    "light": "light kind", "tint": "light tint", "moving": "light motion", "place": "place", "ground": "ground",
    "ground_texture": "ground texture", "wall": "wall", "camera": "camera",
}  # fmt: skip


def _fact(subject: str, part: str, predicted: str, truth: str, facts: Facts) -> float:
    number = getattr(_scores(predicted, facts)[subject], part)
    if number is None:
        raise metrics.NothingToMeasure("The caption states nothing of that subject, or nothing of it is true.")
    return number


def _count(predicted: str, truth: str, facts: Facts) -> float:
    return 100.0 * (len(caption_facts(predicted).objects) == len(facts.objects))


@lru_cache(maxsize=1)  # every row of a caption asks for it
def _scores(predicted: str, facts: Facts) -> dict[str, metrics.Score]:
    return metrics.fact_scores(caption_facts(predicted), facts)


def _text(measure: Callable[..., float], split: Callable[[str], object], predicted: str, truth: str,
          facts: Facts) -> float:
    return measure(split(predicted), split(truth))


CAPTION_METRICS = (
    Metric("exact match", "%", "higher", partial(_text, metrics.exact_match, str)),
    Metric("word edits", "", "lower", partial(_text, metrics.edit_error, words)),
    Metric("character edits", "", "lower", partial(_text, metrics.edit_error, str)),
    Metric("object count", "%", "higher", _count),
    Metric("fact F1", "%", "higher", partial(_fact, "all", "f1")),
    *(Metric(f"{name} {part}", "%", "higher", partial(_fact, subject, part))
      for subject, name in {"all": "fact", **_SUBJECTS}.items() for part in ("precision", "recall")),
)


def caption_numbers(predicted: str, truth: str, facts: Facts) -> Numbers:
    """Every number of one caption, given the true one and the facts behind it (a Shot's, or what an Example holds as
    `exact["caption"]`). Any text is measured, also an empty one; None where there is nothing to measure."""
    return {("caption", metric): take(metric, predicted, truth, facts) for metric in CAPTION_METRICS}


def constant_caption(facts: Iterable[Facts]) -> str:
    """The best guess without looking: the caption of what is most usual among the facts of many shots.

    Hardly two synthetic captions are equal, so the most frequent of them would be one like any other. This one has the
    most frequent place and camera, what ground, walls and lights are most frequent in that place, and as many objects
    as are most frequent, of the most frequent kinds, each with what is most frequent of its kind. Ties go to what came
    first. Raises ValueError for no facts.
    """
    facts = list(facts)
    if not facts:
        raise ValueError("A constant caption was asked for of no shots; give the facts of some.")
    place = _usual(each.place for each in facts)
    there = [each for each in facts if each.place == place]  # a field has no walls, and a room no sun
    objects = _usual_things([each.objects for each in facts], ObjectFact)
    objects = tuple(replace(each, id=number) for number, each in enumerate(objects, start=1))
    ground, texture, wall = (_usual(getattr(each, name) for each in there)
                             for name in ("ground", "ground_texture", "wall"))
    lights = _usual_things([each.lights for each in there], LightFact)
    return caption(Facts(objects, place, ground, texture, wall, lights, _usual(each.camera for each in facts)))


def _usual(values: Iterable):
    return Counter(values).most_common(1)[0][0]


def _usual_things(sets: list[tuple], make: type) -> tuple:
    """As many things as most sets have, of the most frequent combination of kinds for that number."""
    count = _usual(map(len, sets))
    kinds = _usual(tuple(sorted(thing.kind for thing in each)) for each in sets if len(each) == count)
    things = []
    for kind in kinds:
        alike = [thing for each in sets for thing in each if thing.kind == kind]
        things.append(make(**{field.name: _usual(getattr(thing, field.name) for thing in alike)
                              for field in fields(make)}))
    return tuple(things)

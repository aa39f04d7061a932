"""Captions against the true one: as text, and as facts."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..rendering.captions import Facts, LightFact, ObjectFact, words
from .checks import best_pairs

_OBJECT_FACTS = ("kind", "colour", "texture", "motion")
_PLACE_FACTS = ("place", "ground", "ground_texture", "wall", "camera")


@dataclass(frozen=True)
class Score:
    """How many facts were stated, how many are true, and how many are both."""

    hits: int
    said: int
    true: int

    @property
    def precision(self) -> float | None:
        """The percentage of the stated facts that are true, 0..100, higher is better; None where none was stated."""
        return 100 * self.hits / self.said if self.said else None

    @property
    def recall(self) -> float | None:
        """The percentage of the true facts that were stated, 0..100, higher is better; None where there is none."""
        return 100 * self.hits / self.true if self.true else None

    @property
    def f1(self) -> float | None:
        """Their harmonic mean, 0..100, higher is better; None where no fact was stated and none is true."""
        return 200 * self.hits / (self.said + self.true) if self.said + self.true else None


def exact_match(predicted: str, truth: str) -> float:
    """100 if both texts have the same words in the same order, else 0; the mean over shots is a percentage. Higher is
    better. Case, spaces, commas and full stops do not count: see `rendering.captions.words`."""
    return 100.0 if words(predicted) == words(truth) else 0.0


def edit_error(predicted: Sequence[Hashable], truth: Sequence[Hashable]) -> float:
    """The Levenshtein distance (the fewest insertions, deletions and replacements that turn one into the other) over
    the length of the longer. No unit, 0 (equal, also when both are empty) to 1; lower is better.

    Give two lists of words, or two strings for characters. Source: Levenshtein 1966; over the longer, not over the
    truth as in the word error rate, so that a text that never ends costs 1 and not any number.
    """
    longer, shorter = (predicted, truth) if len(predicted) >= len(truth) else (truth, predicted)
    if not longer:
        return 0.0
    number = {symbol: i for i, symbol in enumerate({*longer, *shorter})}
    row = np.array([number[symbol] for symbol in longer])
    place = np.arange(len(row) + 1)
    cost = place  # of turning the symbols so far, here none, into each beginning of the longer
    for done, symbol in enumerate(shorter, start=1):
        best = np.minimum(cost[1:] + 1, cost[:-1] + (row != number[symbol]))
        # Insertions along the longer: cost[j] = min over i <= j of best[i] + (j - i).
        cost = place + np.minimum.accumulate(np.concatenate([[done], best]) - place)
    return int(cost[-1]) / len(longer)


def fact_scores(predicted: Facts, truth: Facts) -> dict[str, Score]:
    """What a caption states against what is true, by subject: "kind", "colour", "texture" and "motion" of objects,
    "light", "tint" and "moving" of lights, "place", "ground", "ground_texture", "wall" and "camera", and "all" of them
    together.

    predicted: as `rendering.caption_facts.caption_facts` reads it. Objects and lights are multisets: each stated one is
    taken for at most one true one, so that the most facts agree, the kinds first. An empty word states nothing. ids do
    not count.
    """
    objects = _paired(predicted.objects, truth.objects, _object_agreement)
    lights = _paired(predicted.lights, truth.lights, _light_agreement)
    scores = {name: _score(predicted.objects, truth.objects, objects, name) for name in _OBJECT_FACTS}
    scores |= {subject: _score(predicted.lights, truth.lights, lights, name)
               for subject, name in (("light", "kind"), ("tint", "tint"), ("moving", "moves"))}
    scores |= {name: _score((predicted,), (truth,), [(0, 0)], name) for name in _PLACE_FACTS}
    counts = [(score.hits, score.said, score.true) for score in scores.values()]
    return scores | {"all": Score(*map(sum, zip(*counts, strict=True)))}


def _object_agreement(one: ObjectFact, other: ObjectFact) -> float:
    # One and a half: a pair of one kind comes before a pair of one colour.
    agreeing = [getattr(one, name) == getattr(other, name) for name in _OBJECT_FACTS]
    return sum(agreeing) + 0.5 * agreeing[0]


def _light_agreement(one: LightFact, other: LightFact) -> float:
    return 1.5 * (one.kind == other.kind) + (one.tint == other.tint) + (one.moves == other.moves)


def _paired(stated: tuple, true: tuple, agreement: Callable) -> list[tuple[int, int]]:
    if not stated or not true:
        return []
    return best_pairs(torch.tensor([[agreement(one, other) for other in true] for one in stated]))


def _score(stated: tuple, true: tuple, pairs: list[tuple[int, int]], name: str) -> Score:
    ours, theirs = ([getattr(each, name) for each in facts] for facts in (stated, true))
    hits = sum(ours[i] == theirs[j] != "" for i, j in pairs)
    return Score(hits, sum(fact != "" for fact in ours), sum(fact != "" for fact in theirs))

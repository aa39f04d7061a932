"""The order in which a training sees its clips."""

from collections import Counter

import pytest

from comfyui_strata.training.batches import Batches, seed_of

ALIKE = ["whole"] * 7 + ["rgb only"] * 3 + ["lone"]


def epoch(batches: Batches, number: int) -> list[list[int]]:
    return [batches[number * batches.per_epoch + i] for i in range(batches.per_epoch)]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_clip_is_seen_once_an_epoch_and_only_among_its_like(size):
    batches = Batches(ALIKE, size, seed=1)
    for number in range(5):
        seen = epoch(batches, number)
        assert all(len(batch) == size and len({ALIKE[i] for i in batch}) == 1 for batch in seen)
        counts = Counter(i for batch in seen for i in batch)
        assert set(counts) == set(range(len(ALIKE)))
        for kind in set(ALIKE):
            group = [i for i, other in enumerate(ALIKE) if other == kind]
            # Each once; the last batch is filled up from the group's start, as evenly as that goes.
            filled = -(-len(group) // size) * size
            assert sum(counts[i] for i in group) == filled
            assert max(counts[i] for i in group) - min(counts[i] for i in group) <= (filled > len(group))


def test_a_group_smaller_than_a_batch_fills_it_with_repeats():
    assert Counter(Batches(["a", "a"], 5, seed=1)[0]).most_common()[0][1] == 3
    assert Batches(["a"], 3, seed=1)[17] == [0, 0, 0]


def test_the_seed_decides_the_order_and_nothing_else_does():
    order = [Batches(ALIKE, 2, seed=1)[i] for i in range(40)]
    one, other = Batches(ALIKE, 2, seed=1), Batches(ALIKE, 2, seed=2)
    assert [one[i] for i in reversed(range(40))] == order[::-1]  # asked for in any order, as by a resumed run
    assert [other[i] for i in range(40)] != order
    epochs = [str(epoch(one, number)) for number in range(4)]
    assert len(set(epochs)) == 4


def test_seeds_are_fixed_numbers_and_differ_by_what_they_are_for():
    assert seed_of(1, "noise", 3, 0) == seed_of(1, "noise", 3, 0) == 8396180654687508
    seeds = {seed_of(run, what, step, rank)
             for run in range(5) for what in ("noise", "task") for step in range(50) for rank in range(4)}
    assert len(seeds) == 5 * 2 * 50 * 4
    assert min(seeds) >= 0 and max(seeds) < 2**63  # what torch takes
    assert len({seed_of(1, 11), seed_of(11, 1), seed_of(111)}) == 3

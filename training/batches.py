"""Which clips a step sees: a pure function of the seed and the step, so that a resumed run needs no state to go on."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from functools import lru_cache

import torch


def seed_of(*parts: int | str) -> int:
    """A seed from what it is for, such as (run seed, "noise", step, rank): other parts, unrelated numbers."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:7], "big")


class Batches:
    """Every clip once an epoch, in batches of clips alike (of the same layers), in an order that the seed decides."""

    def __init__(self, alike: Sequence[Hashable], size: int, seed: int):
        """alike[i]: what clip i must share with the others of its batch. size: clips of a batch."""
        self.size, self.seed = size, seed
        self.groups: dict[Hashable, list[int]] = {}
        for i, kind in enumerate(alike):
            self.groups.setdefault(kind, []).append(i)
        self.per_epoch = sum(-(-len(group) // size) for group in self.groups.values())
        self._epoch = lru_cache(maxsize=1)(self._shuffle)

    def __getitem__(self, number: int) -> list[int]:
        """The clips of batch `number`, 0 and up without end. A group's last batch of an epoch is filled up from its
        start."""
        return self._epoch(number // self.per_epoch)[number % self.per_epoch]

    def _shuffle(self, epoch: int) -> list[list[int]]:
        draw = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
        batches = []
        for group in self.groups.values():
            order = [group[i] for i in torch.randperm(len(group), generator=draw).tolist()]
            for start in range(0, len(order), self.size):
                batches.append([order[(start + k) % len(order)] for k in range(self.size)])
        return [batches[i] for i in torch.randperm(len(batches), generator=draw).tolist()]

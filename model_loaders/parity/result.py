"""What a replay of fixtures says: what the authors' code computed, against what we compute from the same weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FORWARD_LIMITS = {"fp32": 1e-5, "bf16": 2e-2}
SAMPLE_LIMITS = {"fp32": 1e-4, "bf16": 1e-1}


@dataclass(frozen=True)
class Result:
    """One case: the largest difference relative to the reference's largest value, and its limit."""

    family: str
    case: str
    dtype: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit (a NaN is not)."""
        return self.error <= self.limit


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """max|ours - reference| / max|reference|."""
    return float((ours.float() - reference.float()).abs().max() / reference.float().abs().max())

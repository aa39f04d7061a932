"""The numbers of an evaluation as one table and as JSON. Both are made from the same rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from .evaluate import Result
from .scores import Metric

METHODS = ("model", "constant", "usual", "copy", "vae", "truth", "shuffled")
_ARROWS = {"higher": "↑", "lower": "↓"}


@dataclass
class Report:
    """Results as they come in. `about` says what decides the numbers, and goes into the JSON as it is."""

    about: dict[str, Any] = field(default_factory=dict)
    texts: list[dict[str, Any]] = field(default_factory=list)
    _numbers: dict[tuple[str, str, Metric], dict[str, dict[int, float | None]]] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Take the numbers and texts of one task on one shot; its pictures are not kept."""
        self.texts += [{"task": str(result.task), "shot": result.seed, "layer": layer, "made": made, "true": true}
                       for layer, (made, true) in result.texts.items()]
        for method, numbers in result.numbers.items():
            for (subject, metric), number in numbers.items():
                methods = self._numbers.setdefault((str(result.task), subject, metric), {})
                methods.setdefault(method, {})[result.seed] = number

    def rows(self) -> list[dict[str, Any]]:
        """One a task, layer (or relation) and metric. Each method has the mean over the shots, "std", their sample
        standard deviation (None for a single one), and "shots", the number of each; None where nothing was there to
        measure. A method that the task has none of is None."""
        return [
            {"task": task, "layer": subject, "metric": metric.name, "unit": metric.unit, "better": metric.better,
             **{method: _summary(methods[method]) if method in methods else None for method in METHODS}}
            for (task, subject, metric), methods in self._numbers.items()
        ]

    def json(self) -> bytes:
        """`about`, the rows and the texts, as UTF-8."""
        everything = self.about | {"rows": self.rows(), "texts": self.texts}
        return json.dumps(everything, indent=1, ensure_ascii=False, allow_nan=False).encode()

    def table(self) -> str:
        """The means as text, a line a row; beside the model's their spread over the shots. A stand-in that no row has
        gets no column."""
        methods = [method for method in METHODS if any(row[method] for row in self.rows())]
        lines = [("task", "layer", "metric", "", "unit", "model", "± std", *methods[1:])]
        for row in self.rows():
            means = [_text((row[method] or {"mean": None})["mean"]) for method in methods]
            lines.append((row["task"], row["layer"], row["metric"], _ARROWS[row["better"]], row["unit"], means[0],
                          _text(row["model"]["std"]), *means[1:]))
        widths = [max(map(len, column)) for column in zip(*lines)]
        return "\n".join("  ".join(
            cell.ljust(width) if i < 5 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip() for line in lines)


def _summary(shots: dict[int, float | None]) -> dict[str, Any]:
    numbers = [number for number in shots.values() if number is not None]
    return {"mean": fmean(numbers) if numbers else None, "std": stdev(numbers) if len(numbers) > 1 else None,
            "shots": {str(seed): number for seed, number in shots.items()}}


def _text(number: float | None) -> str:
    return "–" if number is None else f"{number:.4g}"

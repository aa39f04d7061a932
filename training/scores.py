"""What is measured of which layer, as data, and the numbers of one set of layers.

`METRICS` holds a layer against its truth. `RELATIONS` holds the layers of one set against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ..joint.streams import Task
from . import metrics

Layers = dict[str, Tensor]


@dataclass(frozen=True)
class Metric:
    """A number and how to read it: its unit ("" for none) and whether "higher" or "lower" is better. What it is, in
    full, stands with its function in `training.metrics`. `neighbours`: it compares frames and so needs two of them."""

    name: str
    unit: str
    better: str
    function: Callable[..., float]
    neighbours: bool = False


@dataclass(frozen=True)
class Relation:
    """A metric whose function takes `layers` of one set, in that order."""

    name: str
    layers: tuple[str, ...]
    metric: Metric


# A number of a set: the layer or relation it is of, and the metric. None where there was nothing to measure.
Numbers = dict[tuple[str, Metric], float | None]


def _normal(part: str, predicted: Tensor, truth: Tensor) -> float:
    return metrics.normal_errors(predicted, truth)[part]


_FLICKER = Metric("flicker", "code values", "lower", metrics.change_error, neighbours=True)
_PICTURE = (Metric("PSNR", "dB", "higher", metrics.psnr), Metric("SSIM", "", "higher", metrics.ssim), _FLICKER)

METRICS: dict[str, tuple[Metric, ...]] = {
    "rgb": _PICTURE,
    "albedo": (
        Metric("intensity error", "linear²", "lower", metrics.albedo_intensity_error),
        Metric("chroma error", "delta E", "lower", partial(metrics.albedo_chroma_error, fit="pixel")),
        *_PICTURE,
    ),
    "irradiance": (
        Metric("si-RMSE", "linear", "lower", metrics.irradiance_error),
        Metric("si-log-RMSE", "ln", "lower", metrics.irradiance_log_error),
        _FLICKER,
    ),
    "normal": (
        Metric("mean angle", "degrees", "lower", partial(_normal, "mean")),
        Metric("median angle", "degrees", "lower", partial(_normal, "median")),
        Metric("under 11.25 degrees", "%", "higher", partial(_normal, "under_11.25")),
        Metric("under 22.5 degrees", "%", "higher", partial(_normal, "under_22.5")),
        Metric("under 30 degrees", "%", "higher", partial(_normal, "under_30")),
        _FLICKER,
    ),
    "alpha": (
        Metric("MAD", "1e-3", "lower", metrics.alpha_mad),
        Metric("MSE", "1e-3", "lower", metrics.alpha_mse),
        Metric("Grad", "1e3 px", "lower", metrics.alpha_grad),
        Metric("Conn", "1e3 px", "lower", metrics.alpha_conn),
        Metric("dtSSD", "1e-2", "lower", metrics.alpha_dtssd, neighbours=True),
        _FLICKER,
    ),
    "fg": _PICTURE,
    "bg": _PICTURE,
}

RELATIONS = (
    Relation("albedo x irradiance = rgb", ("albedo", "irradiance", "rgb"),
             Metric("rebuild error", "", "lower", metrics.rebuild_error)),
    Relation("over(fg, alpha, bg) = rgb", ("fg", "alpha", "bg", "rgb"),
             Metric("composite error", "linear", "lower", metrics.composite_error)),
)


def measure_layer(layer: str, predicted: Tensor, truth: Tensor) -> Numbers:
    """Every number of one layer, [F, H, W, 3] in 0..1 as sockets carry it. Raises ValueError as the metrics do."""
    return {(layer, metric): _number(metric, predicted, truth) for metric in METRICS[layer]
            if len(truth) > 1 or not metric.neighbours}


def measure_relations(task: Task, layers: Layers) -> Numbers:
    """How well a whole set fits together, given layers as given: every relation in which a target of the task stands.
    Raises ValueError as the metrics do."""
    return {(relation.name, relation.metric): _number(relation.metric, *(layers[name] for name in relation.layers))
            for relation in RELATIONS
            if set(relation.layers) <= layers.keys() and not set(relation.layers).isdisjoint(task.targets)}


def _number(metric: Metric, *layers: Tensor) -> float | None:
    try:
        return metric.function(*layers)
    except metrics.NothingToMeasure:  # one odd shot (all sky, all black) must not cost the others their numbers
        return None

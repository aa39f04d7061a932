"""What is measured of which layer, as data, and the numbers of one set of layers.

`METRICS` holds a layer against its truth. `RELATIONS` holds the layers of one set against each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ..imaging.encodings.densepose import picture_to_iuv
from ..imaging.encodings.depth import colours_to_depth
from ..imaging.encodings.flow import colours_to_flow
from ..imaging.encodings.segmentation import colours_to_ids, palette
from ..joint.streams import Task
from . import metrics

Layers = dict[str, Tensor]


@dataclass(frozen=True)
class Metric:
    """A number and how to read it: its unit ("" for none) and whether "higher" or "lower" is better. What it is, in
    full, stands with its function in `training.metrics`. `neighbours`: it compares frames and so needs two of them.
    `exact`: its function takes, after prediction and truth, what the true picture leaves out (`pictures.CODES`)."""

    name: str
    unit: str
    better: str
    function: Callable[..., float]
    neighbours: bool = False
    exact: bool = False


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


def _depth(part: str, predicted: Tensor, truth: Tensor, near: float, far: float) -> float:
    # A depth picture is relative: whatever range the network drew in, the fit takes it out again.
    depths = (colours_to_depth(images, near, far) for images in (predicted, truth))
    return metrics.depth_errors(*depths, align="inverse")[part]


def _flow(part: str, predicted: Tensor, truth: Tensor, reach: float) -> float:
    return metrics.flow_errors(*(colours_to_flow(images, reach) for images in (predicted, truth)))[part]


def _segmentation(measure: Callable[..., float], predicted: Tensor, truth: Tensor) -> float:
    return measure(*(colours_to_ids(images, palette(_LABELS)) for images in (predicted, truth)))


def _densepose(part: str, predicted: Tensor, truth: Tensor) -> float:
    number = metrics.densepose_errors(*(picture_to_iuv(images) for images in (predicted, truth)))[part]
    if math.isnan(number):
        raise metrics.NothingToMeasure("No pixel has its true part, so there is no u, v to compare.")
    return number


def _skeleton(part: str, predicted: Tensor, truth: Tensor, joints: Tensor, visible: Tensor) -> float:
    return metrics.drawing_errors(predicted, truth, joints, visible)[part]


_LABELS = 64  # as many colours as stay far apart; a shot has fewer labels
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
    "depth": (
        Metric("AbsRel", "", "lower", partial(_depth, "abs_rel"), exact=True),
        Metric("RMSE", "m", "lower", partial(_depth, "rmse"), exact=True),
        Metric("delta < 1.25", "%", "higher", partial(_depth, "delta1"), exact=True),
        _FLICKER,
    ),
    "flow": (
        Metric("EPE", "px", "lower", partial(_flow, "epe"), exact=True),
        Metric("F1-all", "%", "lower", partial(_flow, "f1_all"), exact=True),
        _FLICKER,
    ),
    "densepose": (
        Metric("part accuracy", "%", "higher", partial(_densepose, "accuracy")),
        Metric("part mIoU", "", "higher", partial(_densepose, "miou")),
        Metric("uv error", "", "lower", partial(_densepose, "uv")),
        _FLICKER,
    ),
    "skeleton": (
        Metric("PCK@0.2", "%", "higher", partial(_skeleton, "pck"), exact=True),
        Metric("missed joints", "%", "lower", partial(_skeleton, "missed"), exact=True),
        Metric("false joints", "%", "lower", partial(_skeleton, "false"), exact=True),
        _FLICKER,
    ),
    "segmentation": (
        Metric("mIoU", "", "higher", partial(_segmentation, metrics.segmentation_matched_miou)),
        Metric("same label", "%", "higher", partial(_segmentation, metrics.segmentation_accuracy)),
        _FLICKER,
    ),
}

# The best guess without looking at the shot, where a layer's code has one: nothing moves, nobody and nothing is there.
BLANK = {"flow": 1.0, "densepose": 0.0, "skeleton": 0.0, "segmentation": 0.0}

RELATIONS = (
    Relation("albedo x irradiance = rgb", ("albedo", "irradiance", "rgb"),
             Metric("rebuild error", "", "lower", metrics.rebuild_error)),
    Relation("over(fg, alpha, bg) = rgb", ("fg", "alpha", "bg", "rgb"),
             Metric("composite error", "linear", "lower", metrics.composite_error)),
)


def measure_layer(layer: str, predicted: Tensor, truth: Tensor, exact: tuple = ()) -> Numbers:
    """Every number of one layer, [F, H, W, 3] in 0..1 as sockets carry it. `exact` is what its picture leaves out of
    the truth, as `pictures.CODES` says: depth, flow and skeleton need it. Raises ValueError as the metrics do."""
    return {(layer, metric): take(metric, predicted, truth, *(exact if metric.exact else ()))
            for metric in METRICS[layer] if len(truth) > 1 or not metric.neighbours}


def measure_relations(task: Task, layers: Layers) -> Numbers:
    """How well a whole set fits together, given layers as given: every relation in which a target of the task stands.
    Raises ValueError as the metrics do."""
    return {(relation.name, relation.metric): take(relation.metric, *(layers[name] for name in relation.layers))
            for relation in RELATIONS
            if set(relation.layers) <= layers.keys() and not set(relation.layers).isdisjoint(task.targets)}


def take(metric: Metric, *data) -> float | None:
    """The number of what the metric's function takes; None where there is nothing to measure."""
    try:
        return metric.function(*data)
    except metrics.NothingToMeasure:  # one odd shot (all sky, all black) must not cost the others their numbers
        return None

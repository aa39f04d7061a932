"""Normals, depth, optical flow and segmentation against the truth."""

import math

import torch
from torch import Tensor

from ...imaging.encodings.segmentation import colours_to_ids
from .checks import best_pairs, check_layer, check_pair, require_some, scale_fit, select

_ANGLES = (11.25, 22.5, 30.0)  # degrees


def normal_angles(predicted: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """The angle between the two normals of each pixel that counts: [N] in degrees, 0..180.

    predicted, truth: [F, H, W, 3] in 0..1, n = 2x - 1 in camera space (+X right, +Y up, +Z to the camera), of any
    length. mask: see `select`. A true normal shorter than 0.5 means "no surface" and is left out; a predicted one
    shorter than 0.05 has no direction and counts as 90 degrees. Angles of several clips may be joined before
    `normal_summary`.
    """
    predicted, truth = check_pair("normal", predicted, truth, (3,))
    predicted, truth = 2 * predicted - 1, 2 * truth - 1
    counted = require_some(select(mask, truth) & (truth.norm(dim=-1) >= 0.5))
    predicted, truth = predicted[counted], truth[counted]  # [N, 3]
    # Not acos of the dot product, which loses half the digits near 0 degrees.
    angles = torch.atan2(torch.linalg.cross(predicted, truth).norm(dim=-1), (predicted * truth).sum(-1)).rad2deg()
    return torch.where(predicted.norm(dim=-1) < 0.05, 90.0, angles)


def normal_summary(angles: Tensor) -> dict[str, float]:
    """What papers print of `normal_angles` [N]: "mean", "median" in degrees (lower is better), and "under_11.25",
    "under_22.5", "under_30": the percentage of pixels below that angle, 0..100 (higher is better).

    Source: Fouhey et al. 2013; the protocol of DSINE and NormalCrafter, which joins the pixels of a whole set.
    """
    shares = {f"under_{limit:g}": 100 * (angles < limit).double().mean().item() for limit in _ANGLES}
    return {"mean": angles.mean().item(), "median": angles.median().item(), **shares}


def normal_errors(predicted: Tensor, truth: Tensor, mask: Tensor | None = None) -> dict[str, float]:
    """`normal_summary` of one clip's `normal_angles`."""
    return normal_summary(normal_angles(predicted, truth, mask))


def depth_errors(
    predicted: Tensor, truth: Tensor, mask: Tensor | None = None, *, align: str = "scale"
) -> dict[str, float]:
    """Depth errors. "abs_rel": the mean of |p - t| / t (no unit, >= 0, lower is better), "rmse": the root of the mean
    of (p - t)^2 (the truth's unit, >= 0, lower is better), and "delta1": the percentage of pixels with
    max(p / t, t / p) < 1.25 (0..100, higher is better).

    predicted, truth: depth [F, H, W, 1], any unit, larger is farther; pixels with a true depth <= 0 are left out. mask:
    see `select`. align, once for the clip: "scale" multiplies by the least-squares factor <p, t> / <p, p>, "median" by
    the ratio of the medians, "affine" by least squares with an offset (for relative depth), "none" compares metric
    depth. "inverse", for relative inverse depth, fits 1 / p to 1 / t by least squares with an offset and no negative
    factor, so that a depth turned inside out is not forgiven; what lies beyond the farthest true depth then is put
    there, as MiDaS puts it at its cap. A depth that is <= 0 after it fails delta1. Raises ValueError for "inverse" of a
    depth <= 0. Source: Eigen et al. 2014; Ranftl et al. 2020 (MiDaS: affine, inverse).
    """
    predicted, truth = check_pair("depth", predicted, truth, (1,))
    counted = require_some(select(mask, truth) & (truth[..., 0] > 0))
    predicted, truth = predicted[..., 0][counted], truth[..., 0][counted]  # [N]
    if align == "scale":
        predicted = scale_fit(predicted, truth) * predicted
    elif align == "median":
        predicted = predicted * (truth.median() / predicted.median().clamp_min(1e-12))
    elif align == "affine":
        predicted = _affine_fit(predicted, truth)
    elif align == "inverse":
        if predicted.min() <= 0:
            raise ValueError(f"The predicted depth goes down to {predicted.min():.3g}, but only one above 0 has an "
                             "inverse; give distances.")
        predicted = 1 / _affine_fit(1 / predicted, 1 / truth, least=0.0).clamp_min(1 / truth.max())
    elif align != "none":
        raise ValueError(
            f'Depth was to be aligned by {align!r}: use "scale", "median", "affine", "inverse" or "none".'
        )
    ratio = torch.maximum(predicted / truth, truth / predicted.clamp_min(1e-12))
    return {
        "abs_rel": ((predicted - truth).abs() / truth).mean().item(),
        "rmse": ((predicted - truth) ** 2).mean().sqrt().item(),
        "delta1": 100 * (ratio < 1.25).double().mean().item(),
    }


def _affine_fit(predicted: Tensor, truth: Tensor, least: float = -math.inf) -> Tensor:
    """s * predicted + o with the s >= least and the o of the smallest sum of squared differences from truth."""
    centred = predicted - predicted.mean()
    return scale_fit(centred, truth - truth.mean()).clamp_min(least) * centred + truth.mean()


def flow_errors(predicted: Tensor, truth: Tensor, mask: Tensor | None = None) -> dict[str, float]:
    """Flow errors. "epe": the mean length of the difference of the two flows (pixels, >= 0), and "f1_all": the
    percentage of pixels where that is above 3 pixels and above 5 % of the true flow (0..100); lower is better for both.

    predicted, truth: flow [F, H, W, 2] in pixels. mask: see `select`. Source: Menze and Geiger 2015 (KITTI).
    """
    predicted, truth = check_pair("flow", predicted, truth, (2,))
    counted = select(mask, truth)
    error = (predicted - truth).norm(dim=-1)[counted]
    wrong = (error > 3) & (error > 0.05 * truth.norm(dim=-1)[counted])
    return {"epe": error.mean().item(), "f1_all": 100 * wrong.double().mean().item()}


def segmentation_miou(predicted: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Mean intersection over union. No unit, 0..1 (papers print it times 100); higher is better.

    predicted, truth: [F, H, W, 1] labels, whole numbers; see `colour_labels` for pictures. mask: see `select`. For each
    label that occurs in either, the pixels of the whole clip where both have it / where one has it; the mean over those
    labels. Labels are matched by value, not searched for. Source: Everingham et al. 2015 (Pascal VOC), per clip.
    """
    predicted, truth = _label_pair(predicted, truth, mask)
    shares = []
    for label in torch.cat([predicted, truth]).unique():
        ours, theirs = predicted == label, truth == label
        shares.append((ours & theirs).sum().item() / (ours | theirs).sum().item())
    return sum(shares) / len(shares)


def segmentation_matched_miou(predicted: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Mean intersection over union whatever the labels are called. No unit, 0..1; higher is better.

    predicted, truth, mask: as `segmentation_miou`. True and predicted labels are paired one to one so that the mean
    over the true labels is greatest; a true label without a partner counts 0. A predicted label that is left over has
    no share of its own in the mean: it costs what it takes away from the others, so the seams of a drawing, which read
    as stray labels, weigh as the few pixels they are. Source: the best assignment of Kuhn 1955, as in
    the scoring of unsupervised segmentation (Ji et al. 2019).
    """
    predicted, truth = _label_pair(predicted, truth, mask)
    theirs, truth_rows = truth.unique(return_inverse=True)
    ours, our_rows = predicted.unique(return_inverse=True)
    both = torch.bincount(truth_rows * len(ours) + our_rows, minlength=len(theirs) * len(ours))
    both = both.view(len(theirs), len(ours)).double()  # pixels
    shares = both / (both.sum(1, keepdim=True) + both.sum(0, keepdim=True) - both)
    return sum(shares[row, column].item() for row, column in best_pairs(shares)) / len(theirs)


def segmentation_accuracy(predicted: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """The percentage of pixels with their true label, matched by value. 0..100; higher is better.

    predicted, truth, mask: as `segmentation_miou`. Source: the pixel accuracy of Long et al. 2015.
    """
    predicted, truth = _label_pair(predicted, truth, mask)
    return 100 * (predicted == truth).double().mean().item()


def _label_pair(predicted: Tensor, truth: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The labels [N] of the pixels that count. Raises ValueError for labels that are no whole numbers."""
    predicted, truth = check_pair("segmentation", predicted, truth, (1,))
    counted = select(mask, truth)
    predicted, truth = predicted[..., 0][counted], truth[..., 0][counted]
    if (predicted != predicted.round()).any() or (truth != truth.round()).any():
        raise ValueError("A segmentation has labels that are no whole numbers; turn its colours into labels first.")
    return predicted, truth


def colour_labels(images: Tensor, palette: Tensor) -> Tensor:
    """A segmentation drawn in colours as labels: [F, H, W, 3] to [F, H, W, 1], the row of the nearest colour.

    images: 0..1, sRGB-encoded; palette: [K, 3] likewise. Nearest by Euclidean distance of the code values.
    """
    return colours_to_ids(check_layer("The segmentation", images, (3,)), palette)

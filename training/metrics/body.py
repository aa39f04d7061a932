"""Skeletons and DensePose against the truth.

F frames, S people, P points, 18 joints. Joints are [F, S, 18, 2] in pixels with visible [F, S, 18]; IUV fields are
[F, H, W, 3]: see `imaging.encodings.skeleton` and `imaging.encodings.densepose`.
"""

import math

import torch
from torch import Tensor

from ...imaging.encodings.densepose import check_iuv
from ...imaging.encodings.skeleton import COLOURS, JOINTS, dot_radius
from .checks import best_pairs, check_layer, check_same_size, require_some, skimage

_CLOSE = 0.2  # of the true person's size
_NEAR = 0.16  # of a joint's colour in every channel: half of what parts it from the next, as in `read_joints`
_LEAST = 0.25  # of a dot's area: a smaller spot of its colour is a seam of the drawing


def read_dots(images: Tensor) -> tuple[Tensor, Tensor]:
    """The joints of any number of people from a drawing [F, H, W, 3] in 0..1: places [F, P, 18, 2], seen [F, P, 18].

    Every connected spot (8 neighbours) of a joint's colour is a point, at its mean, if it has a quarter of a dot's
    area. Which points belong to one person is not read: the P of a joint are in no order. Dots of one joint that touch
    are read as one. `imaging.encodings.skeleton.read_joints` reads one person and takes all spots together.
    """
    images = check_layer("The skeleton drawing", images, (3,)).cpu()
    least = _LEAST * math.pi * dot_radius(*images.shape[1:3]) ** 2
    found = [_spots(frame, least) for frame in images]
    most = max(len(kind) for frame in found for kind in frame)
    places, seen = torch.zeros(len(found), most, JOINTS, 2), torch.zeros(len(found), most, JOINTS, dtype=torch.bool)
    for number, frame in enumerate(found):
        for joint, kind in enumerate(frame):
            if kind:
                places[number, : len(kind), joint] = torch.tensor(kind)
                seen[number, : len(kind), joint] = True
    return places, seen


def _spots(frame: Tensor, least: float) -> list[list[tuple[float, float]]]:
    """By joint, the middles (x, y) in pixels of the spots of its colour in a frame [H, W, 3]."""
    bright = (frame.amax(-1) >= 1 - _NEAR).nonzero()  # as every joint's colour is; mostly a small part of the picture
    if not len(bright):
        return [[] for _ in COLOURS]
    (top, left), (bottom, right) = bright.amin(0).tolist(), bright.amax(0).tolist()
    window, measure = frame[top : bottom + 1, left : right + 1], skimage("measure")
    near = ((window - COLOURS[:, None, None].to(window)).abs().amax(-1) <= _NEAR).numpy()  # [18, rows, columns]
    spots = [measure.regionprops(measure.label(mask, connectivity=2)) for mask in near]
    return [[(left + spot.centroid[1] + 0.5, top + spot.centroid[0] + 0.5) for spot in kind if spot.area >= least]
            for kind in spots]


def pose_errors(
    predicted: Tensor, predicted_visible: Tensor, truth: Tensor, visible: Tensor, *, radius: float = 0.0
) -> dict[str, float]:
    """Pose errors. "pck": PCK@0.2, the percentage of true joints with a predicted joint of the same kind within 0.2 of
    the person's size (0..100, higher is better); "missed": the percentage of true joints without any predicted partner;
    "false": the percentage of predicted joints without a true one (both 0..100, lower is better), 0 where nothing was
    predicted.

    predicted, truth: joints [F, S, 18, 2] in pixels, S may differ; predicted_visible, visible: [F, S, 18] bool, what is
    not visible is not there. The size is the longer side of the box around the person's visible joints of that frame,
    the "max(h, w)" of the source. For several people, joints of one kind are paired one to one, as near as can be in
    sum; who they belong to is not asked. `radius` in pixels: how far off a perfect drawing may be read, below which a
    threshold does not go. Raises ValueError for other shapes and for visible joints that are not finite,
    NothingToMeasure where no true joint is visible. Source: Yang and Ramanan 2013 (PCK).
    """
    _check_joints("predicted", predicted, predicted_visible)
    _check_joints("true", truth, visible)
    if len(predicted) != len(truth):
        raise ValueError(f"The predicted joints have {len(predicted)} frames and the true ones {len(truth)}, but they "
                         "are compared frame by frame; bring both to one length.")
    predicted, truth = predicted.double(), truth.double()
    size = _sizes(truth, visible)  # [F, S]
    close = pairs = 0
    for frame, person, _, distance in _pairs(predicted, predicted_visible, truth, visible):
        pairs += 1
        close += distance <= max(radius, _CLOSE * size[frame, person].item())
    real, said = int(require_some(visible).sum()), int(predicted_visible.sum())
    return {"pck": 100 * close / real, "missed": 100 * (real - pairs) / real,
            "false": 100 * (said - pairs) / said if said else 0.0}


def drawing_errors(predicted: Tensor, truth: Tensor, joints: Tensor, visible: Tensor) -> dict[str, float]:
    """`pose_errors` of a drawing against a true one, [F, H, W, 3] in 0..1 each, of people with known joints.

    joints, visible: [F, S, 18, 2] in pixels and [F, S, 18]. The predicted joints are read by `read_dots`. Of the true
    joints those count that can be read from the true drawing, within a dot's radius: an eye under another dot, or what
    the picture's edge cuts off, is nobody's mistake. Raises as `pose_errors`.
    """
    check_same_size("predicted skeleton", predicted, "true skeleton", truth)
    radius = dot_radius(*truth.shape[1:3])
    shown = torch.zeros_like(visible)
    for frame, person, joint, distance in _pairs(*read_dots(truth), joints, visible):
        shown[frame, person, joint] = distance <= radius
    return pose_errors(*read_dots(predicted), joints, shown, radius=radius)


def densepose_errors(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """DensePose errors. "accuracy": the percentage of the pixels of true people that have their true part (0..100,
    higher is better); "miou": the mean over the parts 1..24 of the truth of intersection over union, over the pixels of
    the whole clip (0..1, higher is better; parts that only the prediction has cost what they take away from others);
    "uv": the mean of |u_p - u_t| and |v_p - v_t| over the pixels where both have the same part of a person (no unit,
    0..1, lower is better), NaN where they nowhere do.

    predicted, truth: IUV fields [F, H, W, 3]. Raises ValueError as `imaging.encodings.densepose.check_iuv` and for
    shapes that differ, NothingToMeasure without true people. Source: the part segmentation and the UV regression of
    Gueler et al. 2018 (DensePose), measured per pixel; its own GPS needs the surface of a body model.
    """
    check_same_size("predicted DensePose field", predicted, "true DensePose field", truth)
    check_iuv(predicted)
    check_iuv(truth)
    predicted, truth = predicted.double(), truth.double()
    ours, theirs = predicted[..., 0], truth[..., 0]
    person = require_some(theirs > 0)
    same = person & (ours == theirs)
    shares = [((ours == part) & (theirs == part)).sum().item() / ((ours == part) | (theirs == part)).sum().item()
              for part in theirs[person].unique()]
    return {
        "accuracy": 100 * (same.sum() / person.sum()).item(),
        "miou": sum(shares) / len(shares),
        "uv": (predicted - truth)[same][:, 1:].abs().mean().item(),
    }


def _pairs(predicted: Tensor, seen: Tensor, truth: Tensor, visible: Tensor):
    """Yield frame, true person, joint and distance in pixels of each pair of joints of one kind."""
    for frame in range(len(truth)):
        for joint in range(JOINTS):
            people = visible[frame, :, joint].nonzero().flatten()
            points = predicted[frame, seen[frame, :, joint], joint].to(truth)
            if len(people) and len(points):
                apart = torch.cdist(truth[frame, people, joint], points)  # [people, points]
                for row, column in best_pairs(-apart):
                    yield frame, int(people[row]), joint, apart[row, column].item()


def _sizes(joints: Tensor, visible: Tensor) -> Tensor:
    """The longer side in pixels of the box around the visible joints of each person, [F, S]; 0 where there are none."""
    high = joints.where(visible[..., None], -math.inf).amax(2)  # [F, S, 2]
    low = joints.where(visible[..., None], math.inf).amin(2)
    return (high - low).amax(-1).clamp_min(0)


def _check_joints(name: str, joints: Tensor, visible: Tensor):
    if joints.ndim != 4 or joints.shape[2:] != (JOINTS, 2) or visible.shape != joints.shape[:3]:
        raise ValueError(f"The {name} joints have shape {list(joints.shape)} and their visibility "
                         f"{list(visible.shape)}, but [frames, people, {JOINTS}, 2] and [frames, people, {JOINTS}] are "
                         "needed; reshape them.")
    if not torch.isfinite(joints[visible]).all():
        raise ValueError(f"Some visible {name} joints are NaN or infinite, but finite ones are needed; mark them "
                         "invisible.")

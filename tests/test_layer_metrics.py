"""Depth, segmentation, skeletons and DensePose as they are measured from pictures: known answers, one sentence."""

import math
import sys

import numpy as np
import pytest
import torch

from comfyui_strata.imaging.encodings.skeleton import draw_skeletons
from comfyui_strata.training import metrics

exact = pytest.approx
PERFECT = {"pck": 100.0, "missed": 0.0, "false": 0.0}


def column(*values) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, -1, 1)


# ---- relative depth --------------------------------------------------------------------------------------------------


def test_inverse_alignment_is_a_least_squares_fit_with_a_cap():
    draw = np.random.default_rng(0)
    predicted, truth = draw.uniform(8, 9, 400), draw.uniform(1, 5, 400)
    predicted[:380] = 1 / (0.3 / truth[:380] + 0.1)  # the others are then put too far away
    ours = np.stack([1 / predicted, np.ones(400)], 1)
    fit = ours @ np.linalg.lstsq(ours, 1 / truth, rcond=None)[0]
    assert (fit < 1 / truth.max()).sum() > 10
    depth = 1 / np.maximum(fit, 1 / truth.max())
    ratio = np.maximum(depth / truth, truth / depth)
    found = metrics.depth_errors(*(torch.tensor(x).reshape(1, 20, 20, 1) for x in (predicted, truth)), align="inverse")
    assert found == exact({"abs_rel": (abs(depth - truth) / truth).mean(), "rmse": ((depth - truth) ** 2).mean() ** 0.5,
                           "delta1": 100 * (ratio < 1.25).mean()})


def test_a_flat_depth_and_one_turned_inside_out_become_the_mean_inverse():
    truth = column(1.0, 2.0)  # mean inverse 3/4: 4/3 m
    expected = {"abs_rel": 1 / 3, "rmse": math.sqrt(5 / 18), "delta1": 0}
    for predicted in (column(7.0, 7.0), column(2.0, 1.0)):
        assert metrics.depth_errors(predicted, truth, align="inverse") == exact(expected)


def test_a_depth_without_an_inverse_is_refused():
    with pytest.raises(ValueError, match="depth goes down to -1, but only one above 0 has an inverse"):
        metrics.depth_errors(column(1.0, -1.0), column(1.0, 2.0), align="inverse")


# ---- segmentation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("predicted", "truth", "miou"), [
    ((4, 4, 5, 5, 5, 5), (0, 0, 0, 1, 1, 1), (2 / 3 + 3 / 4) / 2),
    ((9, 9, 9, 0, 0, 1), (0, 0, 0, 1, 1, 2), 1.0),  # other names
    ((1, 1, 1, 2), (0, 0, 0, 0), 3 / 4),  # what is left over costs what it takes
    ((3, 3), (0, 1), 1 / 4),  # no label serves twice
])
def test_matched_miou_by_hand(predicted, truth, miou):
    assert metrics.segmentation_matched_miou(column(*predicted), column(*truth)) == exact(miou)


def test_label_accuracy_by_hand():
    assert metrics.segmentation_accuracy(column(0, 0, 1, 2), column(0, 1, 1, 2)) == exact(75)
    mask = torch.tensor([[[1, 0, 1, 1]]])
    assert metrics.segmentation_accuracy(column(0, 0, 1, 2), column(0, 1, 1, 2), mask) == exact(100)


def test_matched_miou_falls_as_labels_are_lost():
    draw = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 5, (2, 20, 20, 1), generator=draw)
    noise, where = torch.randint(0, 5, truth.shape, generator=draw), torch.rand(truth.shape, generator=draw)
    shares = [metrics.segmentation_matched_miou(torch.where(where < lost, noise, truth), truth)
              for lost in (0.0, 0.2, 0.4, 0.6, 0.8)]
    assert shares[0] == 1 and shares == sorted(shares, reverse=True) and shares[-1] < 0.4


def test_without_scipy_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r"need scikit-image, .* pip install 'comfyui-strata\[train\]'"):
        metrics.segmentation_matched_miou(column(0, 1), column(0, 1))


# ---- skeletons -------------------------------------------------------------------------------------------------------


def people(*offsets, frames: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Copies of one person, 60 pixels tall, moved by offsets (x, y): joints [F, S, 18, 2], all visible."""
    across = [0, 0, -8, -14, -18, 8, 14, 18, -5, -6, -6, 5, 6, 6, -3, 3, -7, 7]
    down = [6, 15, 16, 24, 32, 16, 24, 32, 36, 48, 60, 36, 48, 60, 0, 0, 5, 5]
    body = torch.tensor([across, down]).T + torch.tensor([25.5, 15.5])
    joints = torch.stack([body + torch.as_tensor(offset) for offset in offsets]).expand(frames, -1, -1, -1).float()
    return joints, torch.ones(joints.shape[:3], dtype=torch.bool)


def test_pck_missed_and_false_by_hand():
    truth, predicted = torch.zeros(1, 1, 18, 2), torch.zeros(1, 1, 18, 2)
    visible, seen = torch.zeros(1, 1, 18, dtype=torch.bool), torch.zeros(1, 1, 18, dtype=torch.bool)
    visible[..., [0, 1, 13]], seen[..., [0, 1, 4]] = True, True
    truth[0, 0, [0, 1, 13]] = torch.tensor([[10.0, 10], [10, 20], [30, 60]])  # a box of 20 x 50: a fifth is 10
    truth[0, 0, 5] = 1e6  # not visible, so it is not in the box
    predicted[0, 0, [0, 1]] = truth[0, 0, [0, 1]] + torch.tensor([[6.0, 7.9], [0, 10.1]])  # 9.92 and 10.1 away
    third = {"pck": 100 / 3, "missed": 100 / 3, "false": 100 / 3}
    assert metrics.pose_errors(predicted, seen, truth, visible) == exact(third)
    assert metrics.pose_errors(predicted, seen, truth, visible, radius=10.2)["pck"] == exact(200 / 3)
    nobody = metrics.pose_errors(predicted, seen & False, truth, visible)
    assert nobody == {"pck": 0, "missed": 100, "false": 0}


def test_joints_of_several_people_find_their_own():
    truth, visible = people((0, 0), (60, 0), (120, 5))
    order = torch.tensor([2, 0, 1])
    assert metrics.pose_errors(truth[:, order], visible, truth, visible) == exact(PERFECT)
    # Two of three are there, each 5 pixels off of the 12 that are allowed.
    fewer = metrics.pose_errors(truth[:, 1:] + torch.tensor([3.0, 4.0]), visible[:, 1:], truth, visible)
    assert fewer == exact({"pck": 200 / 3, "missed": 100 / 3, "false": 0})
    more = metrics.pose_errors(truth, visible, truth[:, :1], visible[:, :1])
    assert more == exact({"pck": 100, "missed": 0, "false": 200 / 3})


def test_dots_of_a_drawing_are_read_for_everyone():
    truth, visible = people((0, 0), (55, 20))
    places, seen = metrics.read_dots(draw_skeletons(truth, visible, 128, 128))
    assert seen.sum(1).eq(2).all()
    apart = torch.cdist(truth.transpose(1, 2), places.transpose(1, 2))  # [F, 18, 2, 2]
    assert apart.amin(-1).max() < 0.6
    black = metrics.read_dots(torch.zeros(2, 64, 64, 3))
    assert black[0].shape == (2, 0, 18, 2) and black[1].shape == (2, 0, 18)


def test_a_drawing_is_as_wrong_as_its_joints():
    joints, visible = people((0, 0))

    def errors(moved, seen=visible):
        drawings = draw_skeletons(moved, seen, 96, 128), draw_skeletons(joints, visible, 96, 128)
        return metrics.drawing_errors(*drawings, joints, visible)

    assert errors(joints) == exact(PERFECT)
    draw = torch.Generator().manual_seed(1)
    away = torch.randn(joints.shape, generator=draw)
    shares = [errors(joints + far * away)["pck"] for far in (0.0, 4.0, 8.0, 16.0)]
    assert shares == sorted(shares, reverse=True) and shares[1] > 80 and shares[-1] < 50
    assert errors(joints + torch.tensor([0.0, 13.0]))["pck"] < 50 < errors(joints + torch.tensor([0.0, 11.0]))["pck"]
    half = visible.clone()
    half[..., ::2] = False
    assert errors(joints, half)["missed"] == exact(50, abs=6)  # without half of the dots some others are uncovered
    both = errors(*people((0, 0), (55, 0)))
    assert both["false"] == exact(50, abs=6) and both["pck"] == 100
    assert errors(joints, visible & False) == {"pck": 0, "missed": 100, "false": 0}


def test_true_joints_that_no_drawing_shows_are_not_missed():
    joints, visible = people((0, 0))
    joints = joints.clone()
    joints[:, 0, 0] = joints[:, 0, 17]  # the nose lies under the left ear
    drawing = draw_skeletons(joints, visible, 96, 96)
    assert metrics.drawing_errors(drawing, drawing, joints, visible) == exact(PERFECT)


def test_bad_joints_get_one_sentence():
    joints, visible = people((0, 0))
    for wrong, sentence in (
        ((joints[..., 0], visible, joints, visible), r"predicted joints have shape \[2, 1, 18\]"),
        ((joints, visible, joints, visible[:, :, 0]), r"true joints .* visibility \[2, 1\], but"),
        ((joints[:1], visible[:1], joints, visible), "predicted joints have 1 frames and the true ones 2"),
        ((joints * math.nan, visible, joints, visible), "Some visible predicted joints are NaN"),
    ):
        with pytest.raises(ValueError, match=sentence) as caught:
            metrics.pose_errors(*wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(metrics.NothingToMeasure):
        metrics.pose_errors(joints, visible, joints, visible & False)


# ---- DensePose -------------------------------------------------------------------------------------------------------


def field(parts, u, v) -> torch.Tensor:
    return torch.tensor([parts, u, v]).T.reshape(1, 1, -1, 3)


def test_densepose_by_hand():
    truth = field([1.0, 1, 2, 0], [0.5, 0.5, 0.5, 0], [0.5, 0.5, 0.5, 0])
    predicted = field([1.0, 2, 2, 2], [0.7, 0.9, 0.1, 1], [0.5, 0.9, 0.7, 1])
    # Part 1: 1 of 2 pixels, part 2: 1 of 3. u, v where the parts agree: 0.2, 0 and 0.4, 0.2.
    expected = {"accuracy": 200 / 3, "miou": (1 / 2 + 1 / 3) / 2, "uv": 0.2}
    assert metrics.densepose_errors(predicted, truth) == exact(expected)
    assert metrics.densepose_errors(truth, truth) == {"accuracy": 100, "miou": 1, "uv": 0}
    nobody = metrics.densepose_errors(torch.zeros_like(truth), truth)
    assert nobody["accuracy"] == nobody["miou"] == 0 and math.isnan(nobody["uv"])


def test_densepose_falls_with_wrong_parts_and_places():
    draw = torch.Generator().manual_seed(0)

    def fields():
        parts = torch.randint(0, 25, (1, 30, 30, 1), generator=draw).float()
        return torch.cat([parts, torch.rand(1, 30, 30, 2, generator=draw) * (parts > 0)], -1)

    truth, noise, where = fields(), fields(), torch.rand(1, 30, 30, 1, generator=draw)
    found = [metrics.densepose_errors(torch.where(where < lost, noise, truth), truth) for lost in (0, 0.3, 0.6, 1)]
    for key in ("accuracy", "miou"):
        assert [each[key] for each in found] == sorted((each[key] for each in found), reverse=True)
    wrong = truth.clone()
    wrong[..., 1:] = 0.5
    assert metrics.densepose_errors(wrong, truth)["accuracy"] == 100
    assert metrics.densepose_errors(wrong, truth)["uv"] == exact(0.25, abs=0.03)  # of an even spread


def test_bad_densepose_gets_one_sentence():
    good = field([1.0, 2], [0.5, 0.5], [0.5, 0.5])
    for wrong, sentence in ((good[:, :, :1], "predicted DensePose field has shape"), (good * 30, "parts that are not"),
                            (good * math.nan, "NaN or infinite")):
        with pytest.raises(ValueError, match=sentence):
            metrics.densepose_errors(wrong, good)
    with pytest.raises(metrics.NothingToMeasure):
        metrics.densepose_errors(good, 0 * good)

"""Skeletons as drawings and JSON, DensePose as pictures: both ways."""

import json
import math

import numpy as np
import pytest
import torch

from comfyui_strata.imaging.encodings.densepose import BODY, PARTS, check_iuv, iuv_to_picture, part_mask, picture_to_iuv
from comfyui_strata.imaging.encodings.densepose_forms import bytes_to_iuv, part_colours, part_map_to_iuv
from comfyui_strata.imaging.encodings.skeleton import (
    COLOURS,
    LIMBS,
    dot_radius,
    draw_skeletons,
    joints_to_pose_json,
    pose_json_to_joints,
    read_joints,
)
from comfyui_strata.training.rendering.figures import BONES


def figures(frames: int, people: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Joints anywhere, dots whole; one in ten is not visible."""
    generator = torch.Generator().manual_seed(frames + people + height + width)
    margin, size = dot_radius(height, width), torch.tensor([width, height])
    joints = torch.rand(frames, people, 18, 2, generator=generator) * (size - 2 * margin) + margin
    return joints, torch.rand(frames, people, 18, generator=generator) > 0.1


def eight_bits(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round() / 255


# drawing


def test_limbs_are_the_bones_of_the_synthetic_figures():
    assert {frozenset(limb) for limb in LIMBS} == {frozenset(bone) for bone in BONES}


@pytest.mark.parametrize(
    ("joint", "colour"),
    [(0, (255, 0, 0)), (1, (255, 85, 0)), (4, (170, 255, 0)), (12, (0, 0, 255)), (17, (255, 0, 85))],
)
def test_joints_have_the_colours_of_openpose(joint, colour):
    joints, visible = torch.full((1, 1, 18, 2), 20.5), torch.zeros(1, 1, 18, dtype=torch.bool)
    visible[..., joint] = True
    image = draw_skeletons(joints, visible, 41, 41)[0]
    assert torch.equal((255 * image[20, 20]).round(), torch.tensor(colour).float())
    assert image[15].sum() == 0


@pytest.mark.parametrize(
    ("limb", "colour"),
    [((1, 2), (153, 0, 0)), ((1, 5), (153, 51, 0)), ((1, 0), (0, 0, 153)), ((15, 17), (153, 0, 102))],
)
def test_limbs_are_drawn_at_six_tenths(limb, colour):
    joints, visible = torch.zeros(1, 1, 18, 2), torch.zeros(1, 1, 18, dtype=torch.bool)
    joints[0, 0, limb[0]], joints[0, 0, limb[1]] = torch.tensor([10.5, 32.5]), torch.tensor([54.5, 32.5])
    visible[0, 0, list(limb)] = True
    image = draw_skeletons(joints, visible, 64, 64)[0]
    assert torch.allclose(255 * image[32, 32], torch.tensor(colour).float(), atol=0.01)
    assert image[40, 32].sum() == 0
    visible[0, 0, limb[1]] = False
    assert draw_skeletons(joints, visible, 64, 64)[0, 32, 32].sum() == 0


def test_a_limb_is_an_ellipse_as_thick_as_controlnets():
    joints, visible = torch.zeros(1, 1, 18, 2), torch.zeros(1, 1, 18, dtype=torch.bool)
    joints[0, 0, 1], joints[0, 0, 2] = torch.tensor([100.0, 256.0]), torch.tensor([400.0, 256.0])
    visible[0, 0, 1:3] = True
    red = draw_skeletons(joints, visible, 512, 512)[0, ..., 0] / 0.6
    assert red[:, 250].sum() == pytest.approx(8, abs=0.1)
    assert red[:, 120].sum() == pytest.approx(8 * math.sqrt(1 - (129.5 / 150) ** 2), abs=0.2)


def test_drawing_takes_nobody_no_frames_and_people_outside():
    assert draw_skeletons(*figures(2, 0, 16, 24), 16, 24).sum() == 0
    assert draw_skeletons(*figures(0, 1, 16, 24), 16, 24).shape == (0, 16, 24, 3)
    joints, visible = figures(1, 1, 16, 24)
    for shift in (-100, 100):
        assert draw_skeletons(joints + shift, visible, 16, 24).sum() == 0
    inside = draw_skeletons(joints, visible, 16, 24)
    both = draw_skeletons(torch.cat([joints - 100, joints], 1), torch.cat([visible] * 2, 1), 16, 24)
    assert torch.equal(both, inside) and inside.amax() == 1


def test_drawing_does_not_look_at_invisible_joints():
    joints, visible = figures(2, 2, 32, 32)
    drawn = draw_skeletons(joints, visible, 32, 32)
    joints[~visible] = math.nan
    assert torch.equal(draw_skeletons(joints, visible, 32, 32), drawn)
    assert draw_skeletons(joints, torch.zeros_like(visible), 32, 32).sum() == 0


# reading


@pytest.mark.parametrize("size", [(64, 64), (64, 112), (200, 200), (256, 256)])
def test_joints_are_read_with_the_stated_error(size):
    joints, visible = figures(16, 1, *size)
    images = draw_skeletons(joints, visible, *size)
    found, seen = read_joints(eight_bits(images))
    assert all(map(torch.equal, read_joints(images), (found, seen)))
    radius, error = dot_radius(*size), (found - joints).norm(dim=-1)
    apart = torch.cdist(joints, joints) + 1e6 * torch.eye(18)
    whole = visible & (apart.masked_fill(~visible[:, :, None], 1e6).amin(dim=-1) > 2 * radius + 1)
    assert whole.sum() > 100 and seen[whole].all() and not (seen & ~visible).any()
    assert error[whole].max() < 0.6 and error[whole].mean() < 0.2
    assert error[seen].max() <= radius


def test_a_covered_joint_is_not_seen():
    joints, visible = torch.full((1, 1, 18, 2), 20.0), torch.ones(1, 1, 18, dtype=torch.bool)
    seen = read_joints(draw_skeletons(joints, visible, 64, 64))[1]
    assert seen.nonzero().tolist() == [[0, 0, 17]]


def test_reading_survives_a_little_noise():
    joints, visible = figures(4, 1, 128, 128)
    images = draw_skeletons(joints, visible, 128, 128)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    assert torch.equal(read_joints(images + 0.2 * noise)[0], read_joints(images)[0])


def test_reading_a_drawing_needs_colour():
    with pytest.raises(ValueError, match="1 channel"):
        read_joints(torch.zeros(1, 8, 8, 1))
    assert not read_joints(torch.zeros(1, 8, 8, 4))[1].any()
    assert COLOURS.shape == (18, 3)


# JSON


@pytest.mark.parametrize(("frames", "people"), [(1, 1), (5, 3), (2, 0)])
def test_pose_json_round_trip_is_exact(frames, people):
    joints, visible = figures(frames, people, 48, 80)
    joints[..., 0] -= 30  # some are outside the picture
    poses = json.loads(json.dumps(joints_to_pose_json(joints, visible, 48, 80)))
    assert len(poses) == frames and (poses[0]["canvas_height"], poses[0]["canvas_width"]) == (48, 80)
    found, seen, *size = pose_json_to_joints(poses)
    assert torch.equal(found, joints.where(visible[..., None], 0.0)) and torch.equal(seen, visible) and size == [48, 80]
    for person in (person for pose in poses for person in pose["people"]):
        assert set(person["pose_keypoints_2d"][2::3]) <= {0.0, 1.0}


def test_pose_json_may_be_normalised_and_lack_people():
    joints, visible = figures(3, 2, 48, 80)
    poses = joints_to_pose_json(joints / torch.tensor([80, 48]), visible, 48, 80)
    poses[1]["people"].pop()
    poses[2]["people"] = [{"pose_keypoints_2d": None}]
    visible[1, 1], visible[2] = False, False
    found, seen, *_ = pose_json_to_joints(poses)
    assert torch.equal(seen, visible)
    assert (found - joints)[seen].abs().max() < 1e-4 and found[~seen].abs().max() == 0


def test_joints_that_the_detector_was_not_sure_of_are_not_visible():
    body = [number for i in range(18) for number in (2.0 + i, 5.0, i / 17)]
    poses = [pose(people=[{"pose_keypoints_2d": body}], canvas_width=64)]
    assert pose_json_to_joints(poses)[1].sum() == 17
    assert pose_json_to_joints(poses, 0.3)[1].flatten().tolist() == [i / 17 >= 0.3 for i in range(18)]


def test_poses_have_the_points_that_whole_body_nodes_reshape():
    joints, visible = figures(1, 1, 32, 32)
    (person,) = joints_to_pose_json(joints, visible, 32, 32)[0]["people"]
    assert {part: len(values) / 3 for part, values in person.items()} == {
        "pose_keypoints_2d": 18, "face_keypoints_2d": 70, "hand_left_keypoints_2d": 21, "hand_right_keypoints_2d": 21}


def pose(**changes) -> dict:
    return {"people": [{"pose_keypoints_2d": [5.0, 5.0, 1.0] * 18}], "canvas_height": 8, "canvas_width": 8} | changes


@pytest.mark.parametrize(
    ("poses", "sentence"),
    [
        (pose(), "The poses are a dict"),
        ([], "a list of 0"),
        (None, "The poses are nothing"),
        ([pose(), "no"], "a list of 2"),
        ([pose(canvas_width=None)], "Frame 0 .* canvas_width None"),
        ([pose(canvas_height=0)], "at least 1"),
        ([pose(), pose(canvas_width=9)], "a canvas of 9x8 and frame 0 one of 8x8"),
        ([pose(people=None)], 'nothing as "people"'),
        ([pose(people=[{"pose_keypoints_2d": [0.0] * 75}])], "a list of 75 .* 54"),
        ([pose(people=[{"pose_keypoints_2d": [math.nan] * 54}])], "not finite"),
        ([pose(people=[{"pose_keypoints_2d": ["1"] * 54}])], "not finite numbers"),
    ],
)
def test_pose_json_that_is_not_one_is_refused_in_one_sentence(poses, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        pose_json_to_joints(poses)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("function", [draw_skeletons, joints_to_pose_json])
def test_joints_of_the_wrong_kind_are_refused(function):
    joints, visible = figures(1, 1, 32, 32)
    visible[:] = True
    for wrong, sentence in [
        ((joints[:, :, :17], visible, 32, 32), "The joints have shape"),
        ((joints, visible.float(), 32, 32), "visibility is torch.float32"),
        ((joints, visible, 0, 32), "The canvas is 32x0"),
        ((joints * math.nan, visible, 32, 32), "NaN"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            function(*wrong)


# DensePose


def field(frames: int = 2, height: int = 20, width: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    part = torch.randint(PARTS + 1, (frames, height, width, 1), generator=generator)
    return torch.cat([part, torch.rand(frames, height, width, 2, generator=generator) * (part > 0)], -1)


def test_iuv_round_trip_has_the_stated_error():
    iuv = field()
    picture = iuv_to_picture(iuv)
    assert picture.amin() >= 0 and picture.amax() <= 1
    assert torch.equal(picture, iuv / torch.tensor([24.0, 1.0, 1.0]))  # as the synthetic shots have it
    assert torch.equal(picture_to_iuv(picture), iuv)
    found = picture_to_iuv(eight_bits(picture))
    assert torch.equal(found[..., 0], iuv[..., 0])
    assert (found - iuv).abs().max() <= 1 / 510 + 1e-6


def test_the_part_is_exact_under_noise_of_less_than_half_a_step():
    iuv = field()
    noise = torch.rand(iuv.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = picture_to_iuv(iuv_to_picture(iuv) + 0.99 / 48 * noise)
    assert torch.equal(found[..., 0], iuv[..., 0])
    assert (found - iuv).abs().max() <= 1 / 48
    assert found[iuv[..., 0] == 0].abs().max() == 0


def test_u_and_v_are_nothing_off_people():
    assert iuv_to_picture(torch.tensor([0.0, 0.5, 0.5]).expand(1, 2, 2, 3)).sum() == 0
    assert picture_to_iuv(torch.tensor([0.01, 0.5, 0.5]).expand(1, 2, 2, 3)).sum() == 0


def test_part_mask():
    iuv = field()
    assert torch.equal(part_mask(iuv, 3), (iuv[..., 0] == 3).float())
    assert torch.equal(part_mask(iuv, 3, 24), part_mask(iuv, 3) + part_mask(iuv, 24))
    assert torch.equal(part_mask(iuv), (iuv[..., 0] > 0).float())
    with pytest.raises(ValueError, match="no DensePose part 25"):
        part_mask(iuv, 25)


@pytest.mark.parametrize(
    ("iuv", "sentence"),
    [
        (torch.zeros(1, 2, 2, 1), "1 channels"),
        (torch.full((1, 2, 2, 3), 0.5), "whole numbers"),
        (torch.full((1, 2, 2, 3), 25.0), "0 to 24"),
        (torch.full((1, 2, 2, 3), 2.0), "divide"),
        (torch.full((1, 2, 2, 3), math.nan), "NaN"),
        (torch.zeros(0, 2, 2, 3), "is empty"),
    ],
)
def test_a_field_that_is_not_iuv_is_refused(iuv, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_iuv(iuv)


def test_a_densepose_picture_needs_colour():
    with pytest.raises(ValueError, match="1 channel"):
        picture_to_iuv(torch.zeros(1, 2, 2, 1))


def test_the_body_is_each_part_once():
    assert sorted(part for parts in BODY.values() for part in parts) == list(range(1, PARTS + 1))


@pytest.mark.parametrize("name", ["viridis", "parula"])
def test_part_colours_are_those_of_the_preprocessor(name):
    """As detectron2's MatrixVisualizer colours parts, and the preprocessor what is off people."""
    cv2 = pytest.importorskip("cv2")
    levels = (np.arange(25, dtype=np.float32) * (255.0 / 24)).clip(0, 255).astype(np.uint8)
    colours = cv2.applyColorMap(levels[None], getattr(cv2, f"COLORMAP_{name.upper()}"))[0, :, ::-1].copy()
    if name == "parula":
        colours[0] = 0
    assert np.array_equal((255 * part_colours(name)).round().numpy().astype(np.uint8), colours)


@pytest.mark.parametrize("name", ["viridis", "parula"])
def test_parts_of_a_part_map_come_over_and_u_and_v_are_the_middle(name):
    part = field()[..., 0]
    images = part_colours(name)[part.long()]
    for spoiled in (images, eight_bits(images), images + 4 / 255 * (torch.rand(images.shape) - 0.5)):
        iuv = part_map_to_iuv(spoiled, name)
        assert torch.equal(iuv[..., 0], part)
        assert torch.equal(iuv[..., 1:], (0.5 * (part > 0))[..., None].expand(-1, -1, -1, 2))
        check_iuv(iuv)


def test_pictures_that_are_no_part_map_are_refused():
    with pytest.raises(ValueError, match="none of viridis's"):
        part_map_to_iuv(part_colours("parula")[field()[..., 0].long()], "viridis")
    with pytest.raises(ValueError, match="1 channels"):
        part_map_to_iuv(torch.zeros(1, 2, 2, 1), "viridis")


def test_iuv_bytes_come_over():
    iuv = field()
    stored = torch.cat([iuv[..., :1] / 255, eight_bits(iuv[..., 1:])], -1)
    found = bytes_to_iuv(stored)
    assert torch.equal(found[..., 0], iuv[..., 0]) and (found - iuv).abs().max() <= 1 / 510 + 1e-6
    with pytest.raises(ValueError, match="bytes of 0 to 255 as parts"):
        bytes_to_iuv(iuv_to_picture(torch.tensor([[0.0, 0, 0], [24.0, 0, 0]])[None, None]))

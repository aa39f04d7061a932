"""Depth, flow and segmentation as colours, and back."""

import math

import pytest
import torch

from comfyui_strata.imaging.encodings import depth_forms, flow_forms
from comfyui_strata.imaging.encodings.depth import colours_to_depth, depth_to_colours
from comfyui_strata.imaging.encodings.depth_forms import DepthForm
from comfyui_strata.imaging.encodings.flow import colours_to_flow, flow_to_colours
from comfyui_strata.imaging.encodings.flow_forms import FlowForm
from comfyui_strata.imaging.encodings.layers import decode
from comfyui_strata.imaging.encodings.segmentation import (
    colours_to_ids,
    id_shares,
    ids_to_colours,
    mask_of,
    masks_to_ids,
    palette,
)
from comfyui_strata.training.scenes import render


def draw(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def eight_bits(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round() / 255


def noisy(images: torch.Tensor, size: float = 2 / 255) -> torch.Tensor:
    """Every channel off by exactly `size`, up or down, which may leave 0..1."""
    return images + size * torch.where(draw(*images.shape) < 0.5, -1.0, 1.0).to(images)


def exact(images: torch.Tensor) -> torch.Tensor:
    return images


@pytest.fixture(scope="module")
def shot():
    return render(3, 2, 32, 32)


# depth


@pytest.mark.parametrize(("spoil", "error"), [(exact, 1e-6), (eight_bits, 0.004), (noisy, 0.04)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_depth_comes_back(spoil, error, kind):
    near, far = 0.7, 40.0
    warmth = torch.cat([torch.linspace(0, 1, 4001, dtype=torch.float64), draw(4096)])
    depth = (1 / (1 / far + warmth * (1 / near - 1 / far))).to(kind).reshape(1, 1, -1, 1)
    images, *ends = depth_to_colours(depth, near, far)
    assert ends == [near, far] and images.dtype == kind and images.shape == (*depth.shape[:3], 3)
    back = colours_to_depth(spoil(images), near, far)
    assert back.shape == depth.shape and back.amin() >= near - 1e-6 and back.amax() <= far + 1e-5
    span = 1 / near - 1 / far
    assert ((1 / back - 1 / depth).abs() / span).max() < error
    assert ((back / depth - 1).abs() / (back * span)).max() < error


def test_near_is_red_and_far_is_blue():
    images, _, _ = depth_to_colours(torch.tensor([0.5, 1.0, 4 / 3, 2.0, 4.0, 9.0]).reshape(1, 1, 6, 1), 1, 4)
    # 4/3 m: warmth (3/4 - 1/4) / (1 - 1/4) = 2/3, two thirds of the way from the 7th colour to the 8th
    between = [254 + (253 - 254) * 2 / 3, 224 + (174 - 224) * 2 / 3, 139 + (97 - 139) * 2 / 3]
    # 2 m: warmth 1/3, a third of the way from the 4th colour to the 5th
    cool = [171 + (230 - 171) / 3, 221 + (245 - 221) / 3, 164 + (152 - 164) / 3]
    expected = torch.tensor([[158, 1, 66]] * 2 + [between, cool] + [[94, 79, 162]] * 2) / 255
    torch.testing.assert_close(images[0, 0], expected, atol=1e-6, rtol=0)


def test_depth_range_of_a_clip_leaves_two_percent_out_at_either_end():
    depth = torch.arange(1.0, 102).flip(0).reshape(1, 1, 101, 1)
    images, near, far = depth_to_colours(depth)
    assert (near, far) == (3.0, 99.0)
    assert torch.allclose(colours_to_depth(images, near, far), depth.clamp(3, 99), rtol=1e-3)
    assert depth_to_colours(depth, near=2)[1:] == (2, 99.0)
    assert depth_to_colours(depth, far=50)[1:] == (3.0, 50)


def test_depth_of_a_shot_comes_back(shot):
    images, near, far = depth_to_colours(shot.depth)
    back = colours_to_depth(eight_bits(images), near, far)
    error = (1 / back - 1 / shot.depth.clamp(near, far)).abs() / (1 / near - 1 / far)
    assert error.max() < 0.004


@pytest.mark.parametrize(
    ("depth", "near", "far", "message"),
    [
        (torch.tensor([1.0, 0.0]), None, None, "0 m or less in 1 of 1 frames .* metres above 0 are needed"),
        (torch.tensor([1.0, -2.0]), 1, 2, "0 m or less"),
        (torch.tensor([1.0, math.inf]), 1, 2, "NaN or infinite"),
        (torch.tensor([1.0, math.nan]), 1, 2, "NaN or infinite"),
        (torch.ones(2), None, None, "1 m all over, so it has no range of its own; give near and far"),
        (torch.ones(2), 5, 2, "range is 5 to 2 m"),
        (torch.ones(2), 0, 2, "range is 0 to 2 m"),
        (torch.ones(2), 1, math.inf, "range is 1 to inf m"),
    ],
)
def test_depth_that_cannot_be_drawn_is_refused(depth, near, far, message):
    with pytest.raises(ValueError, match=message):
        depth_to_colours(depth.reshape(1, 1, 2, 1), near, far)


@pytest.mark.parametrize("form", DepthForm)
def test_depth_forms_come_back_and_mean_the_same_metres(form):
    near, far = 2.0, 10.0
    metres = torch.linspace(near, far, 600).reshape(2, 10, 30, 1)
    numbers = {
        DepthForm.METRES: metres,
        DepthForm.LINEAR: (far - metres) / (far - near),
        DepthForm.INVERSE: (1 / metres - 1 / far) / (1 / near - 1 / far),
    }[form]
    images, *ends = depth_forms.picture_to_colours(numbers.expand(-1, -1, -1, 3), form, near, far)
    assert ends == [near, far]
    torch.testing.assert_close(images, depth_to_colours(metres, near, far)[0], atol=1e-5, rtol=0)
    back = depth_forms.colours_to_picture(images, form, near, far)
    assert back.shape == (2, 10, 30, 3)
    torch.testing.assert_close(back, numbers.expand(-1, -1, -1, 3), atol=1e-4, rtol=0)


def test_gray_depth_without_a_range_keeps_its_numbers():
    gray = torch.linspace(0, 1, 50).reshape(1, 5, 10, 1)
    for form in (DepthForm.INVERSE, DepthForm.LINEAR):
        images, near, far = depth_forms.picture_to_colours(gray, form)
        assert near is None and far is None
        back = depth_forms.colours_to_picture(images, DepthForm.INVERSE)
        torch.testing.assert_close(back, gray.expand(-1, -1, -1, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("picture", "form", "message"),
    [
        ([[0.1, 0.5, 0.9]], DepthForm.INVERSE, "picture in colours"),
        ([[3.0], [7.0]], DepthForm.LINEAR, "values of 3 to 7, but 0 to 1 .* if they are metres, say so"),
        ([[-0.1], [0.5]], DepthForm.INVERSE, "-0.1 to 0.5"),
        ([[0.5], [0.5]], DepthForm.INVERSE, "0.5 all over"),
        ([[5.0], [5.0]], DepthForm.METRES, "5 m all over"),
        ([[0.0], [5.0]], DepthForm.METRES, "0 m or less"),
        ([[math.nan], [5.0]], DepthForm.METRES, "NaN"),
    ],
)
def test_depth_pictures_that_show_no_depth_are_refused(picture, form, message):
    with pytest.raises(ValueError, match=message):
        depth_forms.picture_to_colours(torch.tensor(picture)[None, None], form)


def test_a_range_that_is_none_is_refused_in_every_form():
    gray = torch.tensor([0.5, 1.0]).reshape(1, 1, 2, 1)
    for form in DepthForm:
        with pytest.raises(ValueError, match="range is 5 to 2 m"):
            depth_forms.picture_to_colours(gray, form, 5.0, 2.0)
    for form in (DepthForm.LINEAR, DepthForm.METRES):
        with pytest.raises(ValueError, match="needs the range"):
            depth_forms.colours_to_picture(gray.expand(-1, -1, -1, 3), form, near=1.0)


# flow


def test_wheel_has_the_colours_of_the_reference():
    # Whole steps of the 54 between the first colour and the last, by hand from colorcode.cpp: 255 * i / n, cut.
    known = {
        0: (255, 0, 0),
        1: (255, 17, 0),  # RY, 1 of 15
        15: (255, 255, 0),
        16: (213, 255, 0),  # YG, 1 of 6: 255 - 42
        21: (0, 255, 0),
        22: (0, 255, 63),  # GC, 1 of 4
        27: (0, 209, 255),  # CB, 2 of 11: 255 - 46
        36: (0, 0, 255),
        37: (19, 0, 255),  # BM, 1 of 13
        49: (255, 0, 255),
        53: (255, 0, 85),  # MR, 4 of 6: 255 - 170
    }
    angles = torch.tensor(list(known), dtype=torch.float64) * (2 * math.pi / 54)
    flow = 8 * torch.stack([angles.cos(), angles.sin()], -1).reshape(1, 1, -1, 2)
    images, _ = flow_to_colours(flow, 8.000001)
    torch.testing.assert_close(images[0, 0] * 255, torch.tensor(list(known.values())).double(), atol=1e-3, rtol=0)


def test_right_is_red_down_is_amber_and_length_is_saturation():
    flow = torch.tensor([[8.0, 0], [4, 0], [0, 0], [0, 8], [9, 0]]).reshape(1, 1, 5, 2)
    images, reach = flow_to_colours(flow, 8)
    amber = (221 + 238) / 2 / 255  # halfway between RY 13 and 14: 54 / 4 = 13.5
    expected = torch.tensor([[1, 0, 0], [1, 0.5, 0.5], [1, 1, 1], [1, amber, 0], [0.75, 0, 0]])
    torch.testing.assert_close(images[0, 0], expected, atol=1e-6, rtol=0)
    assert reach == 8


@pytest.mark.parametrize(("spoil", "error"), [(exact, 1e-5), (eight_bits, 0.01), (noisy, 0.035)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_flow_comes_back(spoil, error, kind):
    reach = 13.0
    angle, length = 2 * math.pi * draw(1, 64, 1024), reach * draw(1, 64, 1024).sqrt()
    length[:, :8], length[:, 8:16, :] = reach * (1 - 1e-6), length[:, 8:16, :] / 50
    angle[:, :, :3] = torch.tensor([0.0, 1e-9, -1e-9])
    flow = (length.unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], -1)).to(kind)
    images, _ = flow_to_colours(flow, reach)
    back = colours_to_flow(spoil(images), reach)
    assert back.shape == flow.shape and back.dtype == kind
    assert (back - flow).norm(dim=-1).max() < error * reach


def test_flow_beyond_the_reach_keeps_its_direction():
    angle = torch.linspace(0, 2 * math.pi, 400)
    ways = torch.stack([angle.cos(), angle.sin()], -1).reshape(1, 1, -1, 2)
    images, _ = flow_to_colours(20 * ways, 5)
    assert images.amax() <= 0.75
    assert (colours_to_flow(images, 5) - 5 * ways).abs().max() < 1e-4
    assert (colours_to_flow(noisy(images), 5) - 5 * ways).norm(dim=-1).max() < 5 * 0.04


def test_reach_of_a_clip_is_its_longest_motion(shot):
    images, reach = flow_to_colours(shot.forward)
    assert reach == pytest.approx(shot.forward.norm(dim=-1).max().item())
    assert (colours_to_flow(eight_bits(images), reach) - shot.forward).norm(dim=-1).max() < 0.01 * reach
    still, reach = flow_to_colours(torch.zeros(1, 2, 2, 2))
    assert reach == 1 and (still == 1).all() and (colours_to_flow(still, reach) == 0).all()


def test_flow_that_cannot_be_drawn_is_refused():
    for reach in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="reach is .* px, but a length above 0"):
            flow_to_colours(torch.zeros(1, 1, 1, 2), reach)
        with pytest.raises(ValueError, match="reach is .* px, but a length above 0"):
            colours_to_flow(torch.zeros(1, 1, 1, 3), reach)
    with pytest.raises(ValueError, match=r"The flow has 3 channels, but 2 \(x, y\) are needed"):
        flow_to_colours(torch.zeros(1, 1, 1, 3))


def test_motion_vectors_as_pictures_come_back():
    angle, length = 2 * math.pi * draw(1, 20, 30), 9 * draw(1, 20, 30).sqrt()
    flow = (length.unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], -1)).float()
    images, _ = flow_to_colours(flow, 9)
    pixels = flow_forms.colours_to_picture(images, FlowForm.PIXELS, 9)
    centred = flow_forms.colours_to_picture(images, FlowForm.CENTRED)
    assert pixels[..., 2].abs().max() == 0 and (centred[..., 2] == 0.5).all()
    torch.testing.assert_close(centred[..., :2], 0.5 + 0.5 * flow / 9, atol=1e-5, rtol=0)
    for picture, form in ((pixels, FlowForm.PIXELS), (centred, FlowForm.CENTRED)):
        torch.testing.assert_close(flow_forms.picture_to_flow(picture, form, 9), flow, atol=1e-4, rtol=0)


def test_motion_at_the_very_reach_stays_bright_through_8_bits():
    angle = torch.linspace(0, 2 * math.pi, 400)
    ways = torch.stack([angle.cos(), angle.sin(), 0 * angle], -1).reshape(1, 1, -1, 3)
    flow = flow_forms.picture_to_flow(eight_bits(0.5 + 0.5 * ways), FlowForm.CENTRED, 5)
    assert flow_to_colours(flow, 5)[0].amax(-1).min() > 0.99


def test_motion_vectors_without_a_unit_are_refused():
    still = torch.full((1, 2, 2, 3), 0.5)
    with pytest.raises(ValueError, match="needs its reach"):
        flow_forms.picture_to_flow(still, FlowForm.CENTRED)
    with pytest.raises(ValueError, match="-2 to -2, but 0 to 1 .* pixels, say so"):
        flow_forms.picture_to_flow(still - 2.5, FlowForm.CENTRED, 3)
    with pytest.raises(ValueError, match="needs the reach"):
        flow_forms.colours_to_picture(still, FlowForm.PIXELS)


# segmentation


def test_palette_is_stable_and_well_separated():
    colours = palette(343)
    assert colours[:2].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert torch.equal((colours * 255).round() / 255, colours)
    for count in (1, 2, 7, 64, 200):
        assert torch.equal(palette(count), colours[:count])
    for count, apart in ((64, 0.3333), (91, 0.28), (343, 0.16)):
        assert torch.pdist(colours[:count].double()).min() >= apart, count


def test_ids_come_back(shot):
    ids = torch.arange(343).reshape(1, 7, 49, 1)
    for few in (ids % 64, ids):
        images = ids_to_colours(few)
        assert images.shape == (1, 7, 49, 3)
        colours = palette(int(few.max()) + 1)
        for spoil in (exact, eight_bits, noisy):
            assert torch.equal(colours_to_ids(spoil(images), colours), few)
    # 24/255 in every channel is a distance of 0.163, less than half of 1/3
    assert torch.equal(colours_to_ids(noisy(ids_to_colours(ids % 64), 24 / 255), palette(64)), ids % 64)
    assert torch.equal(colours_to_ids(noisy(ids_to_colours(shot.ids)), palette(64)), shot.ids)


def test_masks_of_the_ids_add_up_to_the_picture():
    ids = torch.tensor([[0, 1, 1], [5, 0, 5]]).reshape(1, 2, 3, 1)
    assert mask_of(ids, 5).tolist() == [[[0, 0, 0], [1, 0, 1]]]
    assert (sum(mask_of(ids, number) for number in (0, 1, 5)) == 1).all()
    assert mask_of(ids, 2).sum() == 0 and mask_of(ids, 2).dtype == torch.float32


def test_segmentation_that_cannot_be_drawn_is_refused():
    for ids in (torch.tensor([-1]), torch.tensor([343]), torch.tensor([1.5])):
        with pytest.raises(ValueError, match="has ids from .* whole numbers from 0 to 342 are needed"):
            ids_to_colours(ids.reshape(1, 1, 1, 1))
    for count in (0, 344):
        with pytest.raises(ValueError, match="1 to 343 are there"):
            palette(count)
    with pytest.raises(ValueError, match="palette has shape"):
        colours_to_ids(torch.zeros(1, 1, 1, 3), torch.zeros(3))


@pytest.mark.parametrize(
    "decode",
    [lambda x: colours_to_depth(x, 1, 2), lambda x: colours_to_flow(x, 1), lambda x: colours_to_ids(x, palette(2))],
)
def test_pictures_without_colour_are_refused(decode):
    with pytest.raises(ValueError, match=r"has 1 channels, but 3 \(RGB\) are needed"):
        decode(torch.zeros(1, 2, 2, 1))
    with pytest.raises(ValueError, match="NaN or infinite"):
        decode(torch.full((1, 2, 2, 3), math.nan))


def test_masks_are_numbered_and_the_first_lies_on_top():
    first, second = torch.zeros(3, 2, 4), torch.zeros(1, 2, 4)
    first[1, 0, :2], second[:, :, 1:3] = 1, 0.6
    ids = masks_to_ids([first, second])
    assert ids.shape == (3, 2, 4, 1) and ids.dtype == torch.int64
    assert ids[..., 0].tolist() == [[[0, 2, 2, 0]] * 2, [[1, 1, 2, 0], [0, 2, 2, 0]], [[0, 2, 2, 0]] * 2]
    assert id_shares(ids) == {1: 2 / 24, 2: 11 / 24}
    assert id_shares(torch.zeros(1, 2, 2, 1, dtype=torch.int64)) == {}


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([], "0 objects to number, but 1 to 342"),
        ([torch.zeros(1, 1, 1)] * 343, "343 objects"),
        ([torch.zeros(2, 4, 4), torch.zeros(2, 4, 5)], "object 2 has 2 frames of 5x4, but all need 2 .or 1. of 4x4"),
        ([torch.zeros(2, 4, 4), torch.zeros(3, 4, 4)], "object 1 has 2 frames"),
        ([torch.full((1, 2, 2), math.nan)], "mask of object 1 has NaN"),
    ],
)
def test_masks_that_do_not_go_together_are_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        masks_to_ids(masks)


@pytest.mark.parametrize("encoding", ["depth", "flow", "segmentation", "skeleton", "densepose"])
def test_codes_are_finished_by_nothing_but_a_clamp(encoding):
    made = 1.4 * draw(2, 4, 4, 3) - 0.2
    assert torch.equal(decode(encoding, made), made.clamp(0, 1))

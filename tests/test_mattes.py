"""Mattes: levels, specks and holes, growth by parts of a pixel, the soft band; against slow obvious versions."""

import math

import numpy as np
import pytest
import torch

from comfyui_strata.imaging.compositing.islands import island_areas
from comfyui_strata.imaging.compositing.matte import (
    MatteSettings,
    fill_holes,
    grow,
    levels,
    refine_matte,
    remove_specks,
    soften,
    steady,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def disc(height: int, width: int, radius: float, x: float | None = None) -> torch.Tensor:
    """A soft disc [H, W]: an edge one pixel wide, 0 and 1 elsewhere."""
    across = torch.arange(width) + 0.5 - (width / 2 if x is None else x)
    down = (torch.arange(height) + 0.5 - height / 2).unsqueeze(1)
    return (radius - (across**2 + down**2).sqrt() + 0.5).clamp(0, 1)


# islands


def slow_areas(mask: torch.Tensor, diagonal: bool) -> torch.Tensor:
    """Flood fill, pixel by pixel."""
    height, width = mask.shape
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i or j) and (diagonal or not (i and j))]
    areas, seen = torch.zeros(height, width, dtype=torch.int64), set()
    for start in mask.nonzero().tolist():
        if tuple(start) in seen:
            continue
        island, front = {tuple(start)}, [tuple(start)]
        while front:
            row, column = front.pop()
            for i, j in steps:
                place = (row + i, column + j)
                if 0 <= place[0] < height and 0 <= place[1] < width and mask[place] and place not in island:
                    island.add(place)
                    front.append(place)
        seen |= island
        for place in island:
            areas[place] = len(island)
    return areas


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (17, 23), (30, 12)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.45, 0.6, 1.0])
def test_areas_are_those_of_a_flood_fill(share, height, width, diagonal):
    mask = noise(height, width) < share
    assert torch.equal(island_areas(mask, diagonal=diagonal), slow_areas(mask, diagonal))


def test_a_spiral_is_one_island():
    spiral = torch.zeros(41, 41, dtype=torch.bool)
    row, column, step, way = 20, 20, 2, 0
    while 0 <= row < 41 and 0 <= column < 41:
        down, across = ((0, 1), (1, 0), (0, -1), (-1, 0))[way % 4]
        for _ in range(step):
            if 0 <= row < 41 and 0 <= column < 41:
                spiral[row, column] = True
            row, column = row + down, column + across
        way, step = way + 1, step + (2 if way % 2 else 0)
    assert torch.equal(island_areas(spiral, diagonal=False), slow_areas(spiral, False))
    assert island_areas(spiral, diagonal=False).max() == spiral.sum()


def test_areas_agree_with_scikit_image():
    measure = pytest.importorskip("skimage.measure")
    mask = noise(200, 300) < 0.5
    for diagonal in (True, False):
        labels = measure.label(mask.numpy(), connectivity=2 if diagonal else 1)
        areas = np.bincount(labels.ravel())[labels] * mask.numpy()
        assert torch.equal(island_areas(mask, diagonal=diagonal), torch.from_numpy(areas))


def test_specks_and_holes_up_to_an_area_go_and_all_else_stays():
    alpha = torch.zeros(12, 12)
    alpha[1:9, 1:9] = 1
    alpha[4, 4:6] = 0.3  # a hole of 2
    alpha[6, 6] = alpha[7, 7] = 0  # two holes of 1: they meet at a corner only
    alpha[10, 10], alpha[11, 11] = 0.1, 0.9  # one speck of 2
    assert torch.equal(remove_specks(alpha, 1), alpha)
    assert torch.equal(remove_specks(alpha, 2)[:9, :9], alpha[:9, :9]) and not remove_specks(alpha, 2)[9:].any()
    once = fill_holes(alpha, 1)
    assert once[6, 6] == once[7, 7] == 1 and torch.equal(once[4], alpha[4])
    assert (fill_holes(alpha, 2)[1:9, 1:9] == 1).all() and not fill_holes(alpha, 2)[:, 0].any()
    assert not remove_specks(alpha, 1000).any() and (fill_holes(alpha, 1000) == 1).all()


# levels


def test_levels_clamp_stretch_and_bend():
    alpha = torch.tensor([-3.0, 0.0, 0.1, 0.3, 0.5, 0.9, 7.0])
    assert torch.allclose(levels(alpha, 0.1, 0.5), torch.tensor([0, 0, 0, 0.5, 1, 1, 1]))
    assert torch.equal(levels(alpha), alpha.clamp(0, 1))
    assert torch.allclose(levels(alpha, gamma=2.0), alpha.clamp(0, 1).sqrt())
    for wrong in ((0.5, 0.5, 1.0), (0.0, 1.0, 0.0), (math.nan, 1.0, 1.0)):
        with pytest.raises(ValueError, match="black below white and a gamma above 0"):
            levels(alpha, *wrong)


# growth


def slow_grow(alpha: torch.Tensor, radius: int) -> torch.Tensor:
    """The highest value within the disc, pixel by pixel; [H, W]."""
    height, width = alpha.shape
    grown = torch.empty_like(alpha)
    for row in range(height):
        for column in range(width):
            grown[row, column] = max(
                alpha[i, j] for i in range(height) for j in range(width)
                if (i - row) ** 2 + (j - column) ** 2 <= radius**2)
    return grown


@pytest.mark.parametrize("radius", [1, 2, 3, 20])
def test_growth_by_whole_pixels_is_the_highest_value_in_a_disc(radius):
    alpha = noise(2, 9, 13)
    slow = torch.stack([slow_grow(frame, radius) for frame in alpha])
    assert torch.equal(grow(alpha, radius), slow)
    assert torch.allclose(grow(1 - alpha, -radius), 1 - slow, atol=1e-7)


def test_growth_by_nothing_is_nothing():
    alpha = noise(1, 5, 5)
    assert torch.equal(grow(alpha, 0), alpha) and torch.equal(grow(alpha, -0.0), alpha)


@pytest.mark.parametrize("pixels", [-3.0, -1.75, -0.5, 0.25, 0.5, 1.3, 4.0])
def test_a_straight_edge_moves_by_just_that_part_of_a_pixel(pixels):
    column = torch.arange(40.0)
    edge = (20.3 - column).clamp(0, 1).expand(1, 6, 40)  # covered up to 20.3
    assert grow(edge, pixels)[0, 3].sum().item() == pytest.approx(20.3 + pixels, abs=1e-5)


def test_growing_a_disc_gives_a_disc():
    grown = grow(disc(60, 60, 15).unsqueeze(0), 3.5)[0]
    assert (grown - disc(60, 60, 18.5)).abs().mean() < 0.01
    assert grown.sum().item() == pytest.approx(disc(60, 60, 18.5).sum().item(), rel=0.03)


# the band


def test_soften_is_a_gaussian_in_the_band_and_nothing_outside():
    alpha = disc(30, 30, 8)
    alpha[:, 14:] = torch.where((alpha > 0) & (alpha < 1), noise(30, 30) * 0.9 + 0.05, alpha)[:, 14:]
    done = soften(alpha.unsqueeze(0), 1.2)[0]
    band = (alpha > 0) & (alpha < 1)
    assert torch.equal(done[~band], alpha[~band]) and not torch.equal(done[band], alpha[band])
    reach = math.ceil(3 * 1.2)
    row, column = 15, int(band[15].nonzero()[-1])
    weights = torch.exp(-0.5 * ((torch.arange(-reach, reach + 1) ** 2)[:, None] + torch.arange(-reach, reach + 1) ** 2)
                        / 1.2**2)
    window = alpha[row - reach : row + reach + 1, column - reach : column + reach + 1]
    assert done[row, column].item() == pytest.approx((weights * window).sum().item() / weights.sum().item(), abs=1e-6)
    assert torch.equal(soften(alpha.unsqueeze(0), 0)[0], alpha)


def test_steady_takes_the_median_in_the_band_only():
    around = torch.tensor([[[0.2, 0.9, 0.5, 0.3]], [[0.6, 1.0, 0.0, 0.4]], [[0.3, 0.1, 0.5, 0.9]]])
    assert torch.equal(steady(around, 1), torch.tensor([[0.3, 1.0, 0.0, 0.4]]))


def test_flicker_in_the_band_goes_and_a_moving_edge_stays():
    frames = torch.stack([disc(24, 40, 7, x=12 + 0.1 * i) for i in range(9)])
    steadied = refine_matte(frames, MatteSettings(frames=1))
    flicker = frames.clone()
    flicker[4] = torch.where((frames[4] > 0) & (frames[4] < 1), (frames[4] + 0.3).clamp(0.01, 0.99), frames[4])
    error = (refine_matte(flicker, MatteSettings(frames=1))[4] - steadied[4]).abs()
    assert error.mean() < 0.3 * (flicker[4] - frames[4]).abs().mean()
    assert (steadied - frames).abs().mean() < 0.01


# all of it


def test_refining_runs_the_steps_in_order():
    alpha = noise(5, 14, 17) * 1.4 - 0.2
    settings = MatteSettings(black=0.1, white=0.9, gamma=1.2, specks=3, holes=2, frames=1, grow=-0.5, blur=0.8)
    clean = torch.stack([fill_holes(remove_specks(levels(frame, 0.1, 0.9, 1.2), 3), 2) for frame in alpha])
    padded = torch.cat((clean[:1], clean, clean[-1:]))
    stable = torch.stack([steady(padded[i : i + 3], 1) for i in range(5)])
    refined = refine_matte(alpha, settings)
    assert torch.equal(refined, soften(grow(stable, -0.5), 0.8))
    assert refined.min() >= 0 and refined.max() <= 1


def test_the_defaults_only_clamp():
    alpha = noise(2, 4, 5) * 3 - 1
    assert torch.equal(refine_matte(alpha, MatteSettings()), alpha.clamp(0, 1))
    still = refine_matte(alpha[:1], MatteSettings(frames=3))
    assert torch.equal(still, alpha[:1].clamp(0, 1))


@pytest.mark.parametrize(
    ("alpha", "sentence"),
    [
        (torch.full((2, 3, 3), torch.nan), "The matte has NaN or infinite pixels in 2 of 2 frames"),
        (torch.zeros(3, 3), r"The matte has shape \[3, 3\]"),
        (torch.zeros(0, 3, 3), "The matte is empty"),
        (torch.zeros(1, 3, 3, 3), "The matte has 3 channels"),
    ],
)
def test_what_is_no_matte_is_refused(alpha, sentence):
    with pytest.raises(ValueError, match=sentence):
        refine_matte(alpha, MatteSettings())

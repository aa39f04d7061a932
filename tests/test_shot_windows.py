"""Shots of any size and length for a captioner: `imaging.sizes.shot_windows`."""

import pytest
import torch

from comfyui_strata.imaging.sizes.shot_windows import choose_frames, fit_clip, merge_captions, windows


def ramp(height, width, frames=1):
    """Pixels [F, H, W, 2] that hold their own place, (y, x) in 0..1."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack((y, x, x), dim=-1).expand(frames, -1, -1, -1)


@pytest.mark.parametrize(("size", "to", "shown"), [
    ((40, 60), (20, 20), (1.0, 2 / 3)),   # wide: the sides go
    ((60, 40), (20, 20), (2 / 3, 1.0)),   # tall: above and below go
    ((10, 20), (40, 80), (1.0, 1.0)),     # small: scaled up whole
    ((7, 13), (16, 16), (1.0, 7 / 13)),
])
def test_cover_scales_the_largest_centred_part(size, to, shown):
    fitted = fit_clip(ramp(*size, frames=2), *to)
    assert fitted.shape == (2, *to, 3)
    middle = fitted[0, to[0] // 4 : -to[0] // 4, to[1] // 4 : -to[1] // 4]  # bicubic bends at the edges
    assert middle.mean(dim=(0, 1))[:2].sub(0.5).abs().max() < 0.01  # centred
    for axis, part in enumerate(shown):
        slope = (fitted[0].select(1 - axis, to[1 - axis] // 2)[..., axis].diff()[to[axis] // 4 : -to[axis] // 4]).mean()
        assert slope * to[axis] == pytest.approx(part, abs=0.05)


def test_highlights_do_not_bleed_and_nothing_leaves_0_to_1():
    images = torch.zeros(1, 32, 32, 3)
    images[0, 16, 16] = 1000.0
    fitted = fit_clip(images, 16, 16)
    assert fitted.min() >= 0 and fitted.max() <= 1 and (fitted > 0.01).sum() < 40


def test_crop_takes_the_middle_in_its_own_pixels_and_refuses_what_is_smaller():
    images = ramp(21, 30)
    assert torch.equal(fit_clip(images, 11, 20, "crop"), images[:, 5:16, 5:25])
    with pytest.raises(ValueError, match="is 30x21 pixels, and cropping needs 32x16 at least"):
        fit_clip(images, 16, 32, "crop")


def test_whole_and_equal_sizes_are_untouched():
    images = ramp(21, 30) * 3
    assert fit_clip(images, 16, 16, "whole") is images and fit_clip(images, 21, 30) is images


def test_what_cannot_be_fitted_is_said():
    with pytest.raises(ValueError, match="use one of cover, crop, whole"):
        fit_clip(ramp(4, 4), 4, 4, "stretch")
    with pytest.raises(ValueError, match="NaN or infinite pixels in 1 of 1 frames"):
        fit_clip(torch.full((1, 4, 4, 3), torch.nan), 4, 4)
    with pytest.raises(ValueError, match="is empty"):
        fit_clip(torch.zeros(0, 4, 4, 3), 4, 4)
    for function in (choose_frames, windows):
        with pytest.raises(ValueError, match="at least 1"):
            function(0, 81)


@pytest.mark.parametrize("most", [1, 4, 5, 13, 81])
def test_frames_are_chosen_evenly(most):
    for count in range(1, 200):
        chosen = choose_frames(count, most)
        assert len(chosen) % 4 == 1 and len(chosen) <= most and len(set(chosen)) == len(chosen)
        assert chosen[0] >= 0 and chosen[-1] < count and chosen == sorted(chosen)
        assert len(chosen) + 4 > min(count, most)
        if len(chosen) > 1:
            steps = torch.tensor(chosen).diff()
            assert chosen[0] == 0 and chosen[-1] == count - 1 and steps.max() - steps.min() <= 1


def test_all_frames_of_a_fitting_clip_and_the_middle_one_of_few():
    assert choose_frames(9, 81) == list(range(9))
    assert choose_frames(3, 81) == [1] and choose_frames(100, 1) == [49]


@pytest.mark.parametrize("most", [1, 4, 5, 13, 81])
def test_windows_cover_a_long_shot_and_hardly_overlap(most):
    for count in range(most + 1, 300):
        found = windows(count, most)
        length = len(found[0])
        assert {len(window) for window in found} == {length} and length % 4 == 1 and length <= most
        assert set().union(*found) == set(range(count))
        longest = (most - 1) // 4 * 4 + 1
        assert len(found) == -(-count // longest)  # as few as can be
        overlaps = [a.stop - b.start for a, b in zip(found, found[1:])]
        assert all(0 <= overlap <= 8 for overlap in overlaps)


def test_a_short_shot_is_one_window():
    assert windows(81, 81) == [range(81)] and windows(80, 81) == [range(77)] and windows(1, 81) == [range(1)]


@pytest.mark.parametrize(("captions", "merged"), [
    ([], ""),
    (["", "  "], ""),
    (["a dog runs"], "a dog runs"),
    (["a dog runs", "a dog runs"], "a dog runs"),
    (["A dog runs. It barks!", "a  dog runs! It sleeps"], "A dog runs. It barks! It sleeps."),
    (["f/1.8 lens, 3.5 m. Night", "", "Night. Rain?"], "f/1.8 lens, 3.5 m. Night. Rain?"),
    (["一只狗。在跑！", "一只狗。它睡了"], "一只狗。 在跑！ 它睡了."),
    (["...", "a cat"], "a cat."),
])
def test_captions_are_merged_by_sentence(captions, merged):
    assert merge_captions(captions) == merged

"""The metrics on known perturbations: each gives the number that theory says, and one clear sentence for bad input."""

import math
import sys

import pytest
import torch
import torch.nn.functional

from comfyui_strata.imaging.colour import linear_to_srgb, srgb_to_linear
from comfyui_strata.training import metrics

F, H, W = 3, 20, 24
exact = pytest.approx


def random(*shape: int, low: float = 0.0, high: float = 1.0, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=draw, dtype=torch.float64)


def noise(*shape: int, sigma: float, seed: int = 9) -> torch.Tensor:
    return sigma * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def picture(low: float = 0.1, high: float = 0.9, seed: int = 0, channels: int = 3) -> torch.Tensor:
    return random(F, H, W, channels, low=low, high=high, seed=seed)


def flat(value: float, *shape: int) -> torch.Tensor:
    return torch.full(shape or (F, H, W, 1), value, dtype=torch.float64)


def blur(images: torch.Tensor, times: int) -> torch.Tensor:
    planes = images.movedim(-1, 1)  # [F, H, W, C] -> [F, C, H, W]
    for _ in range(times):
        planes = torch.nn.functional.avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)
    return planes.movedim(1, -1)


# ---- PSNR and SSIM ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset, decibel", [(0.1, 20.0), (0.01, 40.0), (1.0, 0.0)])
def test_psnr_of_an_offset(offset, decibel):
    assert metrics.psnr(flat(0.0) + offset, flat(0.0)) == exact(decibel)


def test_psnr_of_noise_follows_its_variance():
    truth = flat(0.5, 4, 100, 100, 3)
    assert metrics.psnr(truth + noise(*truth.shape, sigma=0.05), truth) == exact(-20 * math.log10(0.05), abs=0.05)


def test_psnr_averages_frames_in_decibel_and_stays_finite():
    truth, predicted = flat(0.5, 2, 4, 4, 3), flat(0.5, 2, 4, 4, 3)
    predicted[1] += 0.1
    assert metrics.psnr(truth, truth) == exact(100.0)
    assert metrics.psnr(predicted, truth) == exact((100 + 20) / 2)


def test_ssim_is_one_for_equal_pictures_and_falls_with_blur():
    truth = blur(picture(), 1)
    scores = [metrics.ssim(blur(truth, times), truth) for times in (0, 1, 2, 4)]
    assert scores[0] == exact(1.0)
    assert scores == sorted(scores, reverse=True) and scores[-1] < 0.6


def test_ssim_of_one_window_by_hand():
    one, other = random(11, 11, seed=1), random(11, 11, seed=2)
    bell = torch.tensor([math.exp(-(x**2) / (2 * 1.5**2)) for x in range(-5, 6)], dtype=torch.float64)
    weight = bell[:, None] * bell[None] / bell.sum() ** 2

    def mean(values):
        return (weight * values).sum().item()

    a, b, c1, c2 = mean(one), mean(other), 0.01**2, 0.03**2
    spread = mean((one - a) ** 2) + mean((other - b) ** 2)
    together = mean((one - a) * (other - b))
    theory = (2 * a * b + c1) / (a * a + b * b + c1) * (2 * together + c2) / (spread + c2)
    assert metrics.ssim(one[None, ..., None], other[None, ..., None]) == exact(theory)


def test_ssim_of_two_even_pictures_is_its_luminance_term():
    a, b, c1 = 0.4, 0.6, 0.01**2
    assert metrics.ssim(flat(a), flat(b)) == exact((2 * a * b + c1) / (a * a + b * b + c1))


def test_ssim_of_a_lowered_contrast_is_its_structure_term():
    # Every 11x11 window of a fine checkerboard has nearly the mean 0.5, so the luminance term is nearly 1.
    rows, columns = torch.arange(40)[:, None], torch.arange(40)[None]
    board = ((rows + columns) % 2).double()[None, ..., None] - 0.5
    gain, variance, c2 = 0.5, 0.25, 0.03**2
    theory = (2 * gain * variance + c2) / (variance * (1 + gain**2) + c2)
    assert metrics.ssim(0.5 + gain * board, 0.5 + board) == exact(theory, abs=1e-4)


# ---- albedo and irradiance -------------------------------------------------------------------------------------------


def light(encoded: torch.Tensor, gain) -> torch.Tensor:
    """A layer whose linear light is multiplied."""
    return linear_to_srgb(gain * srgb_to_linear(encoded))


def test_a_scaled_albedo_has_no_error():
    truth = picture()
    for gain in (0.25, 3.0):  # one of them above 1: nothing may be clipped
        assert metrics.albedo_intensity_error(light(truth, gain), truth) == exact(0, abs=1e-18)
        assert metrics.albedo_chroma_error(light(truth, gain), truth) == exact(0, abs=1e-6)


def test_albedo_intensity_error_by_hand():
    # Linear intensities: predicted (1, 1), true (1, 0): the best scale is 1/2, the errors are 1/2 and -1/2.
    predicted, truth = flat(1.0, 1, 1, 2, 3), flat(1.0, 1, 1, 2, 3)
    truth[0, 0, 1] = 0
    assert metrics.albedo_intensity_error(predicted, truth) == exact(0.25)


def test_the_scale_is_of_the_clip_so_a_drifting_brightness_costs():
    truth = flat(0.5, 2, 4, 4, 3)
    drifting = light(truth, torch.tensor([1.0, 2.0], dtype=torch.float64)[:, None, None, None])
    value = srgb_to_linear(torch.tensor(0.5)).item()
    # p = (v, 2v), t = (v, v): s = 3/5, errors 2/5 v and 1/5 v
    assert metrics.albedo_intensity_error(drifting, truth) == exact(value**2 * (0.16 + 0.04) / 2)


def test_intensity_ignores_hue_and_chroma_sees_it():
    truth = linear_to_srgb(flat(0.3, 1, 2, 2, 3))
    tinted = linear_to_srgb(torch.tensor([0.4, 0.3, 0.2], dtype=torch.float64).expand(1, 2, 2, 3))
    assert metrics.albedo_intensity_error(tinted, truth) == exact(0, abs=1e-18)
    assert metrics.albedo_chroma_error(tinted, truth) > 5


def test_chroma_error_of_two_grays_is_the_published_difference():
    # L* 50 and L* 60, after a third pixel that keeps the scale at nearly 1. CIEDE2000 of grays:
    # dL / S_L with S_L = 1 + 0.015 (L - 50)^2 / sqrt(20 + (L - 50)^2) at the mean L of 55.
    def gray(lightness: float) -> float:
        return linear_to_srgb(torch.tensor(((lightness + 16) / 116) ** 3, dtype=torch.float64)).item()

    truth, predicted = flat(gray(50), 1, 1, 1, 3), flat(gray(60), 1, 1, 1, 3)
    bright = flat(100.0, 1, 1, 1, 3)  # far above white: its weight in the fit hides the other pixel's
    truth, predicted = torch.cat([truth, bright], dim=2), torch.cat([predicted, bright], dim=2)
    mean = metrics.albedo_chroma_error(predicted, truth)
    assert 2 * mean == exact(10 / (1 + 0.015 * 25 / math.sqrt(20 + 25)), abs=1e-3)


def test_pixelwise_chroma_error_ignores_every_lightness():
    truth = picture()
    shaded = light(truth, random(F, H, W, 1, low=0.2, high=2.0, seed=3))
    assert metrics.albedo_chroma_error(shaded, truth, fit="pixel") == exact(0, abs=1e-6)
    assert metrics.albedo_chroma_error(shaded, truth) > 5
    assert metrics.albedo_chroma_error(torch.zeros_like(truth), truth, fit="pixel") > 5


def test_a_mask_leaves_pixels_out():
    truth, mask = picture(), torch.zeros(F, H, W)
    mask[:, :10] = 1
    predicted = truth.clone()
    predicted[:, 10:] = random(F, H - 10, W, 3, seed=5)
    for metric in (
        metrics.albedo_intensity_error,
        metrics.albedo_chroma_error,
        metrics.irradiance_error,
        metrics.irradiance_log_error,
    ):
        assert metric(predicted, truth) > 1e-4
        assert metric(predicted, truth, mask) == exact(0, abs=1e-6)
        assert metric(predicted, truth, mask[..., None]) == metric(predicted, truth, mask.bool())


def test_irradiance_error_ignores_scale_and_has_the_noise_of_known_size():
    truth = flat(0.5, 4, 100, 100, 3)
    assert metrics.irradiance_error(light(truth, 7.0), truth) == exact(0, abs=1e-9)
    noisy = linear_to_srgb(srgb_to_linear(truth) + noise(*truth.shape, sigma=0.01))
    assert metrics.irradiance_error(noisy, truth) == exact(0.01, rel=0.02)


def test_irradiance_log_error_of_known_factors():
    truth = flat(0.5, 1, 2, 2, 3)
    swing = torch.tensor([[2.0, 0.5], [2.0, 0.5]], dtype=torch.float64)[None, ..., None]
    assert metrics.irradiance_log_error(light(truth, 7.0), truth) == exact(0, abs=1e-9)
    assert metrics.irradiance_log_error(light(truth, swing), truth) == exact(math.log(2))
    assert metrics.irradiance_log_error(torch.zeros_like(truth), truth) == exact(0, abs=1e-9)  # even, so finite


# ---- consistency of layers -------------------------------------------------------------------------------------------


def test_rebuild_is_exact_for_a_product_at_any_exposure():
    albedo, irradiance = picture(seed=1), picture(seed=2)
    rgb = linear_to_srgb(2.5 * srgb_to_linear(albedo) * srgb_to_linear(irradiance))
    assert metrics.rebuild_error(albedo, irradiance, rgb) == exact(0, abs=1e-9)


def test_rebuild_error_is_the_sine_of_the_angle():
    # Linear product (1, 1), rgb (1, 0): 45 degrees apart.
    ones, rgb = flat(1.0, 1, 1, 2, 3), flat(1.0, 1, 1, 2, 3)
    rgb[0, 0, 1] = 0
    assert metrics.rebuild_error(ones, ones, rgb) == exact(math.sqrt(0.5))
    assert metrics.rebuild_error(0 * ones, ones, rgb) == exact(1.0)


def test_composite_is_exact_in_the_light_it_was_mixed_in():
    fg, bg, alpha = picture(seed=1), picture(seed=2), picture(0, 1, seed=3, channels=1)
    mixed = linear_to_srgb(alpha * srgb_to_linear(fg) + (1 - alpha) * srgb_to_linear(bg))
    assert metrics.composite_error(fg, alpha, bg, mixed) == exact(0, abs=1e-9)
    assert metrics.composite_error(fg, alpha.expand(-1, -1, -1, 3), bg, mixed) == exact(0, abs=1e-9)
    assert metrics.composite_error(fg, alpha, bg, alpha * fg + (1 - alpha) * bg, linear=False) == exact(0, abs=1e-9)
    assert metrics.composite_error(fg, alpha, bg, mixed, linear=False) > 1e-3


def test_composite_error_of_a_wrong_alpha():
    # White over black: the error of the light is the error of alpha.
    alpha = flat(0.5)
    assert metrics.composite_error(flat(1.0, F, H, W, 3), alpha, flat(0.0, F, H, W, 3), linear_to_srgb(
        flat(0.7, F, H, W, 3))) == exact(0.2)  # fmt: skip


# ---- normals ---------------------------------------------------------------------------------------------------------


def normals() -> torch.Tensor:
    vectors = random(F, H, W, 3, low=-1, high=1, seed=4)
    return 0.5 * vectors / vectors.norm(dim=-1, keepdim=True) + 0.5


def tilted(degrees: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Normals in the xz plane, and the same turned about y."""

    def stored(angle):
        return 0.5 + 0.5 * torch.stack([angle.sin(), torch.zeros_like(angle), angle.cos()], dim=-1)

    angle = random(F, H, W, low=-1, high=1)
    return stored(angle + math.radians(degrees)), stored(angle)


@pytest.mark.parametrize("degrees", [1e-4, 11.2, 11.3, 22.4, 22.6, 29.9, 30.1, 90.0, 179.0])
def test_turned_normals_give_that_angle(degrees):
    found = metrics.normal_errors(*tilted(degrees))
    assert found["mean"] == exact(degrees, rel=1e-6) and found["median"] == exact(degrees, rel=1e-6)
    for limit in (11.25, 22.5, 30):
        assert found[f"under_{limit:g}"] == (100 if degrees < limit else 0)


def test_mean_median_and_shares_of_a_mixture():
    predicted, truth = tilted(0.0)
    turned, _ = tilted(25.0)
    predicted[:, :, : W // 4] = turned[:, :, : W // 4]
    found = metrics.normal_errors(predicted, truth)
    assert found["mean"] == exact(25 / 4) and found["median"] == exact(0, abs=1e-9)
    assert [found[key] for key in ("under_11.25", "under_22.5", "under_30")] == exact([75, 75, 100])


def test_length_of_a_normal_does_not_count_but_its_absence_does():
    truth = normals()
    assert metrics.normal_errors(0.5 + 0.3 * (truth - 0.5), truth)["mean"] == exact(0, abs=1e-6)
    assert metrics.normal_errors(torch.full_like(truth, 128 / 255), truth)["mean"] == 90
    predicted, truth = tilted(10.0)
    truth[:, : H // 2] = 0.5  # no surface there
    predicted[:, : H // 2] = 1.0
    assert metrics.normal_errors(predicted, truth)["mean"] == exact(10)
    assert len(metrics.normal_angles(predicted, truth)) == F * H * W // 2


# ---- depth, flow, segmentation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("align", ["scale", "median", "affine", "inverse"])
def test_depth_up_to_its_alignment_has_no_error(align):
    truth = picture(1, 5, channels=1)
    predicted = 3 * truth + (7 if align == "affine" else 0)
    if align == "inverse":
        predicted = 1 / (3 / truth + 7)
    found = metrics.depth_errors(predicted, truth, align=align)
    assert found == exact({"abs_rel": 0, "rmse": 0, "delta1": 100}, abs=1e-9)


@pytest.mark.parametrize("factor, share", [(1.2, 100), (1.3, 0), (0.85, 100), (0.75, 0)])
def test_metric_depth_off_by_a_factor(factor, share):
    truth = picture(1, 5, channels=1)
    found = metrics.depth_errors(factor * truth, truth, align="none")
    rmse = abs(factor - 1) * truth.square().mean().sqrt().item()
    assert found == exact({"abs_rel": abs(factor - 1), "rmse": rmse, "delta1": share})


def test_depth_without_truth_is_left_out_and_a_negative_one_is_wrong():
    truth = flat(2.0)
    predicted = truth.clone()
    truth[:, : H // 2], predicted[:, : H // 2] = 0, 9
    predicted[:, H // 2 :, : W // 2] *= -1
    found = metrics.depth_errors(predicted, truth, align="none")
    assert found == exact({"abs_rel": 1.0, "rmse": math.sqrt(8), "delta1": 50})


def test_flow_error_by_hand():
    # Errors of 5, 5, 2 and 0 pixels; the second is below 5 % of a flow of 200.
    truth = torch.tensor([[0.0, 0.0], [200.0, 0.0], [0.0, 0.0], [1.0, 1.0]])[None, None]
    offset = torch.tensor([[3.0, 4.0], [5.0, 0.0], [0.0, 2.0], [0.0, 0.0]])[None, None]
    assert metrics.flow_errors(truth + offset, truth) == exact({"epe": 3.0, "f1_all": 25.0})


def test_miou_by_hand():
    truth = torch.tensor([[0, 0, 1, 1, 2, 2]])[None, ..., None]
    predicted = torch.tensor([[0, 0, 1, 0, 2, 3]])[None, ..., None]
    # 0: 2 of 3, 1: 1 of 2, 2: 1 of 2, 3: 0 of 1
    assert metrics.segmentation_miou(predicted, truth) == exact((2 / 3 + 1 / 2 + 1 / 2 + 0) / 4)
    assert metrics.segmentation_miou(truth, truth) == 1
    mask = torch.tensor([[1, 1, 1, 0, 1, 0]])[None]
    assert metrics.segmentation_miou(predicted, truth, mask) == 1


def test_colours_become_the_nearest_label():
    palette = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 1]])
    labels = torch.randint(0, 3, (F, H, W, 1), generator=torch.Generator().manual_seed(0))
    drawn = palette[labels[..., 0]] + noise(F, H, W, 3, sigma=0.05)
    assert torch.equal(metrics.colour_labels(drawn, palette), labels)


# ---- alpha -----------------------------------------------------------------------------------------------------------


def test_alpha_offset_is_exact():
    truth = picture(0.2, 0.8, channels=1)
    assert metrics.alpha_mad(truth + 0.1, truth) == exact(100)
    assert metrics.alpha_mse(truth - 0.1, truth) == exact(10)
    assert metrics.alpha_mad((truth + 0.1).expand(-1, -1, -1, 3), truth) == exact(100)


def test_identical_alphas_have_no_error():
    alpha = picture(0, 1, channels=1)
    for metric in (metrics.alpha_mad, metrics.alpha_mse, metrics.alpha_grad, metrics.alpha_conn, metrics.alpha_dtssd):
        assert metric(alpha, alpha) == 0


def edge(at: int, soft: int = 0) -> torch.Tensor:
    """Out on the left, in from column `at` on, blurred."""
    alpha = flat(0.0)
    alpha[:, :, at:] = 1
    return blur(alpha, soft)


def step_response(distance: int) -> float:
    """What the 9-tap derivative of a Gaussian answers to a unit step, its unit-norm filter summed by hand."""
    bell = [math.exp(-(x**2) / (2 * 1.4**2)) for x in range(-4, 5)]
    slope = [x * b for x, b in zip(range(-4, 5), bell)]
    norm = math.sqrt(sum(b * b for b in bell) * sum(s * s for s in slope))
    return sum(bell) * sum(s for x, s in zip(range(-4, 5), slope) if x >= distance) / norm


def test_grad_of_a_shifted_edge_is_what_the_filters_say():
    assert metrics.alpha_grad(edge(12), edge(12)) == 0
    theory = H * sum((abs(step_response(d)) - abs(step_response(d - 1))) ** 2 for d in range(-6, 8)) / 1000
    assert metrics.alpha_grad(edge(13), edge(12)) == exact(theory)
    errors = [metrics.alpha_grad(edge(12 + shift), edge(12)) for shift in (0, 1, 2, 3)]
    assert errors == sorted(errors) and errors[1] > 0


def test_grad_sees_softness_and_unless_stretched_contrast():
    assert metrics.alpha_grad(edge(12, soft=2), edge(12)) > metrics.alpha_grad(edge(12, soft=1), edge(12)) > 0
    assert metrics.alpha_grad(0.5 * edge(12), edge(12)) == exact(0, abs=1e-12)
    whole = metrics.alpha_grad(flat(0.0), edge(12), stretch=False)
    assert metrics.alpha_grad(0.5 * edge(12), edge(12), stretch=False) == exact(whole / 4)
    assert metrics.alpha_grad(flat(0.3), flat(0.9)) == 0  # even frames: nothing to stretch, no gradient


def matte(**areas: tuple[slice, slice]) -> torch.Tensor:
    alpha = flat(0.0)
    for rows, columns in areas.values():
        alpha[:, rows, columns] = 1
    return alpha


BODY, BLOB = (slice(4, 16), slice(2, 12)), (slice(6, 9), slice(15, 19))  # 120 and 12 pixels


def test_conn_counts_the_pixels_of_a_loose_blob():
    # phi of the blob is 0 in the prediction (alpha 1, level 0) and 1 in the truth: each of its pixels costs 1.
    assert metrics.alpha_conn(matte(body=BODY, blob=BLOB), matte(body=BODY)) == exact(12 / 1000)
    assert metrics.alpha_conn(matte(body=BODY), matte(body=BODY, blob=BLOB)) == exact(12 / 1000)
    both = matte(body=BODY, blob=BLOB)
    assert metrics.alpha_conn(both, both) == 0


def test_conn_takes_diagonal_neighbours_as_apart():
    corner = matte(body=BODY, corner=(slice(16, 17), slice(12, 13)))
    faint = corner.clone()
    faint[:, 16, 12] = 0.9
    # Loose, the corner's level is 0 and its phi 0 against 0.1. Held, both would stand within 0.15 of the level 0.9.
    assert metrics.alpha_conn(corner, faint) == exact(0.1 / 1000)


def test_conn_follows_the_largest_area_from_the_lowest_threshold_on():
    first = (slice(0, 2), slice(0, 5))  # 10 pixels, before the body in reading order
    truth = matte(body=BODY, first=first)
    truth[(slice(None), *BODY)] = 0.5
    predicted = truth.clone()
    predicted[(slice(None), *first)] = 0.9
    # Above 0.5 the small area alone is left and so the largest, but up to 0.5 it was not: its level stays 0.
    assert metrics.alpha_conn(predicted, truth) == exact(10 * 0.1 / 1000)


@pytest.mark.parametrize("dip, cost", [(0.05, 0), (0.2, 0.2), (0.5, 0.5)])
def test_conn_of_a_dip_inside_the_matte(dip, cost):
    # 12 body pixels reach only 1 - dip in the prediction, so their level ends there; the truth stands above it.
    predicted = matte(body=BODY)
    predicted[:, 6:9, 4:8] -= dip
    expected = 12 * cost / 1000
    assert metrics.alpha_conn(predicted, matte(body=BODY)) == exact(expected, abs=1e-12)


def test_dtssd_is_blind_to_a_constant_error_and_has_the_noise_of_known_size():
    truth = random(1, 100, 100, 1, low=0.4, high=0.6).expand(6, -1, -1, -1)
    assert metrics.alpha_dtssd(truth + 0.1, truth) == exact(0, abs=1e-12)
    noisy = truth + noise(*truth.shape, sigma=0.02)
    assert metrics.alpha_dtssd(noisy, truth) == exact(100 * math.sqrt(2) * 0.02, rel=0.02)


def test_dtssd_of_a_swing():
    swing = torch.tensor([0.05, -0.05, 0.05])[:, None, None, None]
    assert metrics.alpha_dtssd(flat(0.5) + swing, flat(0.5)) == exact(10.0)


# ---- flicker ---------------------------------------------------------------------------------------------------------


def test_flicker_of_known_amplitude():
    still, swing = flat(0.5), torch.tensor([0.1, -0.1, 0.1])[:, None, None, None]
    assert metrics.flicker_score(still) == 1
    assert metrics.flicker_score(still + swing) == exact(1 - 0.2)
    assert metrics.flicker_score(flat(51 / 255, 2, 4, 4, 3) * torch.tensor([0, 1.0])[:, None, None, None]) == exact(0.8)


def test_change_error_forgives_the_truths_own_motion():
    moving = picture()
    swing = torch.tensor([0.1, -0.1, 0.1])[:, None, None, None]
    assert metrics.flicker_score(moving) < 0.9
    assert metrics.change_error(moving + 0.05, moving) == exact(0, abs=1e-12)
    assert metrics.change_error(moving + swing, moving) == exact(0.2)


# ---- bad input -------------------------------------------------------------------------------------------------------

COLOUR = (
    metrics.psnr, metrics.ssim, metrics.albedo_intensity_error, metrics.albedo_chroma_error, metrics.irradiance_error,
    metrics.irradiance_log_error, metrics.change_error, metrics.normal_errors,
)  # fmt: skip
ALPHA = (metrics.alpha_mad, metrics.alpha_mse, metrics.alpha_grad, metrics.alpha_conn, metrics.alpha_dtssd)
PAIRS = [
    *((metric, 3) for metric in COLOUR), *((metric, 1) for metric in ALPHA), (metrics.depth_errors, 1),
    (metrics.flow_errors, 2), (metrics.segmentation_miou, 1),
]  # fmt: skip


def refused(metric, *layers, match: str, **settings):
    with pytest.raises(ValueError, match=match) as caught:
        metric(*layers, **settings)
    assert str(caught.value)[0].isupper() and str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("metric, channels", PAIRS, ids=lambda value: getattr(value, "__name__", None))
def test_bad_input_is_one_sentence(metric, channels):
    good = flat(1.0, F, H, W, channels)
    for bad_value in (math.nan, math.inf):
        bad = good.clone()
        bad[1, 2, 3] = bad_value
        refused(metric, bad, good, match="predicted .* NaN or infinite values in 1 of 3 frames .*first is frame 1")
        refused(metric, good, bad, match="true .* NaN or infinite")
    refused(metric, good[:, :-1], good, match=r"\[3, 19, 24, .*\[3, 20, 24, ")
    refused(metric, good[0], good[0], match=r"\[frames, height, width, channels\] is needed")
    refused(metric, good[:0], good[:0], match="is empty")
    five = flat(1.0, F, H, W, 5)
    refused(metric, five, five, match="has 5 channels")


@pytest.mark.parametrize(
    "metric, channels",
    [(metrics.normal_errors, 3), (metrics.irradiance_error, 3), (metrics.depth_errors, 1), (metrics.flow_errors, 2)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_masks_are_refused(metric, channels):
    good = flat(1.0, F, H, W, channels)
    refused(metric, good, good, torch.zeros(F, H, W), match="No pixel is left")
    refused(metric, good, good, torch.ones(F, H, W - 1), match=r"mask has shape \[3, 20, 23\]")
    refused(metric, good, good, torch.full((F, H, W), math.nan), match="mask has NaN")


def test_what_else_is_refused():
    one, three = flat(0.5), flat(0.5, F, H, W, 3)
    for metric in (metrics.alpha_dtssd, metrics.change_error):
        refused(metric, one[:1], one[:1], match="got 1 frame")
    refused(metrics.flicker_score, one[:1], match="got 1 frame")
    refused(metrics.flicker_score, one * math.nan, match="NaN")
    refused(metrics.ssim, three[:, :8], three[:, :8], match="11x11 pixels and the layer is 24x8")
    refused(metrics.normal_errors, three, three, match="No pixel is left")  # no surface anywhere
    refused(metrics.depth_errors, one, 0 * one, match="No pixel is left")
    refused(metrics.depth_errors, one, one, match="aligned by 'best'", align="best")
    refused(metrics.albedo_chroma_error, three, three, match="fit='region'", fit="region")
    refused(metrics.segmentation_miou, one, one, match="no whole numbers")
    refused(metrics.colour_labels, three, torch.zeros(4), match="palette has shape")
    refused(metrics.rebuild_error, three, three, 0 * three, match="rgb is black")
    refused(metrics.rebuild_error, three, three * math.nan, three, match="irradiance has NaN")
    refused(metrics.rebuild_error, three, three[:1], three, match="albedo has shape .* irradiance")
    refused(metrics.composite_error, three, one, three[:1], three, match="alpha has shape .* bg")
    refused(metrics.composite_error, three, one * math.nan, three, three, match="alpha has NaN")


def test_without_scikit_image_the_sentence_says_what_to_install(monkeypatch):
    for part in ("metrics", "color", "measure"):
        monkeypatch.setitem(sys.modules, f"skimage.{part}", None)
    for metric in (metrics.ssim, metrics.albedo_chroma_error, metrics.alpha_conn):
        with pytest.raises(ImportError, match=r"need scikit-image, .* pip install 'comfyui-strata\[train\]'"):
            metric(picture(), picture())


def test_float32_and_gradients_are_welcome():
    truth = picture().float().requires_grad_()
    assert metrics.psnr(truth + 0.1, truth) == exact(20, abs=1e-4)
    assert metrics.ssim(truth, truth) == exact(1)
    assert metrics.alpha_conn(truth, truth) == 0

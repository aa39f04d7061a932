"""Rebuilding a plate from albedo and irradiance: the fit, the residual, the identity."""

import math

import pytest
import torch

from comfyui_strata.imaging.colour import linear_to_srgb, srgb_to_linear
from comfyui_strata.imaging.light.rebuild import fit_irradiance, rebuild_clip
from comfyui_strata.training.scenes import render


def same(pixels):
    return pixels


def nothing():
    pass


def made_with(gain, gamma, count=4000, seed=0):
    """albedo, irradiance and the plate they make, [N, 3]."""
    generator = torch.Generator().manual_seed(seed)
    albedo = 0.05 + 0.9 * torch.rand(count, 3, generator=generator)
    irradiance = 0.02 + 1.5 * torch.rand(count, 3, generator=generator)
    return albedo, irradiance, albedo * torch.tensor(gain) * irradiance ** torch.tensor(gamma)


@pytest.mark.parametrize("gain, gamma", [((1.7,) * 3, (1.0,) * 3), ((0.3,) * 3, (2.2,) * 3), ((9.0,) * 3, (0.5,) * 3)])
def test_one_curve_for_all_channels_is_found(gain, gamma):
    albedo, irradiance, plate = made_with(gain, gamma)
    fit = fit_irradiance(plate, albedo, irradiance, gamma=True, per_channel=False)
    assert fit.gain == pytest.approx(gain, rel=1e-4) and fit.gamma == pytest.approx(gamma, abs=1e-4)
    assert fit.after < 1e-5 < fit.before and fit.share > 0.9
    torch.testing.assert_close(albedo * fit.apply(irradiance), plate, atol=1e-4, rtol=1e-4)


def test_each_channel_has_a_curve_of_its_own():
    gain, gamma = (0.5, 1.0, 2.0), (1.3, 0.8, 2.0)
    albedo, irradiance, plate = made_with(gain, gamma)
    fit = fit_irradiance(plate, albedo, irradiance, gamma=True, per_channel=True)
    assert fit.gain == pytest.approx(gain, rel=1e-4) and fit.gamma == pytest.approx(gamma, abs=1e-4)
    no_gamma = fit_irradiance(plate, albedo, irradiance, gamma=False, per_channel=True)
    assert no_gamma.gamma == (1.0,) * 3 and no_gamma.after > fit.after


def test_highlights_and_noise_do_not_lead_the_fit_astray():
    albedo, irradiance, plate = made_with((1.4,) * 3, (1.2,) * 3)
    generator = torch.Generator().manual_seed(5)
    plate = plate + 0.005 * torch.randn(plate.shape, generator=generator)
    plate[:800] += 3 * torch.rand(800, 3, generator=generator)  # a fifth of the picture shines
    fit = fit_irradiance(plate, albedo, irradiance, gamma=True, per_channel=False)
    assert fit.gain[0] == pytest.approx(1.4, rel=0.01) and fit.gamma[0] == pytest.approx(1.2, abs=0.01)
    assert 0.6 < fit.share < 0.81
    least_squares = float((plate * albedo * irradiance).sum() / (albedo * irradiance).square().sum())
    assert abs(least_squares / 1.4 - 1) > 0.1


def test_layers_of_another_shot_stay_finite():
    """A plate that is darker where the irradiance is brighter asks for a gamma below 0, and black for a division."""
    albedo, irradiance, _ = made_with((1.0,) * 3, (1.0,) * 3)
    plate = albedo * 0.1 / irradiance
    irradiance[:10] = 0
    fit = fit_irradiance(plate, albedo, irradiance, gamma=True, per_channel=False)
    assert fit.apply(irradiance).isfinite().all() and 0 < fit.gamma[0] < 1 and fit.after < fit.before


def test_a_fit_without_anything_to_fit_changes_nothing():
    dark = torch.zeros(50, 3)
    fit = fit_irradiance(dark, dark + 0.5, dark, gamma=True, per_channel=True)
    assert fit.gain == fit.gamma == (1.0,) * 3
    flat = torch.full((50, 3), 0.5)  # no contrast: the gain is known, the gamma is not
    fit = fit_irradiance(0.8 * flat * flat, flat, flat, gamma=True, per_channel=False)
    torch.testing.assert_close(fit.apply(flat), 0.8 * flat)
    negative = torch.tensor([[-0.5, 0.0, 0.5]])
    assert fit.apply(negative)[0, 0] == -fit.apply(negative)[0, 2] and fit.apply(negative)[0, 1] == 0


@pytest.mark.parametrize("seed", [0, 4, 9])
def test_a_shot_with_highlights_is_rebuilt_to_rounding(seed):
    """The layers miss the plate by a gain and a curve, and the highlights are the residual."""
    shot = render(seed, 2, 48, 64, specular=True, film_samples=0)
    light = (shot.irradiance / 0.7) ** (1 / 1.3)
    layers = {"plate": shot.rgb_linear, "albedo": shot.albedo_linear, "irradiance": light}
    albedo, irradiance, residual, fit = rebuild_clip(
        layers, dict.fromkeys(layers, same), same, gamma=True, per_channel=False, after_frame=nothing)  # fmt: skip
    again = albedo * irradiance + residual
    # Half a unit in the last place for each of the product, the difference and the sum
    assert ((again - shot.rgb_linear).abs() / shot.rgb_linear.clamp_min(1e-3)).max() < 2e-6
    assert fit.gain == pytest.approx((0.7,) * 3, rel=0.02) and fit.gamma == pytest.approx((1.3,) * 3, abs=0.02)
    torch.testing.assert_close(residual, shot.specular, atol=0.03, rtol=0.05)
    assert fit.after < 0.5 * fit.before


def test_the_identity_survives_srgb_codes_and_bands(monkeypatch):
    monkeypatch.setattr("comfyui_strata.imaging.frames._PIXELS", 100)
    generator = torch.Generator().manual_seed(2)
    layers = {name: torch.rand(frames, 17, 23, 3, generator=generator)
              for name, frames in (("plate", 3), ("albedo", 1), ("irradiance", 3))}  # fmt: skip
    layers["plate"][0, 0, 0] = torch.tensor([4.0, -0.2, 0.0])
    done = []
    albedo, irradiance, residual, fit = rebuild_clip(
        layers, dict.fromkeys(layers, srgb_to_linear), linear_to_srgb, gamma=True, per_channel=True,
        after_frame=lambda: done.append(1))  # fmt: skip
    assert len(done) == 3 and albedo.shape == (3, 17, 23, 3)
    again = linear_to_srgb(srgb_to_linear(albedo) * srgb_to_linear(irradiance) + srgb_to_linear(residual))
    torch.testing.assert_close(again, layers["plate"], atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(srgb_to_linear(irradiance), fit.apply(srgb_to_linear(layers["irradiance"])))


def test_the_report_says_what_was_found():
    albedo, irradiance, plate = made_with((1.7,) * 3, (1.1,) * 3)
    text = str(fit_irradiance(plate, albedo, irradiance, gamma=True, per_channel=False))
    assert "irradiance x 1.700 1.700 1.700 (r g b), gamma 1.100" in text
    before = math.sqrt(float((plate - albedo * irradiance).square().mean()))
    assert f"residual 0.0000 rms in linear light ({before:.4f} before the fit)" in text


@pytest.mark.parametrize(
    "change, message",
    [({"plate": torch.full((1, 8, 8, 3), torch.inf)}, "The plate has NaN or infinite"),
     ({"albedo": torch.ones(1, 8, 9, 3)}, "differ in size"), ({"albedo": torch.ones(8, 8, 3)}, "The albedo has shape")],
)  # fmt: skip
def test_wrong_layers_are_refused_in_one_sentence(change, message):
    layers = {name: torch.ones(1, 8, 8, 3) for name in ("plate", "albedo", "irradiance")} | change
    with pytest.raises(ValueError, match=message) as caught:
        rebuild_clip(layers, dict.fromkeys(layers, same), same, gamma=True, per_channel=False, after_frame=nothing)
    assert "\n" not in str(caught.value)

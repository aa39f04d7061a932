"""Albedo and irradiance: right up to a scale, which no picture can tell, and right as a product.

All layers come sRGB-encoded, [F, H, W, 3], 0..1 nominal (highlights above 1 are kept), and are decoded to linear light
here. One scale is fitted for the whole clip, so a layer whose brightness drifts from frame to frame pays for it.
"""

import torch
from torch import Tensor

from ...imaging.colour import linear_to_srgb, srgb_to_linear
from .checks import NothingToMeasure, check_layer, check_pair, check_same_size, scale_fit, select, skimage


def albedo_intensity_error(predicted: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Squared error of the albedo's intensity after the best scale. Linear reflectance squared, >= 0; lower is better.

    predicted, truth: albedo [F, H, W, 3], sRGB-encoded. mask: see `select`. Intensity i is the mean of the three linear
    channels; s = <i_p, i_t> / <i_p, i_p>; the mean of (s i_p - i_t)^2. Papers print it times 100. Source: Measured
    Albedo in the Wild (Wu et al. 2023), which compares the median colours of regions of even albedo; here every pixel
    counts.
    """
    predicted, truth = _linear_pair("albedo", predicted, truth)
    counted = select(mask, truth)
    predicted, truth = predicted.mean(-1)[counted], truth.mean(-1)[counted]
    return ((scale_fit(predicted, truth) * predicted - truth) ** 2).mean().item()


def albedo_chroma_error(predicted: Tensor, truth: Tensor, mask: Tensor | None = None, *, fit: str = "clip") -> float:
    """Mean colour difference of the albedo, CIEDE2000 (D65, 2 degree observer). Delta E, >= 0 (about 1 is just
    noticeable); lower is better.

    predicted, truth: albedo [F, H, W, 3], sRGB-encoded. mask: see `select`. Before comparing, the linear prediction is
    scaled. fit="clip": by the one scale of `albedo_intensity_error`, so errors of lightness count too. fit="pixel":
    each pixel to its true intensity, so hue and saturation alone count; Measured Albedo in the Wild (Wu et al. 2023)
    does that to each region. Black pixels stay black. Source: CIE 142-2001, by scikit-image.
    """
    predicted, truth = _linear_pair("albedo", predicted, truth)
    counted = select(mask, truth)
    predicted, truth = predicted[counted], truth[counted]  # [N, 3]
    ours, theirs = predicted.mean(-1, keepdim=True), truth.mean(-1, keepdim=True)
    if fit == "clip":
        scale = scale_fit(ours, theirs)
    elif fit == "pixel":
        scale = torch.where(ours > 0, theirs / ours.clamp_min(1e-12), 0)
    else:
        raise ValueError(f'The chroma error was asked for with fit={fit!r}: use "clip" or "pixel".')
    color = skimage("color")
    lab = [color.rgb2lab(linear_to_srgb(linear).cpu().numpy()) for linear in (scale * predicted, truth)]
    return float(color.deltaE_ciede2000(*lab).mean())


def irradiance_error(predicted: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Scale-invariant RMSE of the irradiance. Linear light in the truth's unit, >= 0; lower is better.

    predicted, truth: irradiance [F, H, W, 3], sRGB-encoded. mask: see `select`. s = <p, t> / <p, p> over pixels and
    channels together, so the colour of the light must be right; the root of the mean of (s p - t)^2.
    Source: Grosse et al. 2009 (the scale), as reported for shading by DiffusionRenderer and UniVidX.
    """
    predicted, truth = _linear_pair("irradiance", predicted, truth)
    counted = select(mask, truth)
    predicted, truth = predicted[counted], truth[counted]
    return ((scale_fit(predicted, truth) * predicted - truth) ** 2).mean().sqrt().item()


def irradiance_log_error(
    predicted: Tensor, truth: Tensor, mask: Tensor | None = None, *, floor: float = 1e-3
) -> float:
    """Scale-invariant RMSE of the irradiance's logarithm. Natural log units (0.69 is one stop), >= 0; lower is better.

    predicted, truth: irradiance [F, H, W, 3], sRGB-encoded. mask: see `select`. d = ln p - ln t, both raised to `floor`
    (linear) at least; the standard deviation of d. It weighs shadows like lights. Source: Eigen et al. 2014, lambda =
    1.
    """
    predicted, truth = _linear_pair("irradiance", predicted, truth)
    counted = select(mask, truth)
    difference = predicted[counted].clamp_min(floor).log() - truth[counted].clamp_min(floor).log()
    return difference.std(correction=0).item()


def rebuild_error(albedo: Tensor, irradiance: Tensor, rgb: Tensor, mask: Tensor | None = None) -> float:
    """How far albedo x irradiance is from rgb, as a part of rgb. No unit, 0 (exact) to 1 (unrelated); lower is better.

    albedo, irradiance, rgb: [F, H, W, 3], sRGB-encoded. mask: see `select`. In linear light, with m = albedo irradiance
    and s = <m, rgb> / <m, m>: |s m - rgb| / |rgb|, which is the sine of the angle between the two. Speculars and
    emission in rgb count as error: they are in neither layer. Raises NothingToMeasure for an rgb that is black wherever
    it counts. Source: Strata (cross-layer consistency).
    """
    check_same_size("albedo", albedo, "irradiance", irradiance)
    check_same_size("albedo", albedo, "rgb", rgb)
    layers = {"albedo": albedo, "irradiance": irradiance, "rgb": rgb}
    albedo, irradiance, rgb = (srgb_to_linear(check_layer(f"The {n}", layer, (3,))) for n, layer in layers.items())
    counted = select(mask, rgb)
    product, rgb = (albedo * irradiance)[counted], rgb[counted]
    if not rgb.any():
        raise NothingToMeasure("The rgb is black wherever it counts, so there is nothing to rebuild; leave it out.")
    return ((scale_fit(product, rgb) * product - rgb).norm() / rgb.norm()).item()


def _linear_pair(name: str, predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    predicted, truth = check_pair(name, predicted, truth, (3,))
    return srgb_to_linear(predicted), srgb_to_linear(truth)

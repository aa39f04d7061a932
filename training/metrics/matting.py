"""Alpha: the five numbers of the matting papers, and whether fg, alpha and bg give the plate.

An alpha is [F, H, W, 1|3] in 0..1, 1 = in, no curve; of three channels the mean is taken, values outside are clamped.
Units are those of Robust Video Matting's evaluation (Lin et al. 2021), which is what the papers' tables hold: every
pixel counts (no trimap), each frame gives a number, frames are averaged.
"""

import math

import numpy as np
import torch
import torch.nn.functional
from torch import Tensor

from ...imaging.colour import srgb_to_linear
from ...imaging.encodings.layers import as_mask
from .checks import check_layer, check_same_size, skimage


def alpha_mad(predicted: Tensor, truth: Tensor) -> float:
    """Mean absolute difference of alpha. Thousandths (an offset of 0.01 gives 10), 0..1000; lower is better.

    predicted, truth: alpha, see the top of the file. Source: Robust Video Matting (the alpha-matting benchmark's SAD,
    averaged instead of summed).
    """
    predicted, truth = _pair(predicted, truth)
    return 1e3 * (predicted - truth).abs().mean().item()


def alpha_mse(predicted: Tensor, truth: Tensor) -> float:
    """Mean squared difference of alpha. Thousandths (an offset of 0.1 gives 10), 0..1000; lower is better.

    predicted, truth: alpha, see the top of the file. Source: Rhemann et al. 2009; Robust Video Matting.
    """
    predicted, truth = _pair(predicted, truth)
    return 1e3 * ((predicted - truth) ** 2).mean().item()


def alpha_grad(predicted: Tensor, truth: Tensor, *, stretch: bool = True) -> float:
    """Gradient error: how sharp and how well placed edges are. Thousandths of a sum over pixels, so it grows with the
    picture: compare at one size only. >= 0; lower is better.

    predicted, truth: alpha, see the top of the file. G is the length of alpha's gradient by first derivatives of a
    Gaussian, sigma 1.4, 9 x 9, each filter of unit Euclidean norm, edge pixels repeated; the sum of (G_p - G_t)^2 of
    each frame / 1000, averaged over frames. stretch: first stretch each alpha frame to 0..1, as the published scripts
    do, which hides errors of contrast; False leaves it as it is, as Rhemann et al. define it. Source: Rhemann et al.
    2009, with the numbers of Robust Video Matting.
    """
    predicted, truth = _pair(predicted, truth)
    if stretch:
        predicted, truth = _stretch(predicted), _stretch(truth)
    error = (_gradient(predicted) - _gradient(truth)) ** 2
    return error.flatten(1).sum(dim=1).mean().item() / 1e3


def alpha_conn(predicted: Tensor, truth: Tensor) -> float:
    """Connectivity error: parts of the matte that hang loose. Thousandths of a sum over pixels, so it grows with the
    picture: compare at one size only. >= 0; lower is better.

    predicted, truth: alpha, see the top of the file. For each threshold 0.1, 0.2 .. 1 the source region is the largest
    4-connected area where both alphas reach it; l of a pixel is the highest threshold (or 0) up to which it belongs to
    all of them. phi = 1 - (alpha - l) where alpha - l >= 0.15, else 1; the sum of |phi_p - phi_t| of each frame / 1000,
    averaged over frames. Of equally large areas the first in reading order is taken.
    Source: Rhemann et al. 2009 (step 0.1, theta 0.15, p 1), as in Robust Video Matting.
    """
    predicted, truth = _pair(predicted, truth)
    sums = [_connectivity(one, other) for one, other in zip(predicted.cpu().numpy(), truth.cpu().numpy())]
    return sum(sums) / len(sums) / 1e3


def alpha_dtssd(predicted: Tensor, truth: Tensor) -> float:
    """Error of alpha's change from frame to frame: flicker, not the offset of a constant error. Hundredths, 0..200;
    lower is better.

    predicted, truth: alpha, see the top of the file, at least 2 frames. For each pair of neighbours the root of the
    mean over pixels of (change_p - change_t)^2, averaged over the F - 1 pairs. Robust Video Matting's script also
    averages in a 0 for the first frame: its number is (F - 1) / F of this one. Source: Erofeev et al. 2015.
    """
    predicted, truth = _pair(predicted, truth)
    if len(truth) < 2:
        raise ValueError("The dtSSD compares neighbouring frames and got 1 frame; give at least 2.")
    change = predicted.diff(dim=0) - truth.diff(dim=0)  # [F - 1, H, W]
    return 1e2 * (change**2).flatten(1).mean(dim=1).sqrt().mean().item()


def composite_error(fg: Tensor, alpha: Tensor, bg: Tensor, plate: Tensor, *, linear: bool = True) -> float:
    """How far over(fg, alpha, bg) is from the plate: RMSE. Linear light (or sRGB code values), >= 0; lower is better.

    fg (straight, not premultiplied), bg, plate: [F, H, W, 3], sRGB-encoded. alpha: see the top of the file. The root of
    the mean of (alpha fg + (1 - alpha) bg - plate)^2. linear: mix light, as the camera does; False mixes code values,
    as many training sets were made. Source: Porter and Duff 1984; cross-layer consistency is Strata's.
    """
    layers = {"fg": fg, "bg": bg, "plate": plate}
    for name, layer in layers.items():
        check_same_size("alpha", alpha, name, layer, dims=3)
    fg, bg, plate = (check_layer(f"The {name}", layer, (3,)) for name, layer in layers.items())
    mix = as_mask(check_layer("The alpha", alpha, (1, 3)))[..., None]
    if linear:
        fg, bg, plate = srgb_to_linear(fg), srgb_to_linear(bg), srgb_to_linear(plate)
    return ((mix * fg + (1 - mix) * bg - plate) ** 2).mean().sqrt().item()


def _pair(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Both alphas as [F, H, W] float64 in 0..1; one may have a channel and the other three."""
    check_same_size("predicted alpha", predicted, "true alpha", truth, dims=3)
    predicted = check_layer("The predicted alpha", predicted, (1, 3))
    return as_mask(predicted), as_mask(check_layer("The true alpha", truth, (1, 3)))


def _stretch(alpha: Tensor) -> Tensor:
    """Each frame of [F, H, W] to 0..1; an even frame becomes 0."""
    low, high = alpha.amin((1, 2), keepdim=True), alpha.amax((1, 2), keepdim=True)
    return (alpha - low) / torch.where(high > low, high - low, 1)


def _gradient(alpha: Tensor, sigma: float = 1.4, epsilon: float = 1e-2) -> Tensor:
    """Length of the Gaussian gradient, [F, H, W] to the same. The filters end where the Gaussian falls to `epsilon`."""
    half = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * epsilon)))
    x = torch.arange(-half, half + 1, dtype=alpha.dtype, device=alpha.device)
    bell = torch.exp(-(x**2) / (2 * sigma**2))
    slope = x * bell  # its sign does not matter to a length
    # A 2D filter is the product of the two, so it is run as two 1D ones; each of unit norm makes the product one.
    bell, slope = (taps / taps.norm() for taps in (bell, slope))
    padded = torch.nn.functional.pad(alpha[:, None], (half,) * 4, mode="replicate")  # [F, 1, H + 2*half, W + 2*half]

    def run(rows: Tensor, columns: Tensor) -> Tensor:
        smoothed = torch.nn.functional.conv2d(padded, columns[None, None, None])
        return torch.nn.functional.conv2d(smoothed, rows[None, None, :, None])[:, 0]

    return torch.hypot(run(bell, slope), run(slope, bell))


def _connectivity(predicted: np.ndarray, truth: np.ndarray) -> float:
    """The connectivity sum of one frame, [H, W] both."""
    label = skimage("measure").label
    level = np.zeros_like(truth)
    held = np.ones(truth.shape, dtype=bool)  # in every source region so far
    for step in range(1, 11):
        areas = label((predicted >= step / 10) & (truth >= step / 10), connectivity=1)
        sizes = np.bincount(areas.ravel())[1:]
        held &= areas == sizes.argmax() + 1 if len(sizes) else False
        level[held] = step / 10
    loose = [(alpha - level) * (alpha - level >= 0.15) for alpha in (predicted, truth)]
    return float(np.abs(loose[0] - loose[1]).sum())

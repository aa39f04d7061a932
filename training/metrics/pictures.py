"""How close a picture is to the true picture: PSNR and SSIM, for every layer that an eye looks at.

LPIPS is left out: it needs the weights of a trained network, which would have to be downloaded.
"""

import torch
from torch import Tensor

from .checks import check_pair, skimage

_MOST = 100.0  # dB


def psnr(predicted: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio. dB, 0 (all wrong) to 100; higher is better.

    predicted, truth: [F, H, W, 1|3] in 0..1 as the layer is stored: colour layers sRGB-encoded, as the field reports
    them. Each frame gives 10 log10(1 / MSE) over its pixels and channels; the frames are averaged. A frame counts 100
    at most, which is also what equal frames get, so that the mean stays finite. Source: the standard definition, peak
    1.
    """
    predicted, truth = check_pair("layer", predicted, truth, (1, 3))
    error = ((predicted - truth) ** 2).flatten(1).mean(dim=1)  # [F]
    return (-10 * error.clamp_min(10 ** (-_MOST / 10)).log10()).mean().item()


def ssim(predicted: Tensor, truth: Tensor) -> float:
    """Structural similarity. No unit, -1..1, 1 for equal pictures; higher is better.

    predicted, truth: [F, H, W, 1|3] in 0..1 as stored (colour sRGB-encoded), at least 11 x 11 pixels. Windows are
    Gaussian of sigma 1.5 (11 x 11), K1 = 0.01, K2 = 0.03, population variances, peak 1; the mean over the pixels whose
    window lies inside the frame, the channels and the frames. Source: Wang et al. 2004, by scikit-image.
    """
    predicted, truth = check_pair("layer", predicted, truth, (1, 3))
    height, width = truth.shape[1:3]
    if min(height, width) < 11:
        raise ValueError(f"SSIM's window is 11x11 pixels and the layer is {width}x{height}; give larger pictures.")
    measure = skimage("metrics").structural_similarity
    each = [
        measure(
            one, other, data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for one, other in zip(predicted.cpu().numpy(), truth.cpu().numpy())
    ]
    return torch.tensor(each, dtype=torch.float64).mean().item()

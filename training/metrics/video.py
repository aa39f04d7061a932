"""How a clip moves: flicker by itself, and against the truth's own change. Nothing is warped."""

from torch import Tensor

from .checks import check_layer, check_pair


def flicker_score(images: Tensor) -> float:
    """VBench's temporal flickering: (255 - mean absolute difference of neighbouring frames) / 255. No unit, 0..1, 1 for
    a still; higher is better, but on clips of static scenes only: motion lowers it like flicker does.

    images: [F, H, W, 1|3] in 0..1 as stored (colour sRGB-encoded), at least 2 frames. VBench reads 8-bit frames; here
    the values are not rounded, which moves the score by 1/255 at most. Source: Huang et al. 2024 (VBench).
    """
    images = check_layer("The layer", images, (1, 3))
    _require_neighbours(images)
    return 1 - images.diff(dim=0).abs().mean().item()


def change_error(predicted: Tensor, truth: Tensor) -> float:
    """Flicker against the truth: the mean of |change_p - change_t| from frame to frame. The layer's own values, 0..2;
    lower is better.

    predicted, truth: [F, H, W, 1|3] in 0..1 as stored (colour sRGB-encoded), at least 2 frames. Motion that the truth
    has too costs nothing, a constant error costs nothing; values that swing by +-a from frame to frame cost 2a. Source:
    Strata; the mean absolute sibling of dtSSD (Erofeev et al. 2015).
    """
    predicted, truth = check_pair("layer", predicted, truth, (1, 3))
    _require_neighbours(truth)
    return (predicted.diff(dim=0) - truth.diff(dim=0)).abs().mean().item()


def _require_neighbours(images: Tensor):
    if len(images) < 2:
        raise ValueError("Flicker is measured between neighbouring frames and got 1 frame; give at least 2.")

"""The field's metrics: pure functions of layers [F, H, W, C], joints and captions that give plain numbers.

Layers come as sockets carry them: colour sRGB-encoded 0..1, normals 0.5 n + 0.5, alpha 0..1; depth, flow and labels as
their functions say. Each docstring has the definition, the unit, the range, which way is better, and the source. Wrong
input (shapes that differ, NaN) raises ValueError with one sentence, input in which nothing counts its NothingToMeasure.
What needs scikit-image, of the `train` extra, imports it when called.
"""

from .body import densepose_errors, drawing_errors, pose_errors, read_dots
from .captions import Score, edit_error, exact_match, fact_scores
from .checks import NothingToMeasure
from .geometry import (
    colour_labels,
    depth_errors,
    flow_errors,
    normal_angles,
    normal_errors,
    normal_summary,
    segmentation_accuracy,
    segmentation_matched_miou,
    segmentation_miou,
)
from .intrinsic import (
    albedo_chroma_error,
    albedo_intensity_error,
    irradiance_error,
    irradiance_log_error,
    rebuild_error,
)
from .matting import alpha_conn, alpha_dtssd, alpha_grad, alpha_mad, alpha_mse, composite_error
from .pictures import psnr, ssim
from .video import change_error, flicker_score

__all__ = [
    "NothingToMeasure",
    "Score",
    "albedo_chroma_error",
    "albedo_intensity_error",
    "alpha_conn",
    "alpha_dtssd",
    "alpha_grad",
    "alpha_mad",
    "alpha_mse",
    "change_error",
    "colour_labels",
    "composite_error",
    "densepose_errors",
    "depth_errors",
    "drawing_errors",
    "edit_error",
    "exact_match",
    "fact_scores",
    "flicker_score",
    "flow_errors",
    "irradiance_error",
    "irradiance_log_error",
    "normal_angles",
    "normal_errors",
    "normal_summary",
    "pose_errors",
    "psnr",
    "read_dots",
    "rebuild_error",
    "segmentation_accuracy",
    "segmentation_matched_miou",
    "segmentation_miou",
    "ssim",
]

"""What every metric asks of its inputs, and the least-squares scale and the best pairing that several of them share.

F, H, W, C: frames, height, width, channels. Everything is computed in float64 on the device of the inputs.
"""

import importlib
from types import ModuleType

import torch
from torch import Tensor


class NothingToMeasure(ValueError):
    """The layers are sound, but hold nothing that this metric is about: no surface, no light."""


def check_layer(name: str, values: Tensor, channels: tuple[int, ...]) -> Tensor:
    """`values` [F, H, W, C] as float64. Raises ValueError, one sentence that starts with `name`, for another number of
    dimensions, an empty tensor, a C that is not in `channels`, and NaN or infinite values."""
    shape = list(values.shape)
    if values.ndim != 4:
        raise ValueError(f"{name} has shape {shape}, but [frames, height, width, channels] is needed; reshape it.")
    if values.numel() == 0:
        raise ValueError(f"{name} is empty (shape {shape}), but at least one pixel is needed; load a clip with frames.")
    if shape[-1] not in channels:
        allowed = " or ".join(map(str, channels))
        raise ValueError(f"{name} has {shape[-1]} channels, but {allowed} are needed; convert it first.")
    broken = ~torch.isfinite(values).flatten(1).all(dim=1)  # [F]
    if broken.any():
        raise ValueError(
            f"{name} has NaN or infinite values in {int(broken.sum())} of {shape[0]} frames (the first is frame "
            f"{int(broken.int().argmax())}), but finite values are needed; mend or leave out those frames."
        )
    return values.detach().double()


def check_pair(name: str, predicted: Tensor, truth: Tensor, channels: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Prediction and truth as float64, of one shape [F, H, W, C]. Raises ValueError as `check_layer`, or naming both
    shapes when they differ."""
    check_same_size(f"predicted {name}", predicted, f"true {name}", truth)
    return (
        check_layer(f"The predicted {name}", predicted, channels),
        check_layer(f"The true {name}", truth, channels),
    )


def check_same_size(first_name: str, first: Tensor, second_name: str, second: Tensor, dims: int = 4):
    """Raises ValueError, naming both shapes, when the first `dims` sizes of two tensors differ."""
    if first.ndim != second.ndim or first.shape[:dims] != second.shape[:dims]:
        raise ValueError(
            f"The {first_name} has shape {list(first.shape)} and the {second_name} {list(second.shape)}, but they are "
            "compared pixel by pixel; bring both to one size and length."
        )


def select(mask: Tensor | None, like: Tensor) -> Tensor:
    """The pixels that count, [F, H, W] bool, for a layer `like` [F, H, W, C].

    mask: [F, H, W] or [F, H, W, 1], bool or 0..1, counted where above 0.5; None counts all. Raises ValueError for
    another size, NaN, and a mask in which nothing counts.
    """
    if mask is None:
        return torch.ones(like.shape[:3], dtype=torch.bool, device=like.device)
    flat = mask[..., 0] if mask.ndim == 4 and mask.shape[-1] == 1 else mask
    if flat.shape != like.shape[:3]:
        raise ValueError(
            f"The mask has shape {list(mask.shape)}, but the layer's [frames, height, width] is "
            f"{list(like.shape[:3])}; give one value for each pixel."
        )
    if not torch.isfinite(flat).all():
        raise ValueError("The mask has NaN or infinite values, but 0 (left out) to 1 (counts) are needed; mend it.")
    return require_some(flat > 0.5)


def require_some(counted: Tensor) -> Tensor:
    """`counted` itself. Raises NothingToMeasure when no pixel of it is True."""
    if not counted.any():
        raise NothingToMeasure("No pixel is left to measure: widen the mask, or give a truth that has valid pixels.")
    return counted


def scale_fit(predicted: Tensor, truth: Tensor) -> Tensor:
    """The s that minimises the sum of (s * predicted - truth)^2: <p, t> / <p, p>, or 0 for a prediction of zeros."""
    energy = (predicted * predicted).sum()
    return (predicted * truth).sum() / energy if energy > 0 else torch.zeros_like(energy)


def best_pairs(scores: Tensor) -> list[tuple[int, int]]:
    """Rows and columns of scores [N, M] paired one to one, min(N, M) pairs, so that the sum of their scores is
    greatest (Kuhn 1955). Raises ImportError, saying what to install, without SciPy, which scikit-image brings."""
    rows, columns = _train_extra("scipy.optimize").linear_sum_assignment(scores.cpu().numpy(), maximize=True)
    return list(zip(rows.tolist(), columns.tolist()))


def skimage(part: str) -> ModuleType:
    """That module of scikit-image. Raises ImportError, saying what to install, without it."""
    return _train_extra(f"skimage.{part}")


def _train_extra(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        sentence = "The metrics need scikit-image, which is not installed: pip install 'comfyui-strata[train]'."
        raise ImportError(sentence) from error

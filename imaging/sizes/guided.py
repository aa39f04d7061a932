"""Low-resolution layers at the plate's full size, with the plate as guide.

In every small window a layer is taken for a linear function of the plate's colours, q = a . I + b: where the plate has
an edge, the layer gets it (He, Sun & Tang 2013, "Guided Image Filtering", with the colour guide of its section 3.5). a
and b are found at the layer's own size and enlarged (He & Sun 2015, "Fast Guided Filter"). What the result then has
lost against the layer is added back once (Irani & Peleg 1991, back projection). C channels, [h, w] the layer's size,
[H, W] full size.
"""

import torch
import torch.nn.functional
from torch import Tensor

_DARK = 1e-3  # linear: with less light a ratio is noise


def guided_upsample(layer: Tensor, guide: Tensor, radius: int = 1, grain: float = 0.01) -> Tensor:
    """One frame of a layer at the guide's size: [h, w, C] and [H, W, 3] to [H, W, C], unclamped.

    layer: any values; the guide in sRGB code values. radius: of the window, in the layer's pixels, from 1. grain: the
    guide's noise in code values, > 0: fainter steps are none. Each size of the guide is at least the layer's.
    """
    height, width = guide.shape[:2]
    full, low = guide.movedim(-1, 0), layer.movedim(-1, 0)  # [3, H, W], [C, h, w]
    slope, offset = _local_lines(_shrink(full, *low.shape[1:]), low, radius, grain**2)
    made = torch.empty(height, width, len(low))
    for channel in range(len(low)):  # one by one: together the enlarged slopes would be four times the layer
        lines = _enlarge(torch.cat([slope[channel], offset[channel, None]]), height, width)  # [4, H, W]
        made[..., channel] = torch.addcmul(lines[3], lines[0], full[0]).addcmul_(lines[1], full[1]).addcmul_(
            lines[2], full[2])
    lost = low - _shrink(made.movedim(-1, 0), *low.shape[1:])
    for channel in range(len(low)):
        made[..., channel] += _enlarge(lost[channel, None], height, width)[0]
    return made


def albedo_by_ratio(plate: Tensor, irradiance: Tensor) -> Tensor:
    """plate / irradiance, all linear, [..., 3], cut to 0..1. Irradiance counts as 0.001 at least."""
    return (plate / irradiance.clamp_min(_DARK)).clamp(0, 1)


def inconsistency(made: Tensor, layer: Tensor) -> float:
    """Root mean square of what differs between a frame [H, W, C], shrunk again, and the layer [h, w, C] it is of."""
    return float((_shrink(made.movedim(-1, 0), *layer.shape[:2]).movedim(0, -1) - layer).square().mean().sqrt())


def _local_lines(guide: Tensor, layer: Tensor, radius: int, noise: float) -> tuple[Tensor, Tensor]:
    """Slopes [C, 3, h, w] and offsets [C, h, w] of layer [C, h, w] as a linear function of guide [3, h, w]."""
    guide_mean, layer_mean = _mean(guide, radius), _mean(layer, radius)
    spread = _mean((guide[:, None] * guide).flatten(0, 1), radius).unflatten(0, (3, 3))
    spread = spread - guide_mean[:, None] * guide_mean + noise * torch.eye(3)[..., None, None]  # [3, 3, h, w]
    shared = _mean((layer[:, None] * guide).flatten(0, 1), radius).unflatten(0, (len(layer), 3))
    shared = shared - layer_mean[:, None] * guide_mean  # [C, 3, h, w]
    slope = torch.linalg.solve(spread.permute(2, 3, 0, 1), shared.permute(2, 3, 1, 0)).permute(3, 2, 0, 1)
    offset = layer_mean - (slope * guide_mean).sum(1)
    return _mean(slope.flatten(0, 1), radius).unflatten(0, (len(layer), 3)), _mean(offset, radius)


def _mean(planes: Tensor, radius: int) -> Tensor:
    """The mean of the window around every pixel, [K, h, w], of what of the window lies in the picture."""
    return torch.nn.functional.avg_pool2d(planes, 2 * radius + 1, 1, radius, count_include_pad=False)


def _shrink(planes: Tensor, height: int, width: int) -> Tensor:
    return torch.nn.functional.interpolate(planes[None], size=(height, width), mode="area")[0]


def _enlarge(planes: Tensor, height: int, width: int) -> Tensor:
    return torch.nn.functional.interpolate(planes[None], size=(height, width), mode="bilinear")[0]

"""How well albedo x irradiance makes the plate, what brightens them to do so best, and what is left over.

Linear light; irradiance over pi. A model's layers are right up to a brightness, and the curve of its irradiance is an
assumption: plate ~ albedo * gain * irradiance ^ gamma is fitted, over the whole clip at once so that nothing flickers.
Albedo stays. The fit is robust: highlights, glass and what glows are no product of the two; they are left to
residual = plate - albedo * irradiance', so that albedo * irradiance' + residual is the plate to float rounding.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..checks import check_pixels
from ..frames import at, common_size, in_bands

_SAMPLES = 1 << 17  # pixels that the fit looks at, evenly over the clip
_DARK = 1e-3  # linear: less light says more of noise and 8 bits than of the fit
_STEPS = 30
_GAMMAS = 0.2, 5.0  # of curves that there are; below 0, which layers of another shot ask for, black would be infinite
_TUKEY = 4.685  # times the spread: where Tukey's biweight stops to count a pixel; 95 % efficient on clean ones


@dataclass(frozen=True)
class LightFit:
    """irradiance' = gain * irradiance ^ gamma, by channel, and how well albedo * irradiance' makes the plate.

    before, after: root mean square of plate - albedo * irradiance, without and with the fit, linear. share: of the
    values that the fit could use, those that albedo * irradiance' meets within 5 %.
    """

    gain: tuple[float, float, float]
    gamma: tuple[float, float, float]
    before: float
    after: float
    share: float

    def apply(self, irradiance: Tensor) -> Tensor:
        """irradiance' of linear irradiance [..., 3]; negative values keep their sign."""
        power = irradiance.abs() ** irradiance.new_tensor(self.gamma)
        return (irradiance.new_tensor(self.gain) * power).copysign(irradiance)

    def __str__(self) -> str:
        gain, gamma = (" ".join(f"{value:.3f}" for value in values) for values in (self.gain, self.gamma))
        return (f"irradiance x {gain} (r g b), gamma {gamma}\nresidual {self.after:.4f} rms in linear light "
                f"({self.before:.4f} before the fit); {self.share:.0%} of the picture is met within 5 %")  # fmt: skip


def fit_irradiance(plate: Tensor, albedo: Tensor, irradiance: Tensor, *, gamma: bool, per_channel: bool) -> LightFit:
    """The robust fit, over all pixels given: each [N, 3], linear.

    gamma: fit it too, in 0.2 to 5, else it is 1. per_channel: a fit for each of r, g, b, else one for all. Gauss-Newton
    with Tukey's biweight, whose spread is the median of what is left over. Channels darker than 0.001 in any of the
    three say nothing; where all do, the gain is 1.
    """
    usable = (plate > _DARK) & (albedo > _DARK) & (irradiance > _DARK)
    groups = [slice(0, 1), slice(1, 2), slice(2, 3)] if per_channel else [slice(0, 3)]
    found = []
    for group in groups:
        kept = usable[:, group]
        values = [layer[:, group][kept].double() for layer in (plate, albedo, irradiance)]
        found += [_fit(*values, gamma)] * (3 // len(groups))
    gains, gammas = zip(*found, strict=True)
    fit = LightFit(gains, gammas, _rms(plate - albedo * irradiance), 0.0, 0.0)
    left = plate - albedo * fit.apply(irradiance)
    met = (left.abs() <= 0.05 * plate)[usable]
    return replace(fit, after=_rms(left), share=float(met.float().mean()) if len(met) else 0.0)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _fit(plate: Tensor, albedo: Tensor, irradiance: Tensor, gamma: bool) -> tuple[float, float]:
    """gain and gamma, of values [N] above 0."""
    if not len(plate):
        return 1.0, 1.0
    light = irradiance.log()
    curve = torch.stack([(plate / (albedo * irradiance)).median().log(), light.new_ones(())])
    for _ in range(_STEPS):
        made = albedo * (curve[0] + curve[1] * light).exp()
        left = plate - made
        spread = 1.4826 * left.abs().median().clamp_min(1e-9)
        weight = (1 - (left / (_TUKEY * spread)).square()).clamp_min(0).square()
        slopes = torch.stack([made, made * light], -1)[:, : 1 + gamma]  # [N, 2] by log gain and gamma
        normal = slopes.T @ (weight[:, None] * slopes)
        # A flat light has no gamma: the small number keeps the step finite, and gamma where it is.
        normal = normal + 1e-9 * normal.diagonal().sum() * torch.eye(len(normal), dtype=normal.dtype)
        step = torch.linalg.solve(normal, slopes.T @ (weight * left))
        curve[: 1 + gamma] += step.clamp(-1, 1)
        curve[1] = curve[1].clamp(*_GAMMAS)
        if step.abs().max() < 1e-9:
            break
    return float(curve[0].exp()), float(curve[1])


def rebuild_clip(
    layers: Mapping[str, Tensor],
    decode: Mapping[str, Callable[[Tensor], Tensor]],
    encode: Callable[[Tensor], Tensor],
    *,
    gamma: bool,
    per_channel: bool,
    after_frame: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor, Tensor, LightFit]:
    """albedo, irradiance' and residual of a shot, each [F, H, W, 3], and the fit.

    layers: `plate`, `albedo` and `irradiance`, [F, H, W, 3] in one size, a still with any length. decode: by name, what
    makes each linear. encode: what is done to the results, which are linear, unclamped, the residual of either sign.
    after_frame: as of `in_bands`. Raises ValueError when sizes or lengths differ and for what `check_pixels` refuses.
    """
    for name, layer in layers.items():
        check_pixels(f"The {name}", layer, (3,))
    fit = fit_irradiance(*_sample(layers, decode), gamma=gamma, per_channel=per_channel)

    def work(bands: Mapping[str, Tensor], frame: int, rows: slice) -> tuple[Tensor, ...]:
        plate, albedo, irradiance = (decode[name](bands[name]) for name in ("plate", "albedo", "irradiance"))
        irradiance = fit.apply(irradiance)
        return encode(albedo), encode(irradiance), encode(plate - albedo * irradiance)

    return *in_bands(work, layers, after_frame), fit


def _sample(layers: Mapping[str, Tensor], decode: Mapping[str, Callable[[Tensor], Tensor]]) -> list[Tensor]:
    """The same pixels of plate, albedo and irradiance, [N, 3] linear, on a grid that is even over frames and pixels."""
    length, height, width = common_size(layers)
    pixels = height * width
    frames = torch.linspace(0, length - 1, min(length, 16)).round().long().tolist()
    # A step that shares nothing with the width walks over all columns.
    step = max(1, pixels * len(frames) // _SAMPLES)
    while math.gcd(step, width) > 1:
        step += 1
    samples = []
    for name in ("plate", "albedo", "irradiance"):
        chosen = [at(layers[name], frame).reshape(pixels, 3)[::step] for frame in frames]
        samples.append(decode[name](torch.cat(chosen)))
    return samples

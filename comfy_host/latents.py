"""Pictures into a joint LATENT and back: rows, padding, masks, and what was given passed through untouched.

The LATENT is ComfyUI's own: "samples" [M, C, T, h, w], a row for each layer; "noise_mask" [M, 1, T, h, w], where 1 is
to be generated, 0 is given, and -1 marks a whole row that is absent: it takes no part, and comes out as it was, zeros.
Under "strata" lies a `JointLatent` that remembers the true size and the given pictures; samplers copy it through.
"""

from __future__ import annotations

from dataclasses import dataclass

import comfy.model_management
import torch
import torch.nn.functional as F
from torch import Tensor

from ..imaging.checks import check_pixels
from ..imaging.encodings.layers import decode, encode
from ..imaging.sizes.fit import Fit, common_fit, still_to_clip
from ..joint.streams import Family, Role, Task
from .forward import KEY

TIME = 4  # frames to a latent frame


@dataclass(frozen=True)
class JointLatent:
    """What a joint LATENT remembers: its task, the clip's true size, and per layer the pictures [F, H, W, C] that
    were given as an IMAGE or MASK."""

    task: Task
    fit: Fit
    given: dict[str, Tensor]

    @property
    def family(self) -> Family:
        """The family of the task."""
        return self.task.family

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the layers that take part, in row order."""
        layers = zip(self.family.layers, self.task.roles)
        return tuple(layer for layer, role in layers if role is not Role.ABSENT)


def build_latent(task: Task, vae, sources: dict[str, Tensor | dict], masks: dict[str, Tensor],
                 size: tuple[int, int, int]) -> dict:
    """The LATENT of a task: every layer of `sources` (IMAGE [F, H, W, C], MASK [F, H, W] or LATENT) is given, the
    others are to be generated or absent, as the task has it.

    `masks[layer]` [F, H, W] marks, with anything above 0, frames or regions of a given layer to generate all the same.
    `size` (frames, height, width) is used when nothing is given. A still is repeated over the clip's frames.
    Raises ValueError for layers of different sizes, masks of another size, a missing or foreign VAE, bad pixels.
    """
    family = task.family
    rows = {layer: _latent_row(source, family, layer) for layer, source in sources.items() if isinstance(source, dict)}
    images = {layer: _with_channels(source) for layer, source in sources.items() if not isinstance(source, dict)}
    for layer, image in images.items():
        check_pixels(layer, image)
    if images and vae is None:
        raise ValueError(f"{', '.join(images)} came as pictures, so a VAE is needed: connect {family.latents.vae}.")
    known = [source[KEY].fit for source in sources.values() if isinstance(source, dict) and KEY in source]
    fit = _common_fit(images, rows, known, size, family.latents.cell)
    images = {layer: still_to_clip(image, fit.frames) for layer, image in images.items()}
    for layer, image in images.items():
        comfy.model_management.throw_exception_if_processing_interrupted()
        rows[layer] = encode_row(vae, fit.pad(encode(family.stream(layer).encoding, image)), fit, family)
    kept = {Role.TARGET: 1.0, Role.CONDITION: 0.0, Role.ABSENT: -1.0}
    noise_mask = torch.tensor([kept[role] for role in task.roles]).view(-1, 1, 1, 1, 1).repeat(1, 1, *fit.latent)
    for layer, mask in masks.items():
        _check_mask(layer, mask, fit)
        noise_mask[family.index(layer)] = _whole_tokens(fit.pool_mask(still_to_clip(mask, fit.frames)))
    samples = torch.zeros(len(family.layers), family.latents.channels, *fit.latent)
    for layer, row in rows.items():
        samples[family.index(layer)] = row
    return {"samples": samples, "noise_mask": noise_mask, KEY: JointLatent(task, fit, images)}


def decode_layer(vae, latent: dict, joint: JointLatent, layer: str) -> Tensor:
    """One layer of a joint LATENT as IMAGE [clips * F, H, W, 3], in the clip's true size.

    What was given as a picture is that picture, untouched; only what was generated is decoded.
    Raises ValueError when the LATENT has no such rows."""
    family, fit = joint.family, joint.fit
    if layer in family.layers and layer not in joint.present:
        raise ValueError(f"This LATENT is of the task {joint.task} ({', '.join(joint.present)}), so it holds no "
                         f"{layer}: disconnect that output, or choose the layer in Strata Condition Mask.")
    samples, row = latent["samples"], family.index(layer)
    if samples.ndim != 5 or samples.shape[0] % len(family.streams) or tuple(samples.shape[2:]) != fit.latent:
        raise ValueError(f"This LATENT is {tuple(samples.shape)}, which is no longer the {family.name} clip of "
                         f"{fit.frames} frames of {fit.width}x{fit.height} it was made as: decode it before resizing "
                         "or splitting it.")
    given, generated = joint.given.get(layer), _row_mask(latent, row, len(family.streams))
    encoding = family.streams[row].encoding
    rows = samples[row::len(family.streams)]
    if given is not None and not generated.any():
        return encode(encoding, given).repeat(len(rows), 1, 1, 1)
    clips = []
    for clip in rows:
        comfy.model_management.throw_exception_if_processing_interrupted()
        pixels = vae.decode(clip.unsqueeze(0))[0]  # [F', H', W', 3]
        clips.append(decode(encoding, fit.crop(pixels)))
    image = torch.cat(clips)
    if given is not None:
        # A region that was kept is the given picture itself, not its way through the VAE.
        kept = ~fit.expand_mask(generated)[..., None].to(image.device)
        picture = encode(encoding, given).to(image)
        image = torch.where(kept.repeat(len(clips), 1, 1, 1), picture.repeat(len(clips), 1, 1, 1), image)
    return image


def _row_mask(latent: dict, row: int, streams: int) -> Tensor:
    """Where a stream is generated, [T, h, w]: the clips of a joint LATENT share a mask."""
    mask = latent.get("noise_mask")
    if mask is None:
        return torch.ones(latent["samples"].shape[2:])
    return mask[row % streams, 0]


def _latent_row(source: dict, family: Family, layer: str) -> Tensor:
    """The row of a LATENT that stands for a layer: the only one, or the same layer of a joint LATENT of any family."""
    samples, joint, channels = source["samples"], source.get(KEY), family.latents.channels
    if samples.ndim != 5 or samples.shape[1] != channels:
        raise ValueError(f"The LATENT given as {layer} is {tuple(samples.shape)}: a video LATENT of the VAE "
                         f"{family.latents.vae} is needed, [1, {channels}, T, h, w].")
    # A row that a stock node cut out of a joint LATENT still carries its entry.
    if joint is not None and layer in joint.present and samples.shape[0] == len(joint.family.streams):
        return samples[joint.family.index(layer)]
    if samples.shape[0] != 1:
        raise ValueError(f"The LATENT given as {layer} holds {samples.shape[0]} rows: give one, or a joint LATENT of "
                         f"one clip that has a layer {layer}.")
    return samples[0]


def _common_fit(images: dict[str, Tensor], rows: dict[str, Tensor], known: list[Fit],
                size: tuple[int, int, int], cell: int) -> Fit:
    """The size that all given layers share, of a VAE with cells of so many pixels. A still goes with any length; a
    joint LATENT knows its clip's true size."""
    if not images and not rows:
        return Fit(*size, cell)
    if images:
        fit = common_fit(images, cell)
    elif known:
        fit = known[0]
    else:
        frames, height, width = next(iter(rows.values())).shape[1:]
        fit = Fit((frames - 1) * TIME + 1, height * cell, width * cell, cell)
    for layer, row in rows.items():
        if tuple(row.shape[1:]) != fit.latent:
            raise ValueError(f"The LATENT given as {layer} is {tuple(row.shape[1:])} (frames, rows, columns), but the "
                             f"other layers need {fit.latent}: give clips of one size and length.")
    return fit


def _with_channels(images: Tensor) -> Tensor:
    """A MASK [F, H, W] as pictures of one channel."""
    return images.unsqueeze(-1) if images.ndim == 3 else images


def _check_mask(layer: str, mask: Tensor, fit: Fit) -> None:
    """Raise ValueError unless a MASK is finite and of the clip's size, for one frame or for all."""
    check_pixels(f"The mask of {layer}", mask.unsqueeze(-1))
    frames, height, width = mask.shape
    if (height, width) != (fit.height, fit.width) or frames not in (1, fit.frames):
        raise ValueError(f"The mask of {layer} has {frames} frames of {width}x{height}, but the clip has {fit.frames} "
                         f"of {fit.width}x{fit.height}: give a mask of that size, for one frame or for all.")


def encode_row(vae, pixels: Tensor, fit: Fit, family: Family) -> Tensor:
    row, wanted = vae.encode(pixels)[0], (family.latents.channels, *fit.latent)
    if tuple(row.shape) != wanted:
        raise ValueError(f"This VAE made a latent of {tuple(row.shape)} where {wanted} is needed: load "
                         f"{family.latents.vae}.")
    return row


def _whole_tokens(mask: Tensor) -> Tensor:
    """A latent mask [1, T, h, w] grown to the transformer's 2x2 tokens: a token is generated or given as a whole."""
    return F.max_pool2d(mask, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)

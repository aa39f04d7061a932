"""Wrappers around a whole sampling and around context windows."""

from __future__ import annotations

import copy
from collections.abc import Callable

import comfy.sample
import torch
from torch import Tensor

from ..joint.streams import Family, Role
from .forward import KEY, Plan
from .preview import preview_streams
from .text_sampling import TextSampler


def hold_conditions(family: Family) -> Callable:
    """An OUTER_SAMPLE wrapper: checks the LATENT, tells the forward what is absent, gives conditions their noise, and
    writes them back afterwards.

    Some samplers leave traces in what was given, and a sampling that stops half-way would hand a half-noised condition
    to the next stage. Written back, conditions stay exact for every sampler and stage."""

    def outer_sample(executor, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None,
                     disable_pbar=False, seed=None, **kwargs):
        guider = executor.class_obj
        plan = Plan(absent_rows(denoise_mask, family))
        text = sampler.role if isinstance(sampler, TextSampler) else Role.ABSENT
        check_latent(noise, denoise_mask, plan, family, text)
        # The guider's options are this sampling's own copy.
        guider.model_options.setdefault("transformer_options", {})[KEY] = plan
        callback = preview_streams(callback, guider.model_patcher, plan, family)
        if denoise_mask is None:
            return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, **kwargs)
        generated = denoise_mask[:, :1] > 0  # absent rows are kept as given ones are
        noise = condition_noise(noise, latent_image, generated.to(noise.device), family, seed)
        if getattr(sampler, "inpaint_options", {}).get("random"):
            # "ddim" would draw noise of its own for what is given; which noise that gets is the family's word.
            sampler = copy.copy(sampler)
            sampler.inpaint_options = {**sampler.inpaint_options, "random": False}
        out = executor(noise, latent_image, sampler, sigmas, generated.to(denoise_mask).expand_as(denoise_mask),
                       callback, disable_pbar, seed, **kwargs)
        return torch.where(generated.to(out.device), out, latent_image.to(out))

    return outer_sample


def condition_noise(noise: Tensor, latent_image: Tensor, generated: Tensor, family: Family, seed: int) -> Tensor:
    """Noise with, where rows are given, the noise that the family puts on its conditions: [rows, C, T, h, w].

    A second stage adds no noise of its own; its conditions get what the same seed drew in the first."""
    m = len(family.pictures)
    drawn = noise if noise.any() else comfy.sample.prepare_noise(latent_image.cpu(), seed).to(noise)
    if family.flow.condition_noise == "first":
        drawn = drawn.unflatten(0, (-1, m))[:, :1].expand(-1, m, -1, -1, -1, -1).flatten(0, 1)
    return torch.where(generated, noise, drawn)


def absent_rows(mask: Tensor | None, family: Family) -> tuple[tuple[bool, ...], ...]:
    """Which picture rows of each clip take no part: those that a mask of whole clips has below 0 throughout."""
    m = len(family.pictures)
    if mask is None or len(mask) % m:
        return ()
    return tuple(map(tuple, (mask < 0).flatten(1).all(dim=1).unflatten(0, (-1, m)).tolist()))


def check_latent(latent: Tensor, mask: Tensor | None, plan: Plan, family: Family, text: Role) -> None:
    """Raise ValueError unless the latent holds whole clips of this family, with something to generate in each, and the
    sampling has the family's text where it has one."""
    m, channels, layers = len(family.pictures), family.latents.channels, ", ".join(family.pictures)
    if latent.ndim != 5 or latent.shape[0] % m:
        raise ValueError(f"This MODEL samples {m} layers together ({layers}), so its LATENT needs a multiple of {m} "
                         f"rows of 5 dimensions, but this one is {tuple(latent.shape)}: make it with Strata "
                         "Condition Mask.")
    if latent.shape[1] != channels:
        raise ValueError(f"This MODEL samples latents of {channels} channels, but this LATENT is "
                         f"{tuple(latent.shape)}: make it with the family '{family.name}' and its VAE "
                         f"({family.latents.vae}).")
    if family.texts and text is Role.ABSENT:
        raise ValueError(f"This MODEL joins pictures with text ({', '.join(family.layers)}), which this sampler cannot "
                         "step: use Strata Caption or Strata Video + Caption.")
    generated = torch.ones(len(latent), dtype=torch.bool) if mask is None else (mask > 0).flatten(1).any(dim=1)
    for clip, made in enumerate(generated.unflatten(0, (-1, m)).tolist()):
        present = {family.index(layer) for row, layer in enumerate(family.pictures)
                   if not plan.is_absent(clip, row)} | {family.index(name) for name in family.texts}
        family.check_present(present)
        if not any(made) and text is not Role.TARGET:
            raise ValueError(f"Every layer of clip {clip + 1} is given ({layers}), so nothing is left to generate: "
                             "disconnect one in Strata Condition Mask, or mask a part of it.")


def reserve_for_present(executor, model, noise_shape, conds, model_options=None, **kwargs):
    """A PREPARE_SAMPLING wrapper: memory is reserved for the rows that take part."""
    rows = noise_shape[0] - sum(map(sum, model_options["transformer_options"][KEY].absent))
    return executor(model, [rows, *noise_shape[1:]], conds, model_options=model_options, **kwargs)


def one_timestep_per_window(executor, x, timestep, model_options, seed=None):
    """A PREDICT_NOISE wrapper: context windows index the timestep by frame, which breaks for more rows than one.

    All rows of a step share a sigma, so one value says the same and is left alone by the window."""
    windowed = model_options.get("context_handler") is not None
    return executor(x, timestep[:1] if windowed else timestep, model_options, seed)


def expand_window_timestep(executor, model, conds, x_in, timestep, model_options):
    """A CALC_COND_BATCH wrapper (inside a window): one timestep a row again."""
    if timestep.shape[0] == 1:
        timestep = timestep.expand(x_in.shape[0])
    return executor(model, conds, x_in, timestep, model_options)

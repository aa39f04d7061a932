"""A whole joint sampling through ComfyUI's own sampler, with the family's schedule and guidance rule."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import latent_preview
import torch

from ..joint.flow import schedule
from ..joint.sampling import effective_guidance
from .attach import joint_model
from .forward import KEY, JointModel


def sample_joint(model, latent: dict, positive, negative, seed: int, steps: int, cfg: float) -> tuple[dict, str]:
    """Sample a joint LATENT with Euler on the family's schedule; `steps` and `cfg` 0 take the family's own.

    Returns the LATENT and, in words, the settings that were used. Raises ValueError for a MODEL without layers, a
    LATENT that does not fit it, and a missing prompt where no embedding of the empty one is stored.
    """
    joint = joint_model(model)
    family = joint.family
    if family.texts:
        raise ValueError(f"This MODEL joins pictures with text ({', '.join(family.layers)}): use Strata Caption or "
                         "Strata Video + Caption in the place of Strata Joint Sampler.")
    made = latent.get(KEY)
    if made is not None and made.family.layers != family.layers:
        raise ValueError(f"This LATENT holds the layers of the {made.family.name} family, but this MODEL makes those "
                         f"of {family.name}: choose one family in Strata Condition Mask and Strata Load Layers.")
    positive = positive or _stored_empty_prompt(joint)
    empty = is_empty_prompt(positive)
    asked = cfg or family.guidance
    cfg = effective_guidance(asked, empty)
    if cfg != 1.0 and negative is None:
        raise ValueError(f"cfg {cfg:g} steers away from a negative prompt: connect one, or set cfg to 1.")
    # A ModelSampling node after Load Layers changes the shift; its word counts.
    shift = model.get_model_object("model_sampling").shift
    steps = steps or family.flow.steps
    sigmas = schedule(steps, shift)
    noise = comfy.sample.prepare_noise(latent["samples"], seed, latent.get("batch_index"))
    samples = comfy.sample.sample_custom(
        model, noise, cfg, comfy.samplers.sampler_object("euler"), sigmas, positive, negative or positive,
        latent["samples"], noise_mask=latent.get("noise_mask"), seed=seed,
        callback=latent_preview.prepare_callback(model, steps))
    why = f" (asked {asked:g}; the prompt is empty)" if cfg != asked else ""
    return {**latent, "samples": samples}, f"{steps} steps, shift {shift:g}, cfg {cfg:g}{why}"


def is_empty_prompt(conditioning) -> bool:
    """Whether every text is the empty prompt: its end token and nothing else (the rest of an embedding is zero)."""
    return all(not torch.any(text[:, 1:]) for text, _ in conditioning)


def _stored_empty_prompt(joint: JointModel) -> list:
    if "" not in joint.prompts:
        raise ValueError("No prompt is connected and no embedding of the empty one is stored beside these layers: "
                         "connect a CLIP Text Encode (its text may be empty).")
    return [[joint.prompts[""], {}]]

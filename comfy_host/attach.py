"""Giving a MODEL its layers: every hook that Strata sets on ComfyUI's ModelPatcher, and nothing else."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from dataclasses import replace

import comfy.ldm.wan.model
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
from comfy.patcher_extension import PatcherInjection, WrappersMP
from torch import Tensor

from ..joint.adapters import AdapterSettings
from ..joint.streams import Family
from ..model_loaders.layer_files import LoadedLayers, check_fits
from .conditions import condition_patches
from .forward import KEY, JointModel, injected_forward
from .sampling import expand_window_timestep, hold_conditions, one_timestep_per_window, reserve_for_present


def joint_model(model) -> JointModel:
    """What a MODEL carries. Raises ValueError when it was not through Strata Load Layers."""
    joint = model.get_attachment(KEY)
    if joint is None:
        raise ValueError("This MODEL knows no layers: put Strata Load Layers between its loader and this node.")
    return joint


def attach_layers(model, loaded: LoadedLayers, family: Family, prompts: Mapping[str, Tensor]):
    """A clone of a Wan text-to-video MODEL that samples all layers of `family` jointly.

    `family` is the loaded one, or it with other flow fields; `prompts` the embeddings [1, W, E] that are known of the
    empty prompt ("") and of streams' fixed ones. The weights stay in ComfyUI's modules; the given MODEL is not changed.
    Raises ValueError for any model but the family's backbone, for layers of another size, for a fixed prompt without
    embedding, and for a variant whose backbone ComfyUI's loaders cannot hold."""
    if family.variant.joint == "channel_concat":
        raise ValueError("These layers were trained on a backbone that holds them side by side in its channels "
                         "(joint = channel_concat), which ComfyUI's loaders cannot read: run them with the strata "
                         "command.")
    if lacking := [stream.name for stream in family.streams if stream.prompt and stream.name not in prompts]:
        raise ValueError(f"The layers {', '.join(lacking)} read a fixed sentence each, whose embedding is not stored "
                         "beside their file: connect a CLIP (UMT5) to Strata Load Layers.")
    backbone = _check_backbone(model, family)
    check_fits(loaded, len(backbone.blocks), backbone.dim, backbone.ffn_dim)
    model = model.clone()
    # The adapters are a model of their own beside the backbone, so ComfyUI loads and evicts them together while the
    # backbone's state dict, LoRA keys and size stay what they are. So are the streams' own parts. The class is looked
    # up now: main.py may re-bind it.
    model.set_additional_models(KEY, [
        comfy.model_patcher.CoreModelPatcher(part, load_device=comfy.model_management.get_torch_device(),
                                             offload_device=comfy.model_management.unet_offload_device())
        for part in (loaded.bank, loaded.experts) if part is not None])
    for name, patch in condition_patches(model, family).items():
        model.add_object_patch(name, patch)
    model.add_object_patch("model_sampling", _model_sampling(model, family))
    model.add_object_patch("latent_format", _latent_format(model, family))
    for kind, wrapper in ((WrappersMP.OUTER_SAMPLE, hold_conditions(family)),
                          (WrappersMP.PREPARE_SAMPLING, reserve_for_present),
                          (WrappersMP.PREDICT_NOISE, one_timestep_per_window),
                          (WrappersMP.CALC_COND_BATCH, expand_window_timestep)):
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    previous = model.get_attachment(KEY)
    if previous is not None:  # another family was attached before: ours replaces it
        model.remove_injections(previous.injection)
    _inject(model, JointModel(family, loaded.bank, loaded.experts, loaded.vocabulary, AdapterSettings.published(family),
                              dict(prompts)))
    return model


def with_settings(model, settings: AdapterSettings):
    """A clone of a MODEL with layers whose adapters have other strengths and gates."""
    joint = joint_model(model)
    model = model.clone()
    model.remove_injections(joint.injection)
    _inject(model, replace(joint, settings=settings))
    return model


def _inject(model, joint: JointModel) -> None:
    # ComfyUI compares clones by the keys of their injections, not by contents: a fresh key each time.
    joint = replace(joint, injection=f"{KEY}:{uuid.uuid4().hex}")
    model.set_attachments(KEY, joint)

    def inject(patcher) -> None:
        module = patcher.model.diffusion_model
        module._forward = injected_forward(module, joint)

    def eject(patcher) -> None:
        patcher.model.diffusion_model.__dict__.pop("_forward", None)

    model.set_injections(joint.injection, [PatcherInjection(inject, eject)])


def _check_backbone(model, family: Family) -> comfy.ldm.wan.model.WanModel:
    """The Wan transformer of a MODEL. Other members of Wan's family have another forward or other inputs."""
    base, channels = model.model, family.latents.channels
    wanted = f"load {family.backbone}, a Wan text-to-video model of {channels} channels."
    backbone = getattr(base, "diffusion_model", None)
    # WAN22 is the 5B model with its own latents; it differs from WAN21 in methods that ours replace.
    if type(base) not in (comfy.model_base.WAN21, comfy.model_base.WAN22) or (
            type(backbone) is not comfy.ldm.wan.model.WanModel):
        raise ValueError(f"These layers ride on {family.backbone}, but this MODEL is {type(base).__name__} "
                         f"({type(backbone).__name__}): {wanted}")
    if backbone.model_type != "t2v" or (backbone.in_dim, backbone.out_dim) != (channels, channels):
        raise ValueError(f"This Wan model ({type(base).__name__}) is {backbone.model_type} with {backbone.in_dim} "
                         f"input and {backbone.out_dim} output channels: {wanted}")
    return backbone


def _latent_format(model, family: Family):
    """How latents come to the network: as ComfyUI has it, or as the VAE makes them."""
    found = model.get_model_object("latent_format")
    found = getattr(found, "strata_previous", found)
    if family.latents.normalised:
        return found
    raw = copy.copy(found)
    raw.strata_previous = found
    raw.process_in = raw.process_out = lambda latent: latent
    return raw


def _model_sampling(model, family: Family):
    """Flow sampling with the family's own shift, as ComfyUI's ModelSampling nodes set it; a later one still wins."""

    class FlowSampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    sampling = FlowSampling(model.model.model_config)
    sampling.set_parameters(shift=family.flow.shift, multiplier=1000)
    return sampling

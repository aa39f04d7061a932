"""Giving a MODEL its layers: every hook that Strata sets on ComfyUI's ModelPatcher, and nothing else."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

import comfy.ldm.wan.model
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
from comfy.patcher_extension import PatcherInjection, WrappersMP
from torch import Tensor

from ..joint.adapters import AdapterBank, AdapterSettings
from ..joint.streams import Family
from ..model_loaders.layer_files import LoadedLayers, check_fits
from .conditions import condition_patches
from .forward import injected_forward
from .sampling import expand_window_timestep, hold_conditions, one_timestep_per_window

KEY = "strata"


@dataclass(frozen=True)
class JointModel:
    """What a MODEL with layers carries, under `model.get_attachment("strata")`.

    `injection` is the key of the injection in force, `empty_prompt` [1, W, E] the stored embedding of the empty prompt
    where the adapter file has one beside it."""

    family: Family
    bank: AdapterBank
    settings: AdapterSettings
    injection: str
    empty_prompt: Tensor | None


def joint_model(model) -> JointModel:
    """What a MODEL carries. Raises ValueError when it was not through Strata Load Layers."""
    joint = model.get_attachment(KEY)
    if joint is None:
        raise ValueError("This MODEL knows no layers: put Strata Load Layers between its loader and this node.")
    return joint


def attach_layers(model, loaded: LoadedLayers, family: Family, empty_prompt: Tensor | None):
    """A clone of a Wan text-to-video MODEL that samples all layers of `family` jointly.

    `family` is the loaded one, or it with other flow fields. The weights stay in ComfyUI's modules; the given MODEL is
    not changed. Raises ValueError for any model but Wan 2.1 text-to-video, for adapters of another backbone, and for a
    variant whose backbone ComfyUI's loaders cannot hold."""
    if family.variant.joint == "channel_concat":
        raise ValueError("These layers were trained on a backbone that holds them side by side in its channels "
                         "(joint = channel_concat), which ComfyUI's loaders cannot read: run them with the strata "
                         "command.")
    backbone = _check_backbone(model)
    check_fits(loaded, len(backbone.blocks), backbone.dim, backbone.ffn_dim)
    model = model.clone()
    # The adapters are a model of their own beside the backbone, so ComfyUI loads and evicts them together while the
    # backbone's state dict, LoRA keys and size stay what they are. The class is looked up now: main.py may re-bind it.
    bank_patcher = comfy.model_patcher.CoreModelPatcher(
        loaded.bank, load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device())
    model.set_additional_models(KEY, [bank_patcher])
    for name, patch in condition_patches(model, family).items():
        model.add_object_patch(name, patch)
    model.add_object_patch("model_sampling", _model_sampling(model, family))
    for kind, wrapper in ((WrappersMP.OUTER_SAMPLE, hold_conditions(family)),
                          (WrappersMP.PREDICT_NOISE, one_timestep_per_window),
                          (WrappersMP.CALC_COND_BATCH, expand_window_timestep)):
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    settings = AdapterSettings.published(family)
    previous = model.get_attachment(KEY)
    if previous is not None:  # another family was attached before: ours replaces it
        model.remove_injections(previous.injection)
    _inject(model, JointModel(family, loaded.bank, settings, "", empty_prompt))
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
        module._forward = injected_forward(module, joint.family, joint.bank, joint.settings)

    def eject(patcher) -> None:
        patcher.model.diffusion_model.__dict__.pop("_forward", None)

    model.set_injections(joint.injection, [PatcherInjection(inject, eject)])


def _check_backbone(model) -> comfy.ldm.wan.model.WanModel:
    """The Wan transformer of a MODEL. Other members of Wan's family have another forward or other inputs."""
    base, wanted = model.model, "load a Wan 2.1 text-to-video model (T2V, 14B for the published layers)."
    backbone = getattr(base, "diffusion_model", None)
    if type(base) is not comfy.model_base.WAN21 or type(backbone) is not comfy.ldm.wan.model.WanModel:
        raise ValueError(f"These layers ride on Wan 2.1 text-to-video, but this MODEL is {type(base).__name__} "
                         f"({type(backbone).__name__}): {wanted}")
    if backbone.model_type != "t2v" or backbone.in_dim != backbone.out_dim:
        raise ValueError(f"This Wan model is {backbone.model_type} with {backbone.in_dim} input channels: {wanted}")
    return backbone


def _model_sampling(model, family: Family):
    """Flow sampling with the family's own shift, as ComfyUI's ModelSampling nodes set it; a later one still wins."""

    class FlowSampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    sampling = FlowSampling(model.model.model_config)
    sampling.set_parameters(shift=family.flow.shift, multiplier=1000)
    return sampling

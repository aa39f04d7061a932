"""What `strata convert` makes of the checkpoints that test_inside.py wrote, as ComfyUI sees it."""

from __future__ import annotations

from pathlib import Path

import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch

from ....joint.families import get_family
from ....model_loaders.layer_files import check_fits, load_layers


def check_converted_backbones():
    """The backbone that is split off is the Wan model of its family, every tensor in its place, and what is left fits
    it, made of ComfyUI's own layers."""
    folder = Path(folder_paths.base_path) / "converted"
    for name, wanted in (("unity", comfy.supported_models.WAN22_T2V), ("vigu", comfy.supported_models.WAN21_T2V)):
        path = str(folder / f"{name}.wan.safetensors")
        model = comfy.sd.load_diffusion_model(path).model
        assert type(model.model_config) is wanted, f"{name} is taken for {type(model.model_config).__name__}"
        assert model.latent_format.latent_channels == get_family(name).latents.channels
        ours, state = model.diffusion_model.state_dict(), comfy.utils.load_torch_file(path)
        assert ours.keys() == state.keys() and all(torch.equal(ours[key], state[key].to(ours[key])) for key in state)
        loaded = load_layers(folder / f"{name}.layers.safetensors", ops=comfy.ops.manual_cast)
        backbone = model.diffusion_model
        check_fits(loaded, len(backbone.blocks), backbone.dim, backbone.ffn_dim)
        layers = [part for part in loaded.experts.modules() if "weight" in part._parameters]
        assert layers and all(isinstance(part, comfy.ops.CastWeightBiasOp) for part in layers)
    return "WAN22_T2V and WAN21_T2V"

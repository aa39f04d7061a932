"""A Wan backbone from nothing, for small models of one's own, with the initial values of Wan's own code."""

from __future__ import annotations

import torch
from torch import nn

from ..joint.channels import backbone_channels
from ..joint.streams import Family
from ..joint.wan import WanConfig, WanModel, empty_wan
from .config import NewBackbone

_HEAD_DIM = 128  # of every Wan release, and what ComfyUI derives the number of heads from


def wan_sizes(sizes: NewBackbone, family: Family) -> WanConfig:
    """The whole config of a new backbone for a family."""
    channels_in, channels_out = backbone_channels(family, family.latents.channels)
    return WanConfig(dim=sizes.dim, ffn_dim=sizes.ffn_dim, num_layers=sizes.layers, num_heads=sizes.dim // _HEAD_DIM,
                     in_dim=channels_in, out_dim=channels_out)


def make_backbone(config: WanConfig, seed: int) -> WanModel:
    """A backbone in float32 whose output is 0 at first. Source: `init_weights` in Wan-Video/Wan2.1's model.py."""
    model = empty_wan(config)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                if name.startswith(("text_embedding", "time_embedding")):
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(model.patch_embedding.weight.flatten(1))
        nn.init.zeros_(model.patch_embedding.bias)
        nn.init.zeros_(model.head.head.weight)
        for name, value in model.named_parameters():
            if name.endswith("modulation"):
                nn.init.normal_(value, std=config.dim**-0.5)
            elif ".norm" in name:
                nn.init.zeros_(value) if name.endswith("bias") else nn.init.ones_(value)
    return model

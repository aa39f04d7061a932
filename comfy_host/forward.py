"""`joint_forward` in the place of `WanModel._forward`: rows of a LATENT in, rows of velocity out."""

from __future__ import annotations

import logging
from collections.abc import Callable

import comfy.ldm.common_dit
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ..joint.adapters import ActiveAdapters, AdapterBank, AdapterSettings
from ..joint.layout import make_layout
from ..joint.rope import GridOptions
from ..joint.streams import Family, Role
from ..joint.transformer import Host, joint_forward


class ComfyHost(Host):
    """ComfyUI around the forward: its attention (with any override a user installed) and its additive patches.

    Patches see the packed sequence [N, T, D] of all layers where stock Wan would show one row a layer."""

    def __init__(self, transformer_options: dict, latents: Tensor, blocks: int):
        super().__init__(self._attend)
        self.options, self.latents = transformer_options, latents
        self.patches = transformer_options.get("patches", {})
        self.options.update(total_blocks=blocks, block_type="double")

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return optimized_attention(q, k, v, heads=heads, transformer_options=self.options)

    def start_block(self, index: int) -> None:
        self.options["block_index"] = index

    def after_self_attention(self, x: Tensor, q: Tensor, k: Tensor) -> Tensor:
        for patch in self.patches.get("attn1_patch", ()):
            x = patch({"x": x, "q": q, "k": k, "transformer_options": self.options})
        return x

    def after_cross_attention(self, x: Tensor) -> Tensor:
        for patch in self.patches.get("attn2_patch", ()):
            x = patch({"x": x, "transformer_options": self.options})
        return x

    def after_block(self, x: Tensor, index: int) -> Tensor:
        for patch in self.patches.get("double_block", ()):
            x = patch({"img": x, "x": self.latents, "block_index": index, "img_offset": 0,
                       "transformer_options": self.options})["img"]
        return x


HONOURED_PATCHES = {"attn1_patch", "attn2_patch", "double_block"}
FOREIGN_INPUTS = ("clip_fea", "time_dim_concat", "reference_latent", "context_latents", "control")


def injected_forward(module, family: Family, bank: AdapterBank, settings: AdapterSettings) -> Callable:
    """A `_forward` for this Wan transformer. `x` [rows, C, T, h, w] with rows = branches * clips * M, `timestep` [rows]
    or [rows, P], `context` [branches, W, E] or one text a row; returns the velocity of x's shape, 0 in given rows."""
    streams = len(family.streams)
    warned: set[str] = set()

    def forward(x, timestep, context, clip_fea=None, time_dim_concat=None, transformer_options=None, denoise_mask=None,
                **kwargs):
        transformer_options = {} if transformer_options is None else transformer_options
        warn_once(warned, transformer_options, {"clip_fea": clip_fea, "time_dim_concat": time_dim_concat, **kwargs})
        height, width = x.shape[-2:]
        x = comfy.ldm.common_dit.pad_to_patch_size(x, module.patch_size)
        pt, ph, pw = module.patch_size
        grid = (x.shape[2] // pt, x.shape[3] // ph, x.shape[4] // pw)
        transformer_options["grid_sizes"] = torch.Size(grid)
        latents = x.unflatten(0, (-1, streams))  # [rows, ...] -> [N, M, ...]
        times = timestep.reshape(len(latents), streams, -1)
        texts = text_rows(len(latents), streams, len(context), len(transformer_options.get("cond_or_uncond", [0])))
        rope = rope_options(transformer_options.get("rope_options") or {})
        out = torch.zeros_like(latents)
        for roles, clips in by_roles(denoise_mask, len(latents), streams).items():
            layout = make_layout(family, roles, settings.active(family, roles), grid, module.dim // module.num_heads,
                                 options=rope, device=x.device)
            velocity = joint_forward(
                module, latents[clips].unbind(1), times[clips].unbind(1), context, layout=layout,
                context_index=[texts[n] for n in clips],
                adapters=ActiveAdapters(bank, settings, layout),
                host=ComfyHost(transformer_options, x, len(module.blocks)))
            for stream, part in zip(layout.outputs, velocity):
                out[clips, stream] = part
        return out.flatten(0, 1)[..., :height, :width]

    return forward


def by_roles(mask: Tensor | None, requests: int, streams: int) -> dict[tuple[Role, ...], list[int]]:
    """Requests grouped by their task. A row with anything to generate is a target; with no mask all rows are."""
    if mask is None:
        return {(Role.TARGET,) * streams: list(range(requests))}
    generated = (mask > 0).flatten(1).any(dim=1).view(requests, streams).tolist()
    groups: dict[tuple[Role, ...], list[int]] = {}
    for n, row in enumerate(generated):
        groups.setdefault(tuple(Role.TARGET if g else Role.CONDITION for g in row), []).append(n)
    # In a context window every row of a clip may be given: such a request has nothing to compute.
    return {roles: clips for roles, clips in groups.items() if Role.TARGET in roles}


def text_rows(requests: int, streams: int, texts: int, branches: int) -> list[list[int]]:
    """Which text each stream of each request reads: a branch brings one text, or a list that its rows go through."""
    each, rows = texts // branches, requests * streams // branches
    branch_and_row = ([divmod(n * streams + m, rows) for m in range(streams)] for n in range(requests))
    return [[branch * each + row % each for branch, row in request] for request in branch_and_row]


def rope_options(options: dict) -> GridOptions:
    """ComfyUI's rope options in our order."""
    return GridOptions(tuple(options.get(f"scale_{axis}", 1.0) for axis in "tyx"),
                       tuple(options.get(f"shift_{axis}", 0.0) for axis in "tyx"))


def warn_once(warned: set[str], options: dict, inputs: dict) -> None:
    """Name, in one warning, what other nodes ask for and a joint model cannot do."""
    unknown = {f"the '{name}' patch" for name in options.get("patches", {}) if name not in HONOURED_PATCHES}
    if options.get("patches_replace", {}).get("dit"):
        unknown.add("replaced transformer blocks")
    unknown |= {name for name in FOREIGN_INPUTS if inputs.get(name) is not None}
    if new := sorted(unknown - warned):
        logging.warning("Strata: a model with layers cannot use %s; it is left out.", ", ".join(new))
        warned |= unknown

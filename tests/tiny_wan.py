"""Makers of tiny Wan backbones and layer adapters in the published key layouts, so that tests download nothing.

Random but tame (every layer keeps its input's scale); the same seed gives the same file.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from comfyui_strata.joint.experts import empty_experts
from comfyui_strata.joint.streams import Family
from comfyui_strata.joint.wan import WanConfig, empty_wan
from comfyui_strata.model_loaders.adapter_names import ATTENTION, FEED_FORWARD, AdapterKey, is_dead
from comfyui_strata.model_loaders.adapters import NOTE
from comfyui_strata.model_loaders.expert_names import published_names
from comfyui_strata.model_loaders.layer_files import prompts_path
from comfyui_strata.model_loaders.layer_metadata import layer_metadata
from comfyui_strata.model_loaders.vocabulary import Vocabulary, make_word_vocabulary, vocabulary_tensor

# ComfyUI reads the number of heads as width / 128, so a width of 128 n is the smallest that its loaders take.
TINY = WanConfig(dim=128, ffn_dim=256, num_layers=2, num_heads=1)


def write_tiny_backbone(path: str | Path, config: WanConfig = TINY, *, prefix: str = "", seed: int = 0,
                        dtype: torch.dtype = torch.float16) -> Path:
    """Write a random Wan text-to-video backbone under Wan's own names, each with `prefix` before it."""
    state = _draw(empty_wan(config, device="meta"), seed, dtype)
    save_file({prefix + name: value for name, value in state.items()}, path)
    return Path(path)


def _draw(module: nn.Module, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Values for the parameters of a module."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, parameter in module.named_parameters():
        shape = parameter.shape
        if "norm" in name and name.endswith("weight"):
            value = 1 + 0.1 * torch.randn(shape, generator=draw)
        elif name.endswith("modulation") or name.startswith(("identity", "modulation")):
            value = torch.randn(shape, generator=draw) * 0.3
        elif name.endswith("bias"):
            value = torch.randn(shape, generator=draw) * 0.02
        elif name == "embedding.text.weight":
            value = torch.randn(shape, generator=draw)
        else:
            value = torch.randn(shape, generator=draw) * shape[1:].numel() ** -0.5
        state[name] = value.to(dtype).contiguous()
    return state


def tiny_config(family: Family) -> WanConfig:
    """The smallest backbone for a family's latents that ComfyUI takes."""
    return replace(TINY, in_dim=family.latents.channels, out_dim=family.latents.channels)


def write_tiny_layers(path: str | Path, family: Family, config: WanConfig | None = None, *,
                      vocabulary: bytes | None = None, seed: int = 0, dtype: torch.dtype = torch.float16,
                      note: str | None = None) -> Path:
    """Write random own parts of a family, or of a variant, under the published names, with their vocabulary."""
    data = (vocabulary or tiny_vocabulary()) if family.texts else None
    state = _own_parts(family, config or tiny_config(family), data, seed, dtype)
    metadata = layer_metadata(family) | ({} if note is None else {NOTE: note})
    save_file(state | (vocabulary_tensor(data) if data else {}), path, metadata)
    return Path(path)


def write_tiny_checkpoint(path: str | Path, family: Family, config: WanConfig | None = None, *,
                          vocabulary: bytes | None = None, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write a whole checkpoint as a family's authors publish it: the backbone of `write_tiny_backbone` and the parts
    of `write_tiny_layers` with these seeds.

    UnityVideo's is a safetensors file whose backbone lies under "base."; Uni-ViGU's a .pth of diffusers' names with
    what FSDP and torch.compile put into them, and no vocabulary: `vocabulary` says how many tokens there are."""
    config = config or tiny_config(family)
    data = (vocabulary or tiny_vocabulary()) if family.texts else None
    base = _draw(empty_wan(config, device="meta"), seed, dtype)
    own = _own_parts(family, config, data, seed, dtype)
    if not family.texts:
        save_file({"base." + name: value for name, value in base.items()} | own, path)
        return Path(path)
    whole = {vigu_name(name): value for name, value in base.items()} | own
    head = config.dim // config.num_heads
    whole["rotary_emb_text.inv_freq"] = 10000 ** -(torch.arange(0, head, 2) / head)
    wrapped = {"_fsdp_wrapped_module." + re.sub(r"(blocks\.\d+\.)", r"\1_fsdp_wrapped_module._orig_mod.", key): value
               for key, value in whole.items()}
    torch.save({"model": wrapped, "step": 3}, path)
    return Path(path)


def _own_parts(family: Family, config: WanConfig, vocabulary: bytes | None, seed: int,
               dtype: torch.dtype) -> dict[str, Tensor]:
    size = Vocabulary(vocabulary, "tiny").size if vocabulary else 0
    parts = _draw(empty_experts(family, config, size, device="meta"), seed, dtype)
    names = published_names(parts, family.name)
    return {names[name]: value for name, value in parts.items()}


def tiny_vocabulary() -> bytes:
    """A tokenizer.json of a few words."""
    words = ("a", "red", "green", "blue", "ball", "cube", "on", "the", "table", "moves", "left", "right", "slowly")
    return make_word_vocabulary(words)


def diffusers_name(name: str) -> str:
    """A Wan name as diffusers' WanTransformer3DModel writes it, spelled out independently of the loader's table."""
    top = {"text_embedding.0": "condition_embedder.text_embedder.linear_1",
           "text_embedding.2": "condition_embedder.text_embedder.linear_2",
           "time_embedding.0": "condition_embedder.time_embedder.linear_1",
           "time_embedding.2": "condition_embedder.time_embedder.linear_2",
           "time_projection.1": "condition_embedder.time_proj", "head.head": "proj_out"}
    for ours, theirs in top.items():
        if name.startswith(ours + "."):
            return theirs + name[len(ours):]
    if name == "head.modulation":
        return "scale_shift_table"
    parts = name.split(".")
    if parts[0] != "blocks":
        return name
    rest = {"modulation": "scale_shift_table", "norm3": "norm2", "self_attn": "attn1", "cross_attn": "attn2"}
    parts[2] = rest.get(parts[2], parts[2])
    if parts[2] in ("attn1", "attn2") and not parts[3].startswith("norm"):
        parts[3] = "to_out.0" if parts[3] == "o" else f"to_{parts[3]}"
    if parts[2] == "ffn":
        parts[3] = {"0": "net.0.proj", "2": "net.2"}[parts[3]]
    return ".".join(parts)


def vigu_name(name: str) -> str:
    """A Wan name as Uni-ViGU's checkpoint writes it (specs/univigu.md section 7)."""
    name = diffusers_name(name)
    top = {"condition_embedder.text_embedder.": "cond_text_embedder.",
           "condition_embedder.": "time_embedding_v.", "proj_out.": "video_head.proj_out."}
    for theirs, its in top.items():
        if name.startswith(theirs):
            return its + name[len(theirs):]
    return "scale_shift_table_v" if name == "scale_shift_table" else name


def write_tiny_adapters(path: str | Path, family: Family, config: WanConfig = TINY, *, rank: int = 4, prefix: str = "",
                        seed: int = 0, dtype: torch.dtype = torch.float16, alive: bool = False,
                        note: str | None = None) -> Path:
    """Write random adapters of a family, each key with `prefix` before it; the dead ones zero unless `alive`."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for block in range(config.num_layers):
        for site in ATTENTION + FEED_FORWARD:
            for adapter in family.file_adapters:
                n_in, n_out = (config.ffn_dim if site == "ffn.2" else config.dim,
                               config.ffn_dim if site == "ffn.0" else config.dim)
                for matrix, shape in (("A", (rank, n_in)), ("B", (n_out, rank))):
                    key = AdapterKey(block, site, matrix, adapter)
                    value = torch.randn(shape, generator=draw) * shape[1] ** -0.5
                    if matrix == "B" and is_dead(key, family) and not alive:
                        value.zero_()
                    state[prefix + str(key)] = value.to(dtype)
    metadata = layer_metadata(family) | ({} if note is None else {NOTE: note})
    save_file(state, path, metadata=metadata or None)
    return Path(path)


def write_empty_prompt(adapters: str | Path, text_dim: int = TINY.text_dim, seed: int = 0) -> Path:
    """Write an embedding of the empty prompt (its end token alone) beside an adapter file."""
    row = torch.randn(1, text_dim, generator=torch.Generator().manual_seed(seed))
    path = prompts_path(adapters)
    save_file({"empty_prompt": row.half()}, path)
    return path

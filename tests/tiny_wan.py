"""Makers of tiny Wan backbones and layer adapters in the published key layouts, so that tests download nothing.

Random but tame (every layer keeps its input's scale); the same seed gives the same file. `python tests/tiny_wan.py DIR`
writes the untrained alpha adapters that `model_loaders/tiny/` bundles.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from comfyui_strata.joint.families import ALPHA
from comfyui_strata.joint.streams import Family
from comfyui_strata.joint.wan import WanConfig, empty_wan
from comfyui_strata.model_loaders.adapter_metadata import adapter_metadata
from comfyui_strata.model_loaders.adapter_names import ATTENTION, FEED_FORWARD, AdapterKey, is_dead
from comfyui_strata.model_loaders.adapters import NOTE, empty_prompt_path
from comfyui_strata.model_loaders.detect import wan_config
from comfyui_strata.model_loaders.safetensors_file import read_header

# ComfyUI reads the number of heads as width / 128, so a width of 128 n is the smallest that its loaders take.
TINY = WanConfig(dim=128, ffn_dim=256, num_layers=2, num_heads=1)


def write_tiny_backbone(path: str | Path, config: WanConfig = TINY, *, prefix: str = "", seed: int = 0,
                        dtype: torch.dtype = torch.float16) -> Path:
    """Write a random Wan text-to-video backbone under Wan's own names, each with `prefix` before it."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, parameter in empty_wan(config, device="meta").named_parameters():
        shape = parameter.shape
        if "norm" in name and name.endswith("weight"):
            value = 1 + 0.1 * torch.randn(shape, generator=draw)
        elif name.endswith("modulation"):
            value = torch.randn(shape, generator=draw) * 0.3
        elif name.endswith("bias"):
            value = torch.randn(shape, generator=draw) * 0.02
        else:
            value = torch.randn(shape, generator=draw) * shape[1:].numel() ** -0.5
        state[prefix + name] = value.to(dtype).contiguous()
    save_file(state, path)
    return Path(path)


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
    metadata = adapter_metadata(family) | ({} if note is None else {NOTE: note})
    save_file(state, path, metadata=metadata or None)
    return Path(path)


def write_empty_prompt(adapters: str | Path, text_dim: int = TINY.text_dim, seed: int = 0) -> Path:
    """Write an embedding of the empty prompt (its end token alone) beside an adapter file."""
    row = torch.randn(1, text_dim, generator=torch.Generator().manual_seed(seed))
    path = empty_prompt_path(adapters)
    save_file({"empty_prompt": row.half()}, path)
    return path


def write_untrained(folder: str | Path, family: Family) -> None:
    """The adapters of a family that nobody has trained yet, for the backbone in a folder, and its empty prompt."""
    folder = Path(folder)
    config = wan_config(read_header(folder / "wan.safetensors").shapes)
    adapters = write_tiny_adapters(
        folder / f"{family.name}.safetensors", family, config,
        note=f"The bundled {family.name} adapters are untrained: the layers they make are noise.")
    trained = empty_prompt_path(folder / "intrinsic.safetensors")
    shutil.copy(trained, empty_prompt_path(adapters))  # the prompt that the backbone knows


if __name__ == "__main__":
    write_untrained(sys.argv[1], ALPHA)

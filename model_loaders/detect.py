"""What a safetensors file is, from its header alone, in one line."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from ..joint.streams import Family
from ..joint.variants import Variant
from ..joint.wan import WanConfig
from .adapter_metadata import family_of
from .adapter_names import parse_key
from .safetensors_file import Header, read_header
from .vae import looks_like_vae
from .wan_names import wan_names


@dataclass(frozen=True)
class Detected:
    """`kind` is "backbone", "adapters", "vae", "text encoder", "empty prompt" or "unknown"; `line` says it in words."""

    kind: str
    line: str
    family: Family | None = None


def detect(path: str | Path) -> Detected:
    """Say what a file is. Raises as `read_header` for files that are no readable safetensors, and ValueError for
    adapters of a variant that Strata does not know."""
    header = read_header(path)
    parsed = [key for key in map(parse_key, header.shapes) if key]
    if parsed:
        return _adapters(header, parsed)
    names = wan_names(header.shapes)
    shapes = {names[key]: shape for key, shape in header.shapes.items()}
    if "patch_embedding.weight" in shapes and "head.modulation" in shapes:
        c = wan_config(shapes)
        count = sum(prod(shape) for shape in shapes.values())
        channels = f"{c.in_dim} latent channels"
        if c.in_dim != c.out_dim:
            channels = f"{c.in_dim} channels in and {c.out_dim} out"
        return Detected("backbone", f"Wan backbone, {c.num_layers} blocks of width {c.dim}, {channels}, "
                                    f"{count / 1e6:,.0f}M parameters")
    if version := looks_like_vae(shapes):
        return Detected("vae", f"Wan {version} VAE")
    if "encoder.block.0.layer.0.SelfAttention.q.weight" in shapes:
        return Detected("text encoder", f"T5 text encoder of width {shapes['shared.weight'][-1]}")
    if set(shapes) == {"empty_prompt"}:
        return Detected("empty prompt", f"embedding of the empty prompt, width {shapes['empty_prompt'][-1]}")
    return Detected("unknown", "no file that Strata knows (it looks for Wan backbones, UniVidX adapters, Wan VAEs and "
                               "UMT5 text encoders)")


def wan_config(shapes: dict[str, tuple[int, ...]], num_heads: int | None = None) -> WanConfig:
    """Sizes of a backbone from the shapes of its tensors, under Wan's own names.

    Heads cannot be read from shapes: they are 128 channels wide in every release, unless `num_heads` says otherwise.
    Raises ValueError when a tensor that tells a size is missing."""
    try:
        patch, head = shapes["patch_embedding.weight"], shapes["head.head.weight"]
        return WanConfig(
            dim=patch[0],
            ffn_dim=shapes["blocks.0.ffn.0.weight"][0],
            num_layers=1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("blocks.")),
            num_heads=num_heads or max(patch[0] // 128, 1),
            in_dim=patch[1],
            out_dim=head[0] // prod(patch[2:]),
            text_dim=shapes["text_embedding.0.weight"][1],
            freq_dim=shapes["time_embedding.0.weight"][1],
            patch_size=tuple(patch[2:]),
        )
    except KeyError as error:
        raise ValueError(f"This is no whole Wan backbone: the tensor {error} is missing; download it again.") from None


def _adapters(header: Header, parsed: list) -> Detected:
    names = {key.adapter for key in parsed}
    family = family_of(names, header.metadata, header.path.name)
    blocks = 1 + max(key.block for key in parsed)
    rank = next((header.shapes[k][0] for k in header.shapes if ".lora_A." in k), 0)
    what = f"UniVidX adapters of the {family.name} family" if family else "adapters of no family that Strata knows"
    if family and family.variant != Variant():
        what += f" with {family.variant}"
    return Detected("adapters", f"{what} ({', '.join(sorted(names))}), rank {rank}, {blocks} blocks", family)

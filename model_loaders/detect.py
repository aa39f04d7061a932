"""What a safetensors file is, from its header alone, in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ..joint.streams import Family
from ..joint.variants import Variant
from ..joint.wan import WanConfig
from .adapter_names import parse_key
from .checkpoint_file import PICKLES, open_checkpoint
from .expert_names import split_names
from .layer_metadata import family_of, family_of_parts
from .safetensors_file import Header, read_header
from .vae import VAE_CHANNELS, looks_like_vae
from .wan_names import wan_names
from .word_encoder import CODES, is_word_encoder

# What a file of prompts calls the embedding of the empty one, and, before a stream's name, of that stream's own.
EMPTY_PROMPT, OWN_PROMPT = "empty_prompt", "prompt."

# What the shape of a part, under its name in `Experts`, says of the sizes of the backbone and of V.
_SIZES = (
    (r"embedding\.\w+\.patch_embedding\.weight", ("dim", "in_dim", "t", "h", "w")),
    (r"embedding\.\w+\.weight", ("vocabulary", "dim")),
    (r"time\.\w+\.time_embedding\.0\.weight", ("dim", "freq_dim")),
    (r"ffn\.\w+\.\d+\.0\.weight", ("ffn_dim", "dim")),
)


@dataclass(frozen=True)
class Detected:
    """`kind` is "backbone", "adapters" (LoRA), "layers" (parts of streams' own), "checkpoint" (both those and their
    backbone), "vae", "text encoder", "prompts" or "unknown"; `line` says it in words. `family` of layers; `channels` of
    the latents of a backbone or VAE; `width` of the network of a backbone, or that layers are for."""

    kind: str
    line: str
    family: Family | None = None
    channels: int | None = None
    width: int | None = None


def detect(path: str | Path) -> Detected:
    """Say what a file is, a pickle (by its name, .pth) included. Raises as `read_header` for files that are no readable
    safetensors, as `open_checkpoint` for pickles, and ValueError for layers of a variant that Strata does not know."""
    if Path(path).suffix not in PICKLES:
        return detect_header(read_header(path))
    with open_checkpoint(path) as checkpoint:
        return detect_header(checkpoint.header)


def detect_header(header: Header) -> Detected:
    """The same of a file whose header was read. Raises ValueError for layers of an unknown variant."""
    parsed = [key for key in map(parse_key, header.shapes) if key]
    if parsed:
        return _adapters(header, parsed)
    if family := family_of_parts(header.shapes, header.metadata, header.path.name):
        return _parts(header, family)
    names = wan_names(header.shapes)
    shapes = {names[key]: shape for key, shape in header.shapes.items()}
    if _is_backbone(shapes):
        return _backbone(shapes)
    if version := looks_like_vae(shapes):
        return Detected("vae", f"Wan {version} VAE", channels=VAE_CHANNELS[version])
    if "encoder.block.0.layer.0.SelfAttention.q.weight" in shapes:
        return Detected("text encoder", f"T5 text encoder of width {shapes['shared.weight'][-1]}")
    if is_word_encoder(shapes):
        words, width = shapes[CODES]
        return Detected("text encoder", f"word encoder of {words - 1} words, codes of width {width}")
    prompts = [key for key in shapes if key == EMPTY_PROMPT or key.startswith(OWN_PROMPT)]
    if prompts and all(shapes[key] for key in prompts):
        of = ["the empty prompt" if key == EMPTY_PROMPT else key.removeprefix(OWN_PROMPT) for key in sorted(prompts)]
        return Detected("prompts", f"embedding of {', '.join(of)}, width {shapes[prompts[0]][-1]}")
    return Detected("unknown", "no file that Strata knows (it looks for Wan backbones, layers of UniVidX, UnityVideo "
                               "and Uni-ViGU, Wan VAEs and text encoders)")


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


def part_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    """What the shapes of own parts, by their names in `Experts`, tell: fields of `WanConfig`, and the "vocabulary"."""
    sizes = {}
    for name, shape in shapes.items():
        for pattern, what in _SIZES:
            if re.fullmatch(pattern, name) and len(shape) == len(what):
                sizes |= dict(zip(what, shape))
        if match := re.match(r"ffn\.\w+\.(\d+)\.", name):
            sizes["num_layers"] = max(sizes.get("num_layers", 0), int(match[1]) + 1)
    if "t" in sizes:
        sizes["patch_size"] = tuple(sizes.pop(axis) for axis in "thw")
    return sizes


def _is_backbone(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return "patch_embedding.weight" in shapes and "head.modulation" in shapes


def _backbone(shapes: dict[str, tuple[int, ...]]) -> Detected:
    c = wan_config(shapes)
    count = sum(prod(shape) for shape in shapes.values())
    channels = f"{c.in_dim} latent channels"
    if c.in_dim != c.out_dim:
        channels = f"{c.in_dim} channels in and {c.out_dim} out"
    return Detected("backbone", f"Wan backbone, {c.num_layers} blocks of width {c.dim}, {channels}, "
                                f"{count / 1e6:,.0f}M parameters", channels=c.in_dim, width=c.dim)


def _parts(header: Header, family: Family) -> Detected:
    names, own = split_names(header.shapes, family.name)
    sizes = part_sizes({name: header.shapes[key] for key, name in own.items()})
    about = f"of the {family.name} family"
    if family.variant != Variant():
        about += f" with {family.variant}"
    if "vocabulary" in sizes:
        about += f", text of {sizes['vocabulary']:,} tokens"
    about += f" ({family.title})"
    rest = {name: header.shapes[key] for key, name in names.items()}
    if _is_backbone(rest):
        return Detected("checkpoint", f"whole checkpoint {about}, {_backbone(rest).line}; 'strata convert' splits it "
                                      "into the backbone and the layers", family)
    return Detected("layers", f"layers {about}, for a backbone of width {sizes.get('dim', '?')}", family,
                    width=sizes.get("dim"))


def _adapters(header: Header, parsed: list) -> Detected:
    names = {key.adapter for key in parsed}
    family = family_of(names, header.metadata, header.path.name)
    blocks = 1 + max(key.block for key in parsed)
    rank = next((header.shapes[k][0] for k in header.shapes if ".lora_A." in k), 0)
    width = next((shape[-1] for key, shape in header.shapes.items() if "self_attn.q.lora_A." in key), None)
    what = f"UniVidX adapters of the {family.name} family" if family else "adapters of no family that Strata knows"
    if family and family.variant != Variant():
        what += f" with {family.variant}"
    return Detected("adapters", f"{what} ({', '.join(sorted(names))}), rank {rank}, {blocks} blocks", family,
                    width=width)

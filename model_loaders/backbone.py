"""A Wan backbone file into our plain `WanModel`, for use outside ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..joint.wan import WanConfig, WanModel, empty_wan
from .detect import detect_header, wan_config
from .layer_metadata import family_of_parts
from .safetensors_file import Header, check_finite, load_tensors, name_some, read_header
from .wan_names import wan_names


def load_backbone(path: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.bfloat16,
                  num_heads: int | None = None) -> WanModel:
    """Load a text-to-video Wan backbone of any size from a file, or from a folder of its shards.

    Reads Wan's own names, ComfyUI's prefixes and diffusers' names. Raises FileNotFoundError, or ValueError: not a
    backbone, quantised with scales, missing or extra tensors, wrong shapes, values that are not finite, truncated.
    """
    path = Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"There is no .safetensors file in the folder '{path}'.")
    shapes, metadata = {}, {}
    for file in files:
        header = read_header(file)
        shapes.update(header.shapes)
        metadata.update(header.metadata)
    names = wan_names(shapes)
    has = {names[key]: shape for key, shape in shapes.items()}
    parts = family_of_parts(shapes, metadata, path.name)
    if "patch_embedding.weight" not in has or parts:
        found = detect_header(Header(path, shapes, {}, metadata))
        raise ValueError(f"'{path.name}' is no Wan backbone: it is {found.line}.")
    if any(name.endswith((".scale_weight", ".weight_scale", ".comfy_quant")) for name in names.values()):
        raise ValueError(f"'{path.name}' is quantised with scales, which only ComfyUI reads: use the bf16 or fp16 file "
                         "here, or the graph for this one.")
    config = check_backbone(has, path.name, num_heads)
    state = {}
    for file in files:
        tensors = load_tensors(file)
        check_finite(file.name, tensors)
        state.update((names[key], tensor.to(device=device, dtype=dtype)) for key, tensor in tensors.items())
    model = empty_wan(config, device="meta", dtype=dtype)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False)


def check_backbone(shapes: Mapping[str, tuple[int, ...]], name: str, num_heads: int | None = None) -> WanConfig:
    """The sizes of a backbone from its shapes by Wan's own names. Raises ValueError unless these are exactly the
    tensors of Wan text-to-video; `name` stands for the file in errors."""
    config = wan_config(shapes, num_heads)
    wanted = {key: tuple(value.shape) for key, value in empty_wan(config, device="meta").state_dict().items()}
    missing, extra = wanted.keys() - shapes.keys(), shapes.keys() - wanted.keys()
    if missing:
        raise ValueError(f"'{name}' lacks {len(missing)} tensors of its backbone ({name_some(missing)}): "
                         "download it again.")
    if extra:
        raise ValueError(f"'{name}' is not Wan text-to-video: it has {len(extra)} more tensors "
                         f"({name_some(extra)}); use the T2V model.")
    for key, shape in wanted.items():
        if tuple(shapes[key]) != shape:
            raise ValueError(f"'{name}' does not fit together: {key} is {shapes[key]} where {shape} is needed.")
    return config

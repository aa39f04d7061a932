"""A Wan backbone file into our plain `WanModel`, for use outside ComfyUI."""

from __future__ import annotations

from pathlib import Path

import torch

from ..joint.wan import WanModel, empty_wan
from .detect import detect, wan_config
from .safetensors_file import check_finite, load_tensors, name_some, read_header
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
    shapes = {}
    for file in files:
        shapes.update(read_header(file).shapes)
    names = wan_names(shapes)
    if "patch_embedding.weight" not in names.values():
        raise ValueError(f"'{path.name}' is no Wan backbone: it is {detect(files[0]).line}.")
    if any(name.endswith((".scale_weight", ".weight_scale", ".comfy_quant")) for name in names.values()):
        raise ValueError(f"'{path.name}' is quantised with scales, which only ComfyUI reads: use the bf16 or fp16 file "
                         "here, or the graph for this one.")
    config = wan_config({names[key]: shape for key, shape in shapes.items()}, num_heads)
    model = empty_wan(config, device="meta", dtype=dtype)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    has = {names[key]: shape for key, shape in shapes.items()}
    missing, extra = wanted.keys() - has.keys(), has.keys() - wanted.keys()
    if missing:
        raise ValueError(f"'{path.name}' lacks {len(missing)} tensors of its backbone ({name_some(missing)}): "
                         "download it again.")
    if extra:
        raise ValueError(f"'{path.name}' is not Wan text-to-video: it has {len(extra)} more tensors "
                         f"({name_some(extra)}); use the T2V model.")
    for key, shape in wanted.items():
        if has[key] != shape:
            raise ValueError(f"'{path.name}' does not fit together: {key} is {has[key]} where {shape} is needed.")
    state = {}
    for file in files:
        tensors = load_tensors(file)
        check_finite(file.name, tensors)
        state.update((names[key], tensor.to(device=device, dtype=dtype)) for key, tensor in tensors.items())
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False)

"""Names of a Wan backbone's tensors: prefixes taken off, diffusers' names turned into Wan's own."""

from __future__ import annotations

import re

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "module.", "base.")
WRAPPERS = ("_fsdp_wrapped_module.", "_orig_mod.")  # what FSDP and torch.compile put into names, anywhere

# diffusers' WanTransformer3DModel -> Wan 2.1, applied in this order (scripts/convert_wan_to_diffusers.py, reversed).
_DIFFUSERS = (
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^cond_text_embedder\.linear_1\.", "text_embedding.0."),  # this and the _v: Uni-ViGU's changes
    (r"^cond_text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^time_embedding_v\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^time_embedding_v\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^time_embedding_v\.time_proj\.", "time_projection.1."),
    (r"^scale_shift_table_v$", "head.modulation"),
    (r"^(?:video_head\.)?proj_out\.", "head.head."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_(q|k|v)\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
    (r"^(blocks\.\d+)\.norm2\.", r"\1.norm3."),
)


def strip_prefix(keys) -> dict[str, str]:
    """Map each key to itself without what a trainer, a compiler or ComfyUI put before and into a backbone's names."""
    bare = {}
    for key in keys:
        bare[key] = key
        for wrapper in WRAPPERS:
            bare[key] = bare[key].replace(wrapper, "")
    for prefix in PREFIXES:
        if any(name.startswith(prefix + "patch_embedding.") for name in bare.values()):
            return {key: name.removeprefix(prefix) for key, name in bare.items()}
    return bare


def wan_names(keys) -> dict[str, str]:
    """Map the keys of a backbone file to Wan's own names, whatever prefix or layout they come in."""
    stripped = strip_prefix(keys)
    if not any(key.startswith(("condition_embedder.", "cond_text_embedder.")) for key in stripped.values()):
        return stripped
    renamed = {}
    for key, name in stripped.items():
        for pattern, replacement in _DIFFUSERS:
            name = re.sub(pattern, replacement, name)
        renamed[key] = name
    return renamed

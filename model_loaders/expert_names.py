"""What UnityVideo's and Uni-ViGU's checkpoints call the tensors that they hold beside a Wan backbone.

Our files keep the published names, whole or split from the backbone, so that one reading serves both.
"""

from __future__ import annotations

from collections.abc import Iterable

from .wan_names import WRAPPERS, wan_names

# Beginnings of names, published -> ours; {} stands for the number of a block.
# UnityVideo (specs/unityvideo.md A2): "flow" is any layer beside rgb, "raft" is optical flow. The modulations are the
# paper's, which released none.
_UNITY = {
    "flow_patch_embedding.": "embedding.layer.patch_embedding.",
    "flow_in.": "embedding.layer.linear.",
    "flow_head.": "head.layer.",
    "modality_embeddings.raft": "identity.flow",
    "modality_embeddings.": "identity.",
    "modality_modulations.": "modulation.",
}
# Uni-ViGU (specs/univigu.md §7), in the style of diffusers.
_VIGU = {
    "vocab_embed.": "embedding.text.",
    "time_embedding_t.time_embedder.linear_1.": "time.text.time_embedding.0.",
    "time_embedding_t.time_embedder.linear_2.": "time.text.time_embedding.2.",
    "time_embedding_t.time_proj.": "time.text.time_projection.1.",
    "blocks.{}.ffn_t.net.0.proj.": "ffn.text.{}.0.",
    "blocks.{}.ffn_t.net.2.": "ffn.text.{}.2.",
    "text_head.norm_final.": "head.text.norm.",
    "text_head.linear.": "head.text.head.",
    "scale_shift_table_t": "head.text.modulation",
}
_TABLES = {"unity": _UNITY, "vigu": _VIGU}
_TABLE_OF_POSITIONS = "rotary_emb_text.inv_freq"  # a buffer that Uni-ViGU saved; `joint.rope` makes it anew


def split_names(keys: Iterable[str], family: str) -> tuple[dict[str, str], dict[str, str]]:
    """The keys of a whole checkpoint of a family, mapped to Wan's own names and to the names in `Experts`."""
    keys = [key for key in keys if not key.endswith(_TABLE_OF_POSITIONS)]
    own = expert_names(keys, family)
    return {key: name for key, name in wan_names(keys).items() if key not in own}, own


def expert_names(keys: Iterable[str], family: str) -> dict[str, str]:
    """Map the published keys of a family's own parts to their names in `Experts`; all other keys are left out."""
    return _renamed(keys, _TABLES.get(family, {}))


def published_names(keys: Iterable[str], family: str) -> dict[str, str]:
    """Map names in `Experts` to the published keys: the inverse of `expert_names`."""
    return _renamed(keys, {ours: published for published, ours in _TABLES[family].items()})


def _renamed(keys: Iterable[str], table: dict[str, str]) -> dict[str, str]:
    found = {}
    for key in keys:
        name = key
        for wrapper in WRAPPERS:
            name = name.replace(wrapper, "")
        block = next((part for part in name.split(".") if part.isdecimal()), "")
        for start, replacement in table.items():
            start = start.format(block)
            if name.startswith(start):
                found[key] = replacement.format(block) + name.removeprefix(start)
                break
    return found

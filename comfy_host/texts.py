"""Prompts through a stock CLIP, as a family wants them embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..joint.streams import Family, TextSpec
from .words import WordModel

TEXT_LENGTH = 512  # what Wan's own code cuts prompts to


def fill_prompts(family: Family, stored: Mapping[str, Tensor], clip) -> dict[str, Tensor]:
    """The embeddings [1, W, E] of a family's fixed prompts and of the empty one (""): those stored, the others from a
    CLIP where one is given. Nothing is encoded for a family without fixed prompts."""
    wanted = {stream.name: stream.prompt for stream in family.streams if stream.prompt}
    if wanted:
        wanted[""] = ""
    lacking = [name for name in wanted if name not in stored]
    if clip is None or not lacking:
        return dict(stored)
    embedded = encode_texts(clip, [wanted[name] for name in lacking], family.text)
    return {**stored, **dict(zip(lacking, embedded.split(1)))}


def encode_texts(clip, prompts: Sequence[str], text: TextSpec) -> Tensor:
    """Embed each prompt to a row of [n, W, E], W 512 by UMT5 and 64 by a word encoder: the given CLIP is left as it is.

    Prompts are taken as they are written, parentheses included, and cut to 512 tokens with the end token kept. `text`
    as of `model_loaders.text.encode_prompts`; ComfyUI cleans no prompt, whatever it says. Raises ValueError for any
    other CLIP."""
    clip = as_family(clip, text)
    rows = []
    for prompt in prompts:
        tokens = clip.tokenize(prompt, disable_weights=True)
        tokens = {name: [_cut(row) for row in batch] for name, batch in tokens.items()}
        rows.append(clip.encode_from_tokens(tokens))
    return torch.cat(rows)


def as_family(clip, text: TextSpec):
    """A clone of a UMT5 CLIP that embeds as `text` says, by object patches, which ComfyUI takes back when another
    clone of the encoder is used; a word encoder's has but one way and is taken as it is."""
    if isinstance(clip.cond_stage_model, WordModel):
        return clip
    encoder = getattr(clip.cond_stage_model, "umt5xxl", None)
    if encoder is None:
        raise ValueError(f"This CLIP is {type(clip.cond_stage_model).__name__}, but the layers read UMT5: load "
                         "umt5_xxl with a CLIP loader of type wan.")
    clip = clip.clone()
    if text.share_first_bias:
        first = encoder.transformer.encoder.block[0].layer[0].SelfAttention
        for i in range(1, len(encoder.transformer.encoder.block)):
            clip.patcher.add_object_patch(
                f"umt5xxl.transformer.encoder.block.{i}.layer.0.SelfAttention.compute_bias", first.compute_bias)
    if not text.zero_padding:
        clip.patcher.add_object_patch("umt5xxl.zero_out_masked", False)
    return clip


def _cut(tokens: list) -> list:
    """Tokens with weights, of which the last is kept (the end) where they are more than the network reads."""
    return tokens if len(tokens) <= TEXT_LENGTH else [*tokens[:TEXT_LENGTH - 1], tokens[-1]]

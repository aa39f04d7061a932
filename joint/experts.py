"""Parts that streams have of their own, in the place of the backbone's: projections, feed-forwards, time, vectors.

`streams.Own` says which stream has which. The parts lie beside the backbone and never in it, so its checkpoint, its
quantisation and its LoRA stay what they are.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn

from .streams import Family
from .wan import Head, WanConfig, feed_forward, time_embedding, time_projection


def embed_patches(convolution: nn.Module, latents: Tensor) -> Tensor:
    """Latents [N, C, F, Y, X] as tokens [N, f*h*w, D], row-major."""
    # ComfyUI keeps this convolution in float32 whatever the model's dtype.
    return convolution(latents.to(convolution.weight.dtype)).flatten(2).transpose(1, 2)


class LatentEmbedding(nn.Module):
    """Patches of a latent, then a linear layer (UnityVideo): [N, C, F, Y, X] -> [N, f*h*w, D]."""

    def __init__(self, c: WanConfig, ops: ModuleType | type = nn):
        super().__init__()
        self.patch_embedding = ops.Conv3d(c.in_dim, c.dim, kernel_size=c.patch_size, stride=c.patch_size)
        self.linear = ops.Linear(c.dim, c.dim)

    def forward(self, latents: Tensor) -> Tensor:
        """The tokens of latents, row-major."""
        return self.linear(embed_patches(self.patch_embedding, latents).to(latents.dtype))


class TimeNetwork(nn.Module):
    """What a Wan backbone makes of a time, under its names."""

    def __init__(self, c: WanConfig, ops: ModuleType | type = nn):
        super().__init__()
        self.time_embedding = time_embedding(c, ops)
        self.time_projection = time_projection(c, ops)


class TokenHead(nn.Module):
    """Logits over a vocabulary, with two modulation rows. The norm has a weight and torch's own eps, unlike Wan's."""

    def __init__(self, c: WanConfig, vocabulary: int, ops: ModuleType | type = nn):
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 2, c.dim))
        self.norm = ops.LayerNorm(c.dim, bias=False)
        self.head = ops.Linear(c.dim, vocabulary)


class Experts(nn.Module):
    """All parts that the streams of a family name, each once; parameters are uninitialised, a loader fills them.

    `config`: the backbone's sizes. `vocabulary`: how many tokens text is made of, 0 where the family has none. `ops`:
    where Linear, Conv3d, Embedding and LayerNorm come from, torch.nn or a host's own."""

    def __init__(self, family: Family, config: WanConfig, vocabulary: int = 0, ops: ModuleType | type = nn):
        super().__init__()
        self.family, self.vocabulary = family, vocabulary
        self.embedding, self.time, self.ffn, self.head = (nn.ModuleDict() for _ in range(4))
        self.identity, self.modulation = nn.ParameterDict(), nn.ParameterDict()
        for stream in family.streams:
            own = stream.own
            if own.embedding and own.embedding not in self.embedding:
                self.embedding[own.embedding] = (
                    ops.Embedding(vocabulary, config.dim) if stream.tokens else LatentEmbedding(config, ops))
            if own.time and own.time not in self.time:
                self.time[own.time] = TimeNetwork(config, ops)
            if own.ffn and own.ffn not in self.ffn:
                self.ffn[own.ffn] = nn.ModuleList(feed_forward(config, ops) for _ in range(config.num_layers))
            if own.head and own.head not in self.head:
                self.head[own.head] = TokenHead(config, vocabulary, ops) if stream.tokens else Head(config, ops)
            for name, vectors in ((own.identity, self.identity), (own.modulation, self.modulation)):
                if name:
                    vectors[name] = nn.Parameter(torch.empty(config.dim))


def empty_experts(family: Family, config: WanConfig, vocabulary: int = 0, device="cpu",
                  dtype: torch.dtype = torch.float32) -> Experts:
    """The parts of a family's streams, uninitialised; nothing is drawn."""
    with torch.device("meta"):
        experts = Experts(family, config, vocabulary)
    return experts.to(dtype).to_empty(device=device).requires_grad_(False).eval()

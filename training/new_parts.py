"""What streams have of their own before the first step: as much as can be a copy of the backbone's, the rest nothing.

So at first UnityVideo's other layer reads as empty, and Uni-ViGU's text thinks as the video does. Source:
specs/unityvideo.md A2, specs/univigu.md §2.
"""

from __future__ import annotations

import torch
from torch import nn

from ..joint.experts import Experts, LatentEmbedding, empty_experts
from ..joint.streams import Family
from ..joint.wan import WanModel


def make_experts(family: Family, backbone: WanModel, vocabulary: int, seed: int) -> Experts:
    """The own parts of a family's streams in float32, for a backbone. Only the embeddings of tokens are drawn."""
    experts = empty_experts(family, backbone.config, vocabulary)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for embedding in experts.embedding.values():
            if isinstance(embedding, LatentEmbedding):
                _copy(embedding.patch_embedding, backbone.patch_embedding)
                nn.init.zeros_(embedding.linear.weight)
                nn.init.zeros_(embedding.linear.bias)
            else:
                embedding.weight.normal_(generator=draw)  # torch's own for an embedding, which the release leaves
        for vector in (*experts.identity.values(), *experts.modulation.values()):
            nn.init.zeros_(vector)
        for time in experts.time.values():
            _copy(time.time_embedding, backbone.time_embedding)
            _copy(time.time_projection, backbone.time_projection)
        for networks in experts.ffn.values():
            for network, block in zip(networks, backbone.blocks):
                _copy(network, block.ffn)
        for head in experts.head.values():
            head.modulation.copy_(backbone.head.modulation)
            if head.head.weight.shape == backbone.head.head.weight.shape:
                _copy(head.head, backbone.head.head)
            else:  # of tokens: every one is alike at first
                nn.init.ones_(head.norm.weight)
                nn.init.zeros_(head.head.weight)
                nn.init.zeros_(head.head.bias)
    return experts


def _copy(to: nn.Module, source: nn.Module) -> None:
    to.load_state_dict({name: value.float() for name, value in source.state_dict().items()})

"""The plain Wan 2.1 module tree (github Wan-Video/Wan2.1, Apache-2.0), in the checkpoint's own names, any size.

Only the modules and their arithmetic: the data flow is `transformer.joint_forward`, which walks this tree and
ComfyUI's `WanModel` alike. Parameters are made with `torch.empty`; a loader fills them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class WanConfig:
    """Sizes of a Wan text-to-video backbone. The defaults are 14B; heads are 128 channels wide in every release."""

    dim: int = 5120
    ffn_dim: int = 13824
    num_layers: int = 40
    num_heads: int = 40
    in_dim: int = 16
    out_dim: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6


class RMSNorm(nn.Module):
    """Root-mean-square norm over the full width, in float32, cast back before the weight (as Wan does)."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).to(x.dtype) * self.weight


class Attention(nn.Module):
    """The four projections and two norms of a self- or cross-attention."""

    def __init__(self, c: WanConfig):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(c.dim, c.dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(c.dim, c.eps), RMSNorm(c.dim, c.eps)


class Block(nn.Module):
    """One transformer block: self-attention, cross-attention to the text, feed-forward, and six modulation rows."""

    def __init__(self, c: WanConfig):
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 6, c.dim))
        self.norm1 = nn.LayerNorm(c.dim, c.eps, elementwise_affine=False)
        self.self_attn = Attention(c)
        self.norm3 = nn.LayerNorm(c.dim, c.eps)
        self.cross_attn = Attention(c)
        self.norm2 = nn.LayerNorm(c.dim, c.eps, elementwise_affine=False)
        self.ffn = feed_forward(c)


class Head(nn.Module):
    """The output projection, with two modulation rows."""

    def __init__(self, c: WanConfig, ops: ModuleType | type = nn):
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 2, c.dim))
        self.norm = ops.LayerNorm(c.dim, c.eps, elementwise_affine=False)
        self.head = ops.Linear(c.dim, prod(c.patch_size) * c.out_dim)


def feed_forward(c: WanConfig, ops: ModuleType | type = nn) -> nn.Sequential:
    """The feed-forward network of a block; layers 0 and 2 have weights."""
    return nn.Sequential(ops.Linear(c.dim, c.ffn_dim), nn.GELU("tanh"), ops.Linear(c.ffn_dim, c.dim))


def time_embedding(c: WanConfig, ops: ModuleType | type = nn) -> nn.Sequential:
    """From the sinusoid of a time to its embedding."""
    return nn.Sequential(ops.Linear(c.freq_dim, c.dim), nn.SiLU(), ops.Linear(c.dim, c.dim))


def time_projection(c: WanConfig, ops: ModuleType | type = nn) -> nn.Sequential:
    """From the embedding of a time to six modulation rows."""
    return nn.Sequential(nn.SiLU(), ops.Linear(c.dim, 6 * c.dim))


class WanModel(nn.Module):
    """The module tree of a Wan text-to-video backbone. Call it through `transformer.joint_forward`."""

    def __init__(self, config: WanConfig):
        super().__init__()
        self.config = c = config
        self.patch_size, self.freq_dim, self.num_heads = c.patch_size, c.freq_dim, c.num_heads
        self.patch_embedding = nn.Conv3d(c.in_dim, c.dim, kernel_size=c.patch_size, stride=c.patch_size)
        self.text_embedding = nn.Sequential(nn.Linear(c.text_dim, c.dim), nn.GELU("tanh"), nn.Linear(c.dim, c.dim))
        self.time_embedding, self.time_projection = time_embedding(c), time_projection(c)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.num_layers))
        self.head = Head(c)


def empty_wan(config: WanConfig, device="cpu", dtype: torch.dtype = torch.float32) -> WanModel:
    """A Wan backbone with uninitialised parameters; nothing is drawn, so even 14B takes no time to make."""
    with torch.device("meta"):
        model = WanModel(config)
    return model.to(dtype).to_empty(device=device).requires_grad_(False).eval()

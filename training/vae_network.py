"""The Wan 2.1 VAE on a whole clip at once, for training.

The same numbers as diffusers' AutoencoderKLWan, whose weights it reads, without that one's walk over chunks of four
frames and their caches: several times as fast, most of all on single frames, which here are plain 2D convolutions, and
one graph that torch.compile takes whole. N clips, F = 4n+1 frames, T = n+1 latent frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model_loaders.vae import LATENT_CHANNELS, WanVae

_SMALL = 1 << 17  # pixels of a clip: 0.3 GB a layer in the full-size VAE


def reconstruct(vae: nn.Module, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """x [N, 3, F, H, W] in -1..1 -> what the decoder makes of its latents plus `noise`, and the latents, the mean of
    the posterior [N, 16, T, H/8, W/8]. A pure function of its arguments' values and shapes."""
    mean = encode(vae, x)
    return decode(vae, mean + noise.to(mean)), mean


@torch.no_grad()
def encode_layers(vae: WanVae, layers: Sequence[Tensor], normalised: bool) -> list[Tensor]:
    """What `vae.encode` makes of each of the layers [F, H, W, 3] in 0..1, all of one size: of a small clip at once."""
    x = torch.stack(list(layers)).permute(0, 4, 1, 2, 3).to(vae.device, vae.dtype) * 2 - 1
    if vae.channels != LATENT_CHANNELS or x[0, 0].numel() > _SMALL:
        return [vae.encode(layer, normalised=normalised) for layer in layers]
    return list(vae.scaled(encode(vae.model, x), normalised).contiguous())


def encode(vae: nn.Module, x: Tensor) -> Tensor:
    """The mean of the latents, neither scaled nor shifted."""
    net = vae.encoder
    x = _conv(net.conv_in, x.contiguous(memory_format=torch.channels_last_3d))
    for block in net.down_blocks:
        kind = type(block).__name__
        if kind == "WanResidualBlock":
            x = _residual(block, x)
        elif kind == "WanAttentionBlock":
            x = _attention(block, x)
        else:
            x = _frames(block.resample, x)
            if hasattr(block, "time_conv") and x.shape[2] > 1:
                # The first frame stands alone; each two of the others become one, which sees the frame before, too.
                halved = F.conv3d(x, block.time_conv.weight, block.time_conv.bias, stride=block.time_conv.stride)
                x = torch.cat((x[:, :, :1], halved), dim=2)
    x = _conv(net.conv_out, F.silu(_norm(net.norm_out, _middle(net.mid_block, x))))
    return _conv(vae.quant_conv, x)[:, :LATENT_CHANNELS]


def decode(vae: nn.Module, z: Tensor) -> Tensor:
    """Pictures [N, 3, F, H, W] of latents, not clamped."""
    net = vae.decoder
    x = _middle(net.mid_block, _conv(net.conv_in, _conv(vae.post_quant_conv, z)))
    for block in net.up_blocks:
        for part in block.resnets:
            x = _residual(part, x)
        for part in block.upsamplers or ():
            if hasattr(part, "time_conv") and x.shape[2] > 1:
                first, rest = x[:, :, :1], _conv(part.time_conv, x[:, :, 1:])
                pairs = torch.stack(rest.chunk(2, dim=1), dim=3)  # [N, C, T-1, 2, H, W]
                x = torch.cat((first, pairs.flatten(2, 3)), dim=2)
            x = _frames(part.resample, x)
    return _conv(net.conv_out, F.silu(_norm(net.norm_out, x)))


def _conv(conv: nn.Module, x: Tensor) -> Tensor:
    """A causal convolution. Of a single frame, only a kernel's last plane meets more than padding."""
    frames, height, width = conv.kernel_size
    if x.shape[2] == 1:
        still = F.conv2d(x[:, :, 0], conv.weight[:, :, -1], conv.bias, padding=(height // 2, width // 2))
        return still.unsqueeze(2)
    return F.conv3d(F.pad(x, (0, 0, 0, 0, frames - 1, 0)), conv.weight, conv.bias, padding=(0, height // 2, width // 2))


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    """RMS over the channels of x [N, C, F, H, W], its square taken in float32."""
    inverse = torch.rsqrt(x.float().square().sum(dim=1, keepdim=True).clamp_min(1e-24))
    return x * inverse.to(x.dtype) * (norm.scale * norm.gamma.view(1, -1, 1, 1, 1)).to(x.dtype)


def _residual(block: nn.Module, x: Tensor) -> Tensor:
    y = _conv(block.conv1, F.silu(_norm(block.norm1, x)))
    y = _conv(block.conv2, F.silu(_norm(block.norm2, y)))
    return y + (x if isinstance(block.conv_shortcut, nn.Identity) else _conv(block.conv_shortcut, x))


def _attention(block: nn.Module, x: Tensor) -> Tensor:
    """Self-attention within every frame."""
    y = _frames(block.to_qkv, _norm(block.norm, x))
    rows = y.transpose(1, 2).flatten(3).flatten(0, 1).transpose(1, 2).unsqueeze(1)  # [N*F, 1, H*W, 3C]
    y = F.scaled_dot_product_attention(*rows.chunk(3, dim=-1)).squeeze(1).transpose(1, 2)  # [N*F, C, H*W]
    count, _, frames, height, width = x.shape
    return x + _frames(block.proj, y.reshape(count, frames, -1, height, width).transpose(1, 2))


def _middle(block: nn.Module, x: Tensor) -> Tensor:
    x = _residual(block.resnets[0], x)
    for attention, residual in zip(block.attentions, block.resnets[1:]):
        x = _residual(residual, _attention(attention, x))
    return x


def _frames(layer: nn.Module, x: Tensor) -> Tensor:
    """A 2D layer on every frame of x [N, C, F, H, W]."""
    count, _, frames = x.shape[:3]
    y = layer(x.transpose(1, 2).flatten(0, 1))
    return y.unflatten(0, (count, frames)).transpose(1, 2)

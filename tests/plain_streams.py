"""A slow, obvious reading of specs/streams.md B1: one request, one stream and one token at a time where it can be.

Nothing of `joint` computes here but the module trees that hold the weights, and the tables of positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from comfyui_strata.joint.adapters import AdapterBank, AdapterSettings
from comfyui_strata.joint.experts import Experts
from comfyui_strata.joint.rope import grid_rope, line_rope
from comfyui_strata.joint.streams import Family, Role, StreamSpec
from comfyui_strata.joint.wan import WanModel
from comfyui_strata.tests.toys import CONFIG, GRID


def plain_streams(model: WanModel, experts: Experts, bank: AdapterBank | None, settings: AdapterSettings,
                  family: Family, roles: Sequence[Role], states: Sequence[Tensor | None], times: Sequence[Tensor],
                  texts: Sequence[Tensor]) -> dict[int, Tensor]:
    """Every stream that is not absent: row -> velocity [C, F, Y, X] or logits [S, V].

    In row order: `states`, latents [C, F, Y, X] or ids [S]; `times` [P]; `texts` [W, E]."""
    heads, specs = CONFIG.num_heads, family.streams
    here = [s for s, role in enumerate(roles) if role is not Role.ABSENT]
    active = settings.active(family, roles) if bank else [False] * len(roles)
    closed = family.variant.condition_attention == "conditions"

    def lora(y, down, up):
        return y @ down.T @ up.T

    def own_lora(y, s, down, up):
        """Of adapters stacked over the adapted streams, that of stream s where it acts."""
        i = bank.rows.index(s) if active[s] else None
        return 0 if i is None else settings.strengths[s] * lora(y, down[i], up[i])

    def ffn_lora(y, s, down, up):
        if bank is None:
            return 0
        added = lora(y, down, up) if family.ffn_adapter else own_lora(y, s, down, up)
        return settings.ffn_strength * added

    x, e, rows, turn = {}, {}, {}, {}
    for s in here:
        own = specs[s].own
        x[s] = _embedded(model, experts, specs[s], states[s])
        network = experts.time[own.time] if own.time else model
        e[s] = torch.stack([network.time_embedding(_sinusoid(float(t))) for t in _per_token(times[s], len(x[s]))])
        told = e[s] + experts.modulation[own.modulation] if own.modulation else e[s]
        rows[s] = network.time_projection(told).unflatten(-1, (6, -1))  # [L, 6, D]
        turn[s] = _turn(specs[s], len(x[s]), CONFIG.dim // heads)

    for b, block in enumerate(model.blocks):
        weights = bank.blocks[b] if bank else None
        q, k, v = {}, {}, {}
        for s in here:
            shift, scale = (block.modulation[0, j] + rows[s][:, j] for j in (0, 1))
            y = block.norm1(x[s]) * (1 + scale) + shift
            parts = [linear(y) for linear in (block.self_attn.q, block.self_attn.k, block.self_attn.v)]
            if bank is not None:
                downs = weights.qkv_down.chunk(3, dim=1)
                parts = [part + own_lora(y, s, downs[j], weights.qkv_up[:, j]) for j, part in enumerate(parts)]
            q[s] = turn[s](block.self_attn.norm_q(parts[0]).unflatten(-1, (heads, -1))).flatten(1)
            k[s] = turn[s](block.self_attn.norm_k(parts[1]).unflatten(-1, (heads, -1))).flatten(1)
            v[s] = parts[2]
        for s in here:
            seen = [u for u in here if not (closed and roles[s] is Role.CONDITION) or roles[u] is Role.CONDITION]
            a = _attend(q[s], torch.cat([k[u] for u in seen]), torch.cat([v[u] for u in seen]), heads)
            y = block.self_attn.o(a)
            if bank is not None:
                y = y + own_lora(a, s, weights.o_down, weights.o_up)
            x[s] = x[s] + (block.modulation[0, 2] + rows[s][:, 2]) * y
            cross, text = block.cross_attn, model.text_embedding(texts[s])
            x[s] = x[s] + cross.o(_attend(cross.norm_q(cross.q(block.norm3(x[s]))), cross.norm_k(cross.k(text)),
                                          cross.v(text), heads))
            shift, scale = (block.modulation[0, j] + rows[s][:, j] for j in (3, 4))
            y = block.norm2(x[s]) * (1 + scale) + shift
            name = specs[s].own.ffn
            ffn = experts.ffn[name][b] if name else block.ffn
            y = ffn[0](y) + (ffn_lora(y, s, weights.ffn_in_down, weights.ffn_in_up) if bank else 0)
            y = F.gelu(y, approximate="tanh")
            y = ffn[2](y) + (ffn_lora(y, s, weights.ffn_out_down, weights.ffn_out_up) if bank else 0)
            x[s] = x[s] + (block.modulation[0, 5] + rows[s][:, 5]) * y

    out = {}
    for s in here:
        name = specs[s].own.head
        head = experts.head[name] if name else model.head
        shift, scale = (head.modulation[0, j] + e[s] for j in (0, 1))
        y = head.head(head.norm(x[s]) * (1 + scale) + shift)
        out[s] = y if specs[s].tokens else _picture(y)
    return out


def _embedded(model: WanModel, experts: Experts, spec: StreamSpec, state: Tensor) -> Tensor:
    """The tokens [L, D] of one stream."""
    own = spec.own
    if spec.tokens:
        x = torch.stack([experts.embedding[own.embedding].weight[token] for token in state])
    elif own.embedding:
        layer = experts.embedding[own.embedding]
        x = layer.linear(layer.patch_embedding(state[None])[0].flatten(1).T)
    else:
        x = model.patch_embedding(state[None])[0].flatten(1).T
    return x + experts.identity[own.identity] if own.identity else x


def _per_token(times: Tensor, tokens: int) -> Tensor:
    """A time for every token of a stream that has one, one a frame, or one a token."""
    return times.repeat_interleave(tokens // len(times))


def _sinusoid(t: float) -> Tensor:
    half = CONFIG.freq_dim // 2
    angle = t * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    return torch.cat((angle.cos(), angle.sin()))


def _turn(spec: StreamSpec, tokens: int, head_dim: int):
    """The rotation of queries and keys [L, H, d] of one stream, as complex numbers."""
    table = line_rope(tokens, head_dim) if spec.tokens else grid_rope(GRID, head_dim, (0, 0, spec.columns * GRID[2]))
    turn = torch.complex(*table.double())[:, None]  # [L, 1, d/2]

    def halves(y):
        real, imaginary = y.chunk(2, dim=-1)
        turned = torch.complex(real, imaginary) * turn
        return torch.cat((turned.real, turned.imag), dim=-1)

    def neighbours(y):
        return torch.view_as_real(torch.view_as_complex(y.unflatten(-1, (-1, 2))) * turn).flatten(-2)

    return halves if spec.tokens else neighbours


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(0, 1) for t in (q, k, v))  # [H, T, d]
    weight = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weight @ v).transpose(0, 1).flatten(1)


def _picture(y: Tensor) -> Tensor:
    """Patches [L, 1*2*2*C] as a latent [C, F, Y, X]."""
    f, h, w = GRID
    return y.view(f, h, w, 2, 2, CONFIG.out_dim).permute(5, 0, 1, 3, 2, 4).reshape(CONFIG.out_dim, f, 2 * h, 2 * w)

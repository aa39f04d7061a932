"""One forward for every family: a joint flow over the streams of a request, on any Wan-shaped module tree.

The modules stay where their host put them (ComfyUI's `WanModel` or our `wan.WanModel`); only the data flow is ours.
Full self-attention over the packed sequence is the one thing that crosses between streams (`specs/streams.md` B1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapters import ActiveAdapters, BlockAdapters
from .attention import Attention, sdpa
from .channels import join_channels, split_channels
from .layout import Layout
from .rope import rotate


class Host:
    """What surrounds the forward: its attention, and places where a host's own patches may act.

    Every method gets and returns packed tensors [N, T, D] (in the last block only the tail of T that leaves).
    """

    def __init__(self, attention: Attention = sdpa):
        self.attention = attention

    def start_block(self, index: int) -> None:
        """Called before each block."""

    def run_block(self, block: Callable[..., Tensor], *args) -> Tensor:
        """`block(*args)`, a pure function of its arguments, which a training may run under a checkpoint."""
        return block(*args)

    def after_self_attention(self, x: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """The attention's result before its output projection; q and k are [N, T, H, d], normalised and rotated."""
        return x

    def after_cross_attention(self, x: Tensor) -> Tensor:
        """The residual stream after the text was added."""
        return x

    def after_block(self, x: Tensor, index: int) -> Tensor:
        """The residual stream after a block."""
        return x


class Modulation:
    """AdaLN rows of every token, kept once per distinct time.

    `index` [N, K] says which distinct time each of the K equal pieces of the packed sequence has; `values` [U, 6, D].
    """

    def __init__(self, model: nn.Module, times: Tensor, dtype: torch.dtype):
        """times [N, S, P] in 0..1000: P = 1 a stream, f a latent frame or L a token."""
        # Times are few (target, condition) even where there is one per token, and the projection is 6D wide.
        distinct, index = times.flatten(1).unique(return_inverse=True)
        self.embedding = model.time_embedding(sinusoid(distinct, model.freq_dim).to(dtype))  # [U, D]
        self.values = model.time_projection(self.embedding).unflatten(-1, (6, -1))
        self.index = index

    def rows(self, table: Tensor, j: int, tokens: int, keep: int) -> Tensor:
        """Row j of a block's table plus the time's, for the last `keep` of `tokens` tokens: [N, K', 1, D]."""
        return self._gather(table[0, j].to(self.values) + self.values[:, j], tokens, keep)

    def head_rows(self, table: Tensor, j: int, tokens: int, keep: int) -> Tensor:
        """The same for the head's table, which adds to the embedding itself."""
        return self._gather(table[0, j].to(self.embedding) + self.embedding, tokens, keep)

    def _gather(self, rows: Tensor, tokens: int, keep: int) -> Tensor:
        pieces = self.index.shape[1]
        index = self.index[:, pieces - keep * pieces // tokens:]
        return rows[index].unsqueeze(2)


def sinusoid(times: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding [U] -> [U, dim] of times in 0..1000, cosines first, frequencies 10000^(-2j/dim)."""
    wide = torch.float32 if times.device.type == "mps" else torch.float64
    frequency = 10000.0 ** (-torch.arange(dim // 2, dtype=wide, device=times.device) / (dim // 2))
    angle = torch.outer(times.to(wide), frequency)
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


class TextRows:
    """Which text every packed segment reads: `index[n][s]` is a row of the context batch."""

    def __init__(self, index: Sequence[Sequence[int]], layout: Layout):
        self.requests = [[row[i] for i in layout.order] for row in index]
        self.length = layout.length

    def attend(self, attention: Attention, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Cross-attention of q [N, T', D] to k, v [R, W, D], each text row read once for all that share it."""
        segments = len(self.requests[0])
        skipped = segments - q.shape[1] // self.length
        columns = [tuple(row[s] for row in self.requests) for s in range(skipped, segments)]
        out, start = [], 0
        while start < len(columns):  # runs of neighbouring segments that read the same text
            stop = start + 1
            while stop < len(columns) and columns[stop] == columns[start]:
                stop += 1
            part = q[:, start * self.length:stop * self.length]
            out.append(_attend_rows(attention, part, k, v, columns[start], heads))
            start = stop
        return out[0] if len(out) == 1 else torch.cat(out, dim=1)


def _attend_rows(attention: Attention, q: Tensor, k: Tensor, v: Tensor, rows: tuple[int, ...], heads: int) -> Tensor:
    """Queries of request n attend to text row rows[n]. Requests that share a row are folded into one long query."""
    used = sorted(set(rows))
    if list(rows) != [row for row in used for _ in range(len(rows) // len(used))]:
        used = list(rows)  # uneven sharing: give every request its own copy
    if used != list(range(k.shape[0])):
        k, v = k[used], v[used]
    return attention(q.reshape(len(used), -1, q.shape[-1]), k, v, heads).reshape(q.shape)


def joint_forward(model: nn.Module, latents: Tensor, times: Tensor, context: Tensor, *, layout: Layout,
                  context_index: Sequence[Sequence[int]], adapters: ActiveAdapters | None = None,
                  host: Host | None = None) -> Tensor:
    """The velocity (noise minus clean) of every stream that leaves the network.

    latents [N, M, C, F, Y, X], normalised, conditions already at their own small sigma; Y and X multiples of the patch.
    times [N, M, P], 0..1000, P = 1, f (a time per latent frame) or L (a time per token, row-major).
    context [R, W, E]: the distinct texts; `context_index[n][m]` is the row that stream m of request n reads.
    Returns [N, len(layout.outputs), C, F, Y, X] in the order of `layout.outputs`. Requests never see each other.
    """
    host = host or Host()
    order = list(layout.order)
    # [N, S, C, F, Y, X], or [N, 1, M*(C+1), F, Y, X] where the streams are joined along their channels
    x = join_channels(latents, layout.joined) if layout.joined else latents[:, order]
    x, grid = _embed(model, x)  # [N, T, D]
    modulation = Modulation(model, times[:, order], x.dtype)
    text = model.text_embedding(context)  # [R, W, D]
    text_rows = TextRows(context_index, layout)
    for i, block in enumerate(model.blocks):
        host.start_block(i)
        # What no output depends on leaves the last block once its keys and values are made.
        first = layout.out_start if i == len(model.blocks) - 1 else 0
        weights = adapters.blocks[i] if adapters is not None else None
        x = host.run_block(_block, block, x, modulation, text, text_rows, layout, adapters, weights, host,
                           model.num_heads, first)
        x = host.after_block(x, i)
    x = _head(model, x, modulation, layout.tokens, grid)
    return split_channels(x, len(layout.joined), layout.outputs) if layout.joined else x


def _embed(model: nn.Module, latents: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """Patch embedding: [N, S, C, F, Y, X] -> [N, S*L, D] and the token grid (f, h, w)."""
    weight = model.patch_embedding.weight.dtype
    # ComfyUI keeps this convolution in float32 whatever the model's dtype.
    x = model.patch_embedding(latents.flatten(0, 1).to(weight)).to(latents.dtype)
    grid = tuple(x.shape[2:])
    return x.flatten(2).transpose(1, 2).reshape(latents.shape[0], -1, x.shape[1]), grid


def _block(block: nn.Module, x: Tensor, modulation: Modulation, text: Tensor, text_rows: TextRows, layout: Layout,
           adapters: ActiveAdapters | None, weights: BlockAdapters | None, host: Host, heads: int,
           first: int) -> Tensor:
    """One Wan block on x [N, T, D]; returns [N, T - first, D]."""
    tokens, keep = layout.tokens, layout.tokens - first

    def row(j: int, count: int) -> Tensor:
        return modulation.rows(block.modulation, j, tokens, count)

    y = _modulate(block.norm1(x), row(0, tokens), row(1, tokens))
    q, k, v = block.self_attn.q(y[:, first:]), block.self_attn.k(y), block.self_attn.v(y)
    if adapters is not None:
        adapters.add_qkv(weights, y, q, k, v, first)
    del y  # as large as x: free it before the attention needs room
    q = rotate(block.self_attn.norm_q(q).unflatten(-1, (heads, -1)), layout.rope[:, first:])
    k = rotate(block.self_attn.norm_k(k).unflatten(-1, (heads, -1)), layout.rope)
    a = _attend_joint(host.attention, q.flatten(2), k.flatten(2), v, heads, layout.apart)
    del v
    a = host.after_self_attention(a, q, k)
    del q, k
    y = block.self_attn.o(a)
    if adapters is not None:
        adapters.add_o(weights, a, y, first)
    x = _add_gated(x[:, first:], y, row(2, keep))

    # The text is projected here, once per distinct prompt; no stream or request repeats it.
    cross = block.cross_attn
    q = cross.norm_q(cross.q(block.norm3(x)))
    x = x + cross.o(text_rows.attend(host.attention, q, cross.norm_k(cross.k(text)), cross.v(text), heads))
    x = host.after_cross_attention(x)

    y = _modulate(block.norm2(x), row(3, keep), row(4, keep))
    hidden = block.ffn[0](y)
    if adapters is not None:
        adapters.add_ffn_in(weights, y, hidden, first)
    hidden = F.gelu(hidden, approximate="tanh")
    y = block.ffn[2](hidden)
    if adapters is not None:
        adapters.add_ffn_out(weights, hidden, y, first)
    return _add_gated(x, y, row(5, keep))


def _attend_joint(attention: Attention, q: Tensor, k: Tensor, v: Tensor, heads: int, apart: int) -> Tensor:
    """Every query sees all keys, but the first `apart` tokens see one another only: q [N, T', D], k and v [N, T, D]."""
    if apart == 0 or q.shape[1] < k.shape[1]:  # in the last block those have left
        return attention(q, k, v, heads)
    return torch.cat((attention(q[:, :apart], k[:, :apart], v[:, :apart], heads),
                      attention(q[:, apart:], k, v, heads)), dim=1)


def _head(model: nn.Module, x: Tensor, modulation: Modulation, tokens: int, grid: tuple[int, int, int]) -> Tensor:
    """Output projection and unpatchify: x [N, S'*L, D] -> [N, S', C, F, Y, X]."""
    head, keep = model.head, x.shape[1]
    shift, scale = (modulation.head_rows(head.modulation, j, tokens, keep) for j in range(2))
    y = head.head(_modulate(head.norm(x), shift, scale))
    y = y.unflatten(-1, (*model.patch_size, -1)).unflatten(1, (-1, *grid))  # [N, S', f, h, w, pt, ph, pw, C]
    y = y.permute(0, 1, 8, 2, 5, 3, 6, 4, 7)  # [N, S', C, f, pt, h, ph, w, pw]
    return y.flatten(7, 8).flatten(5, 6).flatten(3, 4)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift with a row for each of K equal pieces: x [N, T, D], rows [N, K, 1, D]."""
    return torch.addcmul(shift, x.unflatten(1, (shift.shape[1], -1)), 1 + scale).flatten(1, 2)


def _add_gated(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + y * gate, rows as in `_modulate`."""
    pieces = (gate.shape[1], -1)
    return torch.addcmul(x.unflatten(1, pieces), y.unflatten(1, pieces), gate).flatten(1, 2)

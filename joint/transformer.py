"""One forward for every family: a joint flow over the streams of a request, on any Wan-shaped module tree.

The modules stay where their host put them (ComfyUI's `WanModel` or our `wan.WanModel`); only the data flow is ours.
Full self-attention over the packed sequence is the one thing that crosses between streams (`specs/streams.md` B1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapters import ActiveAdapters, BlockAdapters
from .attention import Attention, sdpa
from .channels import join_channels, split_channels
from .experts import Experts, embed_patches
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


# Neighbouring streams cut into equal pieces, each of which has one time: how many tokens they have together, and for
# their K pieces [N, K], which time, or [N, K, 1, D], the row of a modulation table.
Pieces = list[tuple[int, Tensor]]
Rows = list[tuple[int, Tensor]]


class Modulation:
    """AdaLN rows of every token, kept once per distinct time of streams that share their time network and vector."""

    def __init__(self, model: nn.Module, experts: Experts | None, times: Sequence[Tensor], layout: Layout,
                 dtype: torch.dtype):
        """times: one for each stream in packing order, [N, P] in 0..1000: P = 1 a stream, f a latent frame or L a
        token."""
        self.lengths = layout.lengths
        self.index: list[Tensor] = list(times)  # [N, P]: which of `values` a piece has
        embeddings, values, known = [], [], 0
        alike: dict[tuple, list[int]] = {}
        for place, stream in enumerate(layout.streams):
            alike.setdefault((stream.own.time, stream.own.modulation), []).append(place)
        for (time, vector), places in alike.items():
            network = experts.time[time] if time else model
            # Times are few (target, condition) even where there is one per token, and the projection is 6D wide.
            distinct, which = torch.cat([times[p].flatten() for p in places]).unique(return_inverse=True)
            embedding = network.time_embedding(sinusoid(distinct, model.freq_dim).to(dtype))  # [U, D]
            told = embedding + experts.modulation[vector].to(embedding) if vector else embedding
            embeddings.append(embedding)
            values.append(network.time_projection(told).unflatten(-1, (6, -1)))
            for place, part in zip(places, which.split([times[p].numel() for p in places])):
                self.index[place] = known + part.view_as(times[place])
            known += len(distinct)
        self.embedding, self.values = torch.cat(embeddings), torch.cat(values)  # [U, D], [U, 6, D]

    def pieces(self, places: Sequence[int]) -> Pieces:
        """The streams at these places in packing order. They are cut once, outside the blocks: torch.compile would
        have to know for certain which they are."""
        runs = groupby(places, lambda place: self.lengths[place] // self.index[place].shape[1])
        return [(sum(self.lengths[place] for place in run), torch.cat([self.index[place] for place in run], dim=1))
                for run in (list(run) for _, run in runs)]

    def rows(self, table: Tensor, j: int, pieces: Pieces) -> Rows:
        """Row j of a block's table plus the time's."""
        return _rows(table[0, j].to(self.values) + self.values[:, j], pieces)

    def head_rows(self, table: Tensor, j: int, pieces: Pieces) -> Rows:
        """The same for a head's table, which adds to the embedding itself."""
        return _rows(table[0, j].to(self.embedding) + self.embedding, pieces)


def _rows(rows: Tensor, pieces: Pieces) -> Rows:
    return [(tokens, rows[index].unsqueeze(2)) for tokens, index in pieces]


def sinusoid(times: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding [U] -> [U, dim] of times in 0..1000, cosines first, frequencies 10000^(-2j/dim)."""
    wide = torch.float32 if times.device.type == "mps" else torch.float64
    frequency = 10000.0 ** (-torch.arange(dim // 2, dtype=wide, device=times.device) / (dim // 2))
    angle = torch.outer(times.to(wide), frequency)
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


class TextRun(NamedTuple):
    """Neighbouring streams that read the same text: how many tokens they have together, and the row of text of every
    request, [N]. Their queries are folded into `folded` long ones, one for each of the rows `used` (None for all)."""

    tokens: int
    rows: Tensor
    folded: int
    used: Tensor | None


def text_runs(index: Sequence[Sequence[int]], layout: Layout, texts: int, first: int, device) -> list[TextRun]:
    """Which text of `texts` the streams read after the first `first` tokens: `index[n][m]` is that of stream m of
    request n. Requests that share a row in equal numbers are folded. As `Modulation.pieces`, outside the blocks."""
    columns = [[request[i] for request in index] for i in layout.order]
    out = []
    for run in layout.runs(lambda place: columns[place], first):
        rows = columns[run.places[0]]
        used = sorted(set(rows))
        if rows != [row for row in used for _ in range(len(rows) // len(used))]:
            used = rows  # uneven sharing: give every request its own copy
        out.append(TextRun(run.stop - run.start, torch.tensor(rows, device=device), len(used),
                           None if used == list(range(texts)) else torch.tensor(used, device=device)))
    return out


def _attend_text(attention: Attention, q: Tensor, k: Tensor, v: Tensor, heads: int, runs: list[TextRun]) -> Tensor:
    """Cross-attention of q [N, T, D] to k, v [R, W, D], each text row read once for all that share it."""
    out = []
    for part, run in zip(q.split([run.tokens for run in runs], dim=1), runs):
        keys, values = (k, v) if run.used is None else (k[run.used], v[run.used])
        folded = part.reshape(run.folded, -1, part.shape[-1])
        out.append(attention(folded, keys, values, heads).reshape(part.shape))
    return _join(out)


def _add_text(x: Tensor, values: Tensor, runs: list[TextRun]) -> Tensor:
    """x [N, T, D] plus, for every stream, the one value of its text: values [R, 1, D]."""
    return _join([part + values[run.rows] for part, run in zip(x.split([run.tokens for run in runs], dim=1), runs)])


def joint_forward(model: nn.Module, states: Sequence[Tensor | None], times: Sequence[Tensor | None], context: Tensor,
                  *, layout: Layout, context_index: Sequence[Sequence[int]], adapters: ActiveAdapters | None = None,
                  experts: Experts | None = None, host: Host | None = None,
                  wanted: Tensor | None = None) -> list[Tensor]:
    """What every stream that leaves the network becomes: the velocity (noise minus clean) of a picture, the logits of a
    text.

    `states`, in row order (anything where a stream is ABSENT): latents [N, C, F, Y, X] as the family wants them,
    conditions already at their own small sigma, Y and X multiples of the patch; or token ids [N, S].
    `times`: [N, P] each, 0..1000, P = 1, f (a time per latent frame) or L (a time per token, row-major).
    context [R, W, E]: the distinct texts; `context_index[n][m]` is the row that stream m of request n reads. Of a text
    of one position (W = 1) every query takes that position's value, whatever it asks, so none is asked.
    `wanted` [N, S] bool: the tokens of a text whose logits are needed, None for all.
    Returns, in the order of `layout.outputs`, velocities [N, C, F, Y, X] and logits [N, S, V], or [K, V] of the K
    wanted tokens. Requests never see each other.
    """
    host = host or Host()
    x = _embed(model, experts, states, layout)  # [N, T, D]
    modulation = Modulation(model, experts, [times[i] for i in layout.order], layout, x.dtype)
    text = model.text_embedding(context)  # [R, W, D]
    every, texts = modulation.pieces(_kept(layout, 0)), text_runs(context_index, layout, len(text), 0, text.device)
    kept = every
    for i, block in enumerate(model.blocks):
        host.start_block(i)
        # What no output depends on leaves the last block once its keys and values are made.
        first = layout.out_start if i == len(model.blocks) - 1 else 0
        if first:
            kept = modulation.pieces(_kept(layout, first))
            texts = text_runs(context_index, layout, len(text), first, text.device)
        weights = adapters.blocks[i] if adapters is not None else None
        x = host.run_block(_block, block, x, modulation, every, kept, text, texts, layout, adapters, weights,
                           _networks(block, experts, layout, i, first), host, model.num_heads, first)
        x = host.after_block(x, i)
    return _heads(model, experts, x, modulation, layout, wanted)


def _embed(model: nn.Module, experts: Experts | None, states: Sequence[Tensor | None], layout: Layout) -> Tensor:
    """The packed sequence [N, T, D] before the first block, in the dtype of the latents."""
    if layout.joined:
        states = {layout.order[0]: join_channels(torch.stack(list(states), 1), layout.joined)}
    dtype = next(states[i].dtype for i, stream in zip(layout.order, layout.streams) if stream.tokens is None)
    parts = []
    for run in layout.runs(lambda place: (layout.streams[place].own.embedding, layout.streams[place].own.identity)):
        own = layout.streams[run.places[0]].own
        state = torch.stack([states[layout.order[place]] for place in run.places], dim=1)  # [N, S, ...]
        flat = state.flatten(0, 1)
        # [N*S, L, D]
        x = experts.embedding[own.embedding](flat) if own.embedding else embed_patches(model.patch_embedding, flat)
        x = x.to(dtype).reshape(state.shape[0], -1, x.shape[-1])  # [N*S, L, D] -> [N, S*L, D]
        parts.append(x + experts.identity[own.identity].to(x) if own.identity else x)
    return _join(parts)


def _networks(block: nn.Module, experts: Experts | None, layout: Layout, index: int,
              first: int) -> list[tuple[int, nn.Module]]:
    """The feed-forward network of every run of streams that share one, and its tokens."""
    runs = layout.runs(lambda place: layout.streams[place].own.ffn, first)
    names = [layout.streams[run.places[0]].own.ffn for run in runs]
    return [(run.stop - run.start, experts.ffn[name][index] if name else block.ffn) for run, name in zip(runs, names)]


def _block(block: nn.Module, x: Tensor, modulation: Modulation, every: Pieces, kept: Pieces, text: Tensor,
           texts: list[TextRun], layout: Layout, adapters: ActiveAdapters | None, weights: BlockAdapters | None,
           networks: list[tuple[int, nn.Module]], host: Host, heads: int, first: int) -> Tensor:
    """One Wan block on x [N, T, D]; returns [N, T - first, D]. `every` piece of x, and those `kept`."""

    def row(j: int, pieces: Pieces) -> Rows:
        return modulation.rows(block.modulation, j, pieces)

    y = _modulate(block.norm1(x), row(0, every), row(1, every))
    q, k, v = block.self_attn.q(y[:, first:]), block.self_attn.k(y), block.self_attn.v(y)
    if adapters is not None:
        adapters.add_qkv(weights, y, q, k, v, first)
    del y  # as large as x: free it before the attention needs room
    halved = [(start - first, stop - first) for start, stop in layout.halved if start >= first]
    q = rotate(block.self_attn.norm_q(q).unflatten(-1, (heads, -1)), layout.rope[:, first:], halved)
    k = rotate(block.self_attn.norm_k(k).unflatten(-1, (heads, -1)), layout.rope, layout.halved)
    a = _attend_joint(host.attention, q.flatten(2), k.flatten(2), v, heads, layout.apart)
    del v
    a = host.after_self_attention(a, q, k)
    del q, k
    y = block.self_attn.o(a)
    if adapters is not None:
        adapters.add_o(weights, a, y, first)
    x = _add_gated(x[:, first:], y, row(2, kept))

    # The text is projected here, once per distinct prompt; no stream or request repeats it.
    cross = block.cross_attn
    if text.shape[1] == 1:
        x = _add_text(x, cross.o(cross.v(text)), texts)
    else:
        q = cross.norm_q(cross.q(block.norm3(x)))
        k, v = cross.norm_k(cross.k(text)), cross.v(text)
        x = x + cross.o(_attend_text(host.attention, q, k, v, heads, texts))
    x = host.after_cross_attention(x)

    y = _modulate(block.norm2(x), row(3, kept), row(4, kept))
    hidden = _through(networks, 0, y)
    if adapters is not None:
        adapters.add_ffn_in(weights, y, hidden, first)
    hidden = F.gelu(hidden, approximate="tanh")
    y = _through(networks, 2, hidden)
    if adapters is not None:
        adapters.add_ffn_out(weights, hidden, y, first)
    return _add_gated(x, y, row(5, kept))


def _kept(layout: Layout, first: int) -> list[int]:
    """The places of the streams that are left once the first `first` tokens are gone."""
    return [place for place, start in enumerate(accumulate(layout.lengths[:-1], initial=0)) if start >= first]


def _attend_joint(attention: Attention, q: Tensor, k: Tensor, v: Tensor, heads: int, apart: int) -> Tensor:
    """Every query sees all keys, but the first `apart` tokens see one another only: q [N, T', D], k and v [N, T, D]."""
    if apart == 0 or q.shape[1] < k.shape[1]:  # in the last block those have left
        return attention(q, k, v, heads)
    return torch.cat((attention(q[:, :apart], k[:, :apart], v[:, :apart], heads),
                      attention(q[:, apart:], k, v, heads)), dim=1)


def _through(networks: list[tuple[int, nn.Module]], layer: int, x: Tensor) -> Tensor:
    """x [N, T, D] through one layer of the network of each run of tokens."""
    parts = x.split([tokens for tokens, _ in networks], dim=1)
    return _join([network[layer](part) for part, (_, network) in zip(parts, networks)])


def _heads(model: nn.Module, experts: Experts | None, x: Tensor, modulation: Modulation, layout: Layout,
           wanted: Tensor | None) -> list[Tensor]:
    """What leaves the network of x [N, T - out_start, D], a tensor for each of `layout.outputs`."""
    out = []
    for run in layout.runs(lambda place: layout.streams[place].own.head, layout.out_start):
        own = layout.streams[run.places[0]].own
        head = experts.head[own.head] if own.head else model.head
        shift, scale = (modulation.head_rows(head.modulation, j, modulation.pieces(run.places)) for j in range(2))
        y = _modulate(head.norm(x[:, run.start:run.stop]), shift, scale)
        if layout.streams[run.places[0]].tokens:
            y = y.unflatten(1, (len(run.places), -1))  # [N, S', S, D]
            out += [head.head(part if wanted is None else part[wanted]) for part in y.unbind(1)]
        else:
            out += _unpatchify(head.head(y), model.patch_size, layout.grid).unbind(1)
    return list(split_channels(out[0], len(layout.joined), layout.outputs)) if layout.joined else out


def _unpatchify(y: Tensor, patch_size: tuple[int, int, int], grid: tuple[int, int, int]) -> Tensor:
    """Patches [N, S*L, pt*ph*pw*C] as latents [N, S, C, F, Y, X]."""
    y = y.unflatten(-1, (*patch_size, -1)).unflatten(1, (-1, *grid))  # [N, S, f, h, w, pt, ph, pw, C]
    y = y.permute(0, 1, 8, 2, 5, 3, 6, 4, 7)  # [N, S, C, f, pt, h, ph, w, pw]
    return y.flatten(7, 8).flatten(5, 6).flatten(3, 4)


def _modulate(x: Tensor, shift: Rows, scale: Rows) -> Tensor:
    """x * (1 + scale) + shift: x [N, T, D]."""
    return _by_pieces(lambda x, shift, scale: torch.addcmul(shift, x, 1 + scale), (x,), (shift, scale))


def _add_gated(x: Tensor, y: Tensor, gate: Rows) -> Tensor:
    """x + y * gate."""
    return _by_pieces(torch.addcmul, (x, y), (gate,))


def _by_pieces(function: Callable[..., Tensor], tensors: Sequence[Tensor], tables: Sequence[Rows]) -> Tensor:
    """`function` of tensors [N, T, D] and the rows of their tokens, elementwise."""
    sizes = [tokens for tokens, _ in tables[0]]
    out = []
    for parts, rows in zip(zip(*(x.split(sizes, dim=1) for x in tensors)), zip(*tables)):
        rows = [row for _, row in rows]
        pieces = (rows[0].shape[1], -1)
        out.append(function(*(part.unflatten(1, pieces) for part in parts), *rows).flatten(1, 2))
    return _join(out)


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Parts of a sequence [N, T, D] as one; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)

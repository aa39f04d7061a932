"""The joint forward against slow, obvious versions of itself, in float64 on toy models."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from comfyui_strata.joint.adapters import AdapterSettings, Gate
from comfyui_strata.joint.families import ALPHA, INTRINSIC, tasks, vary
from comfyui_strata.joint.layout import make_layout
from comfyui_strata.joint.rope import GridOptions, axis_sizes, grid_rope, rotate
from comfyui_strata.joint.streams import Role
from comfyui_strata.joint.transformer import Host
from comfyui_strata.joint.variants import Variant
from comfyui_strata.tests.toys import (
    CONFIG,
    GRID,
    A,
    C,
    T,
    forward,
    toy_bank,
    toy_context,
    toy_latents,
    toy_model,
    written,
)

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def plain_forward(model, bank, settings, latents, times, context, roles):
    """The formula of specs/streams.md B1, one stream and one token range at a time: row -> velocity."""
    heads, streams = CONFIG.num_heads, len(roles)
    rope = grid_rope(GRID, CONFIG.dim // heads).double()
    x = [model.patch_embedding(latents[:, s]).flatten(2).transpose(1, 2) for s in range(streams)]
    half = CONFIG.freq_dim // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = times[0].double() * frequencies  # [M, freq/2]
    e = model.time_embedding(torch.cat((angle.cos(), angle.sin()), dim=1))
    text = model.text_embedding(context)
    active = settings.active(bank.family, roles)

    own_ffn = bank.family.variant.ffn == "per_stream"
    closed = bank.family.variant.condition_attention == "conditions"
    stacked = [bank.rows.index(s) % len(bank.blocks[0].o_up) if s in bank.rows else None for s in range(streams)]

    def feed_forward(y, s, down, up):
        if not own_ffn:
            return settings.ffn_strength * lora(y, down, up)
        if not active[s]:
            return 0
        return settings.ffn_strength * settings.strengths[s] * lora(y, down[stacked[s]], up[stacked[s]])

    def seen(s, parts):
        """Of keys or values of all streams, those that stream s attends to."""
        return torch.cat([part for part, role in zip(parts, roles)
                          if not (closed and roles[s] is Role.CONDITION) or role is Role.CONDITION], 1)

    def lora(y, down, up):
        return y @ down.T @ up.T

    def attend(q, k, v):
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        weight = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return (weight @ v).transpose(1, 2).flatten(2)

    def turned(y):
        return rotate(y.unflatten(-1, (heads, -1)), rope).flatten(2)

    for block, weights in zip(model.blocks, bank.blocks):
        rows = model.time_projection(e).unflatten(-1, (6, -1)) + block.modulation
        q, k, v = [], [], []
        for s in range(streams):
            y = block.norm1(x[s]) * (1 + rows[s, 1]) + rows[s, 0]
            parts = [linear(y) for linear in (block.self_attn.q, block.self_attn.k, block.self_attn.v)]
            if active[s]:
                i, strength = stacked[s], settings.strengths[s]
                for j, down in enumerate(weights.qkv_down[i].chunk(3)):
                    parts[j] = parts[j] + strength * lora(y, down, weights.qkv_up[i, j])
            q.append(turned(block.self_attn.norm_q(parts[0])))
            k.append(turned(block.self_attn.norm_k(parts[1])))
            v.append(parts[2])
        for s in range(streams):
            a = attend(q[s], seen(s, k), seen(s, v))
            y = block.self_attn.o(a)
            if active[s]:
                i = stacked[s]
                y = y + settings.strengths[s] * lora(a, weights.o_down[i], weights.o_up[i])
            x[s] = x[s] + rows[s, 2] * y
            cross = block.cross_attn
            x[s] = x[s] + cross.o(attend(cross.norm_q(cross.q(block.norm3(x[s]))),
                                         cross.norm_k(cross.k(text)), cross.v(text)))
            y = block.norm2(x[s]) * (1 + rows[s, 4]) + rows[s, 3]
            h = block.ffn[0](y) + feed_forward(y, s, weights.ffn_in_down, weights.ffn_in_up)
            h = F.gelu(h, approximate="tanh")
            y = block.ffn[2](h) + feed_forward(h, s, weights.ffn_out_down, weights.ffn_out_up)
            x[s] = x[s] + rows[s, 5] * y
    out = {}
    for s in range(streams):
        shift, scale = (model.head.modulation[0] + e[s]).unbind(0)
        y = model.head.head(model.head.norm(x[s]) * (1 + scale) + shift)
        f, h, w = GRID
        y = y.view(-1, f, h, w, 1, 2, 2, CONFIG.out_dim).permute(0, 7, 1, 4, 2, 5, 3, 6)
        out[s] = y.reshape(-1, CONFIG.out_dim, f, 2 * h, 2 * w)
    return out


@pytest.mark.parametrize("family", [INTRINSIC, ALPHA], ids=lambda f: f.name)
@pytest.mark.parametrize("gates", [(Gate.TARGETS,) * 4, (Gate.ALWAYS, Gate.OFF, Gate.TARGETS, Gate.ALWAYS)])
def test_every_task_equals_the_plain_formula(family, gates):
    model, bank, latents = toy_model(), toy_bank(family), toy_latents()
    settings = AdapterSettings(strengths=(1.0, 0.5, -2.0, 1.5), gates=gates, ffn_strength=0.7)
    for task in tasks(family):
        times = torch.tensor([[[700.0] if role is T else [4.98] for role in task.roles]])
        ours = forward(model, bank, latents, task.roles, times=times, settings=settings, family=family,
                       all_outputs=True)
        plain = plain_forward(model, bank, settings, latents, times, toy_context(), task.roles)
        for row, velocity in plain.items():
            torch.testing.assert_close(ours[row], velocity, rtol=1e-6, atol=1e-6)  # RoPE is float32 by design


@pytest.mark.parametrize(("published", "variant"), [(family, variant) for family in (INTRINSIC, ALPHA) for variant in (
    Variant(gating="always"), Variant(adapters="shared"), Variant(ffn="per_stream"),
    Variant(condition_attention="conditions"), Variant("always", "shared", "attention", "per_stream", "conditions"),
)] + [(ALPHA, Variant(plate="own"))], ids=written)
def test_every_variant_equals_the_plain_formula(published, variant):
    family = vary(published, variant)
    model, bank, latents = toy_model(), toy_bank(family), toy_latents()
    settings = replace(AdapterSettings.published(family), strengths=(1.0, 0.5, -2.0, 1.5), ffn_strength=0.7)
    for task in tasks(family):
        times = torch.tensor([[[700.0] if role is T else [4.98] for role in task.roles]])
        plain = plain_forward(model, bank, settings, latents, times, toy_context(), task.roles)
        for everything in (False, True):
            ours = forward(model, bank, latents, task.roles, times=times, settings=settings, family=family,
                           all_outputs=everything)
            for row, velocity in ours.items():
                torch.testing.assert_close(velocity, plain[row], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("roles", [(C, T, T, T), (T, C, C, C), (C, T, C, T), (T, T, T, T)])
def test_leaving_the_conditions_in_the_last_block_changes_no_target(roles):
    model, bank, latents = toy_model(), toy_bank(), toy_latents()
    skipped = forward(model, bank, latents, roles)
    whole = forward(model, bank, latents, roles, all_outputs=True)
    assert set(skipped) == {i for i, role in enumerate(roles) if role is T}
    for row, velocity in skipped.items():
        torch.testing.assert_close(velocity, whole[row], **EXACT)


def test_an_absent_stream_is_as_if_it_did_not_exist():
    model, bank, latents = toy_model(), toy_bank(), toy_latents()
    other = latents.clone()
    other[:, 2] = 9.0
    roles = (C, T, A, T)
    for row, velocity in forward(model, bank, latents, roles).items():
        assert torch.equal(velocity, forward(model, bank, other, roles)[row])
    three = replace(INTRINSIC, streams=tuple(s for s in INTRINSIC.streams if s.name != "irradiance"))
    small = toy_bank(three)
    big = toy_bank()
    for a, b in zip(small.parameters(), big.parameters()):
        a.data.copy_(b[[0, 1, 3]] if len(a) == 3 and len(b) == 4 else b)
    expected = forward(model, small, latents[:, [0, 1, 3]], (C, T, T), family=three)
    got = forward(model, big, latents, roles)
    torch.testing.assert_close(got[1], expected[1], **EXACT)
    torch.testing.assert_close(got[3], expected[2], **EXACT)


def test_streams_do_see_each_other():
    model, bank, latents = toy_model(), toy_bank(), toy_latents()
    other = latents.clone()
    other[:, 0] += 1
    a, b = (forward(model, bank, x, (C, T, T, T))[1] for x in (latents, other))
    assert (a - b).abs().max() > 1e-3


def test_requests_never_see_each_other():
    model, bank = toy_model(), toy_bank()
    latents, context = toy_latents(3), toy_context(3)
    index = [[n] * 4 for n in range(3)]
    together = forward(model, bank, latents, (C, T, T, T), context=context, index=index)
    for n in range(3):
        alone = forward(model, bank, latents[n:n + 1], (C, T, T, T), context=context[n:n + 1])
        for row, velocity in alone.items():
            torch.testing.assert_close(together[row][n:n + 1], velocity, **EXACT)


@pytest.mark.parametrize("index", [
    [[0, 0, 0, 0], [1, 1, 1, 1]], [[0, 0, 0, 0], [0, 0, 0, 0]], [[0, 1, 2, 3], [0, 1, 2, 3]],
    [[0, 1, 1, 2], [3, 3, 0, 0]], [[1, 1, 1, 1], [0, 0, 0, 0]],
])
def test_every_segment_reads_its_own_text(index):
    model, bank, latents, context = toy_model(), toy_bank(), toy_latents(2), toy_context(4)
    used = context[:1 + max(max(row) for row in index)]
    got = forward(model, bank, latents, (C, T, T, T), context=used, index=index)
    repeated = torch.cat([used[row] for row in index])  # a copy of the text for every segment, nothing shared
    rows = [[4 * n + m for m in range(4)] for n in range(2)]
    expected = forward(model, bank, latents, (C, T, T, T), context=repeated, index=rows)
    for row, velocity in got.items():
        torch.testing.assert_close(velocity, expected[row], **EXACT)


def test_text_is_projected_once_per_distinct_prompt():
    model, bank, latents = toy_model(), toy_bank(), toy_latents(4)
    sizes = []
    keys = model.blocks[0].cross_attn.k
    hook = keys.register_forward_hook(lambda m, args, out: sizes.append(tuple(args[0].shape[:2])))
    forward(model, bank, latents, (C, T, T, T), context=toy_context(2), index=[[0] * 4] * 2 + [[1] * 4] * 2)
    hook.remove()
    assert sizes == [(2, 5)]


def test_keys_and_values_are_never_repeated_and_conditions_leave_early():
    model, bank, latents = toy_model(), toy_bank(), toy_latents()
    calls = []

    def spy(q, k, v, heads):
        calls.append((q.shape[1], k.shape[1], v.shape[1]))
        return Host().attention(q, k, v, heads)

    forward(model, bank, latents, (C, C, T, C), host=Host(spy))
    length = GRID[0] * GRID[1] * GRID[2]
    own = [call for call in calls if call[1] != 5]  # 5 words of text
    assert own == [(4 * length, 4 * length, 4 * length), (length, 4 * length, 4 * length)]


def test_times_per_frame_and_per_token_equal_times_per_stream():
    model, bank, latents = toy_model(), toy_bank(), toy_latents()
    times = torch.tensor([[[4.98], [700.0], [700.0], [300.0]]])
    roles = (C, T, T, T)
    per_stream = forward(model, bank, latents, roles, times=times)
    for pieces in (GRID[0], GRID[0] * GRID[1] * GRID[2]):
        finer = forward(model, bank, latents, roles, times=times.expand(-1, -1, pieces))
        for row, velocity in per_stream.items():
            torch.testing.assert_close(finer[row], velocity, **EXACT)


def test_a_time_per_token_reaches_its_own_token():
    # With attention cut down to each token itself, a token's time can only change that token.
    model, latents = toy_model(), toy_latents()
    roles, length = (T, T, T, T), GRID[0] * GRID[1] * GRID[2]
    times = torch.full((1, 4, length), 500.0)
    changed = times.clone()
    changed[0, 2, 7] = 100.0  # frame 1, row 0, column 1
    only_self = Host(lambda q, k, v, heads: v if v.shape == q.shape else q)
    a, b = (forward(model, None, latents, roles, times=t, host=only_self) for t in (times, changed))
    difference = (a[2] - b[2]).abs().amax(dim=(0, 1))
    assert difference[1, 0:2, 2:4].min() > 0
    difference[1, 0:2, 2:4] = 0
    assert difference.max() < 1e-12 and (a[1] - b[1]).abs().max() < 1e-12


def test_gates_and_strengths():
    model, bank, latents = toy_model(), toy_bank(), toy_latents()
    published, roles = AdapterSettings.published(INTRINSIC), (C, T, T, T)
    base = forward(model, bank, latents, roles)
    always = forward(model, bank, latents, roles, settings=published.with_stream(0, 1.0, Gate.ALWAYS))
    assert (base[1] - always[1]).abs().max() > 1e-4  # the given rgb now speaks with its adapter
    off = forward(model, bank, latents, roles, settings=published.with_stream(1, 1.0, Gate.OFF))
    zero = forward(model, bank, latents, roles, settings=published.with_stream(1, 0.0, Gate.ALWAYS))
    half = forward(model, bank, latents, roles, settings=published.with_stream(1, 0.5, Gate.TARGETS))
    assert torch.equal(off[1], zero[1])
    assert (base[1] - off[1]).abs().max() > 1e-4 and (half[1] - off[1]).abs().max() > 1e-4
    silent = replace(published, strengths=(0.0,) * 4, ffn_strength=0.0)
    bare = forward(model, None, latents, roles)
    for row, velocity in forward(model, bank, latents, roles, settings=silent).items():
        torch.testing.assert_close(velocity, bare[row], **EXACT)


def test_the_alpha_plate_has_no_attention_adapter():
    settings = AdapterSettings.published(ALPHA)
    assert settings.active(ALPHA, (T,) * 4) == (False, True, True, True)
    assert settings.with_stream(0, 1.0, Gate.ALWAYS).active(ALPHA, (T,) * 4) == (False, True, True, True)


@pytest.mark.parametrize("roles", [(C, T, C, T), (T, T, T, T), (T, C, C, C), (C, A, T, C)])
@pytest.mark.parametrize("adapted", [(True, False, True, False), (False,) * 4, (True,) * 4, (False, True, False, True)])
def test_layout_puts_conditions_first_and_what_acts_together(roles, adapted):
    layout = make_layout(INTRINSIC, roles, adapted, GRID, 24)
    kinds = [roles[i] for i in layout.order]
    assert kinds == sorted(kinds, key=lambda role: role is T)
    start, stop = (edge // layout.length for edge in layout.adapted_span)
    assert layout.order[start:stop] == layout.adapted
    assert set(layout.adapted) == {i for i in layout.order if adapted[i]}
    assert {roles[i] for i in layout.outputs} == {Role.TARGET}
    assert layout.rope.shape[1] == layout.tokens


def test_a_request_without_targets_is_refused():
    with pytest.raises(ValueError, match="No layer is left to generate"):
        make_layout(INTRINSIC, (C, C, A, C), (False,) * 4, GRID, 24)


def test_rope_is_the_complex_rotation_of_wan():
    head_dim, grid = 128, (3, 4, 5)
    assert axis_sizes(128) == (44, 42, 42)
    x = torch.randn(1, 60, 2, head_dim, dtype=torch.float64)
    position = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in grid))
    angles = torch.cat([torch.outer(position[:, axis], 10000.0 ** (-torch.arange(0, size, 2).double() / size))
                        for axis, size in enumerate((44, 42, 42))], dim=1)
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    expected = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)
    torch.testing.assert_close(rotate(x, grid_rope(grid, head_dim)), expected, rtol=1e-6, atol=1e-6)


def test_rope_offsets_and_options_move_the_positions():
    plain = grid_rope((4, 4, 4), 24)
    later = grid_rope((2, 4, 4), 24, offset=(2, 0, 0))
    torch.testing.assert_close(plain[:, 32:], later)
    torch.testing.assert_close(grid_rope((2, 4, 4), 24, options=GridOptions(shift=(2.0, 0.0, 0.0))), later)
    stretched = grid_rope((3, 1, 1), 24, options=GridOptions(scale=(2.0, 1.0, 1.0)))
    torch.testing.assert_close(stretched, grid_rope((5, 1, 1), 24)[:, ::2])


def test_a_stream_may_have_its_own_offset():
    shifted = replace(INTRINSIC, streams=(*INTRINSIC.streams[:3], replace(INTRINSIC.streams[3], columns=1)))
    layout = make_layout(shifted, (C, T, T, T), (False,) * 4, GRID, 24)
    torch.testing.assert_close(layout.rope[:, -layout.length:], grid_rope(GRID, 24, (0, 0, 3)))
    torch.testing.assert_close(layout.rope[:, :layout.length], grid_rope(GRID, 24))

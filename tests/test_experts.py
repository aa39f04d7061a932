"""Streams with parts of their own and streams of text, in float64 on toy models: the joint forward against a slow,
obvious reading of the formula, and what must not change its result."""

from dataclasses import replace

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from comfyui_strata.joint.adapters import AdapterSettings
from comfyui_strata.joint.families import UNITY, VIGU, tasks, vary
from comfyui_strata.joint.layout import make_layout
from comfyui_strata.joint.rope import line_rope, rotate
from comfyui_strata.joint.sampling import row_states
from comfyui_strata.joint.streams import Family, Role, Task
from comfyui_strata.joint.transformer import Host, joint_forward
from comfyui_strata.joint.variants import Variant
from comfyui_strata.joint.wan import WanModel
from comfyui_strata.tests import toys
from comfyui_strata.tests.plain_streams import plain_streams
from comfyui_strata.tests.toys import (
    CONFIG,
    GRID,
    MIXED,
    VOCABULARY,
    A,
    C,
    T,
    forward,
    toy_bank,
    toy_context,
    toy_experts,
    toy_ids,
    toy_latents,
    toy_model,
)

EXACT = {"rtol": 1e-9, "atol": 1e-9}
LENGTH = GRID[0] * GRID[1] * GRID[2]
WORDS = 7  # tokens of a toy caption
MIXED_PER_STREAM = replace(MIXED, ffn_adapter=None, variant=Variant(gating="always", ffn="per_stream"))
MIXED_CLOSED = replace(MIXED, variant=Variant(condition_attention="conditions"))
FAMILIES = {
    "unity": UNITY,
    "unity, the paper's": vary(UNITY, Variant(condition_time="own", modulation="per_stream", together="all")),
    "vigu": VIGU,
    "mixed": MIXED,
    "mixed, ffn per stream": MIXED_PER_STREAM,
    "mixed, closed conditions": MIXED_CLOSED,
}
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def exact_norms(model: WanModel) -> WanModel:
    """The model with float64 norms of queries and keys, where Wan's go through float32."""
    for block in model.blocks:
        for attention in (block.self_attn, block.cross_attn):
            for name in ("norm_q", "norm_k"):
                old = getattr(attention, name)
                norm = torch.nn.RMSNorm(CONFIG.dim, old.eps, dtype=torch.float64).requires_grad_(False)
                norm.load_state_dict(old.state_dict())
                setattr(attention, name, norm)
    return model


class Toy:
    """A toy of a family: weights, and the inputs of some requests that read different texts at different times."""

    def __init__(self, family: Family, requests: int = 1):
        self.family, self.requests = family, requests
        self.model, self.experts = exact_norms(toy_model()), toy_experts(family)
        self.bank = toy_bank(family) if family.file_adapters else None
        n = len(family.streams)
        self.settings = replace(AdapterSettings.published(family), ffn_strength=0.7,
                                strengths=tuple((1.0, 0.5, -2.0, 1.5)[i % 4] for i in range(n)))
        self.latents = toy_latents(requests, len(family.pictures))
        self.ids = toy_ids(requests, WORDS) if family.texts else None
        self.context = toy_context(3)
        self.index = [[(i // 2 + request) % 3 for i in range(n)] for request in range(requests)]

    def times(self, finest: str = "stream") -> list[torch.Tensor]:
        """Random times [N, P] in row order: one a "stream", a "frame", a "token", or each stream another of them."""
        draw = torch.Generator().manual_seed(6)
        pieces = {"stream": (1, 1), "frame": (GRID[0], 1), "token": (LENGTH, WORDS)}
        order = list(pieces) if finest == "any" else [finest]
        return [1000 * torch.rand(self.requests, pieces[order[i % len(order)]][stream.tokens is not None],
                                  generator=draw) for i, stream in enumerate(self.family.streams)]

    def forward(self, roles: tuple[Role, ...], **changes) -> dict[int, torch.Tensor]:
        """The joint forward, with some inputs changed."""
        inputs = {"times": self.times(), "context": self.context, "index": self.index, "settings": self.settings,
                  "family": self.family, "experts": self.experts, "ids": self.ids} | changes
        latents = inputs.pop("latents", self.latents)
        return forward(inputs.pop("model", self.model), inputs.pop("bank", self.bank), latents, roles, **inputs)

    def plain(self, roles: tuple[Role, ...], times: list[torch.Tensor]) -> dict[int, torch.Tensor]:
        """The obvious reading, request by request."""
        states = row_states(Task(self.family, roles), self.latents, self.ids)
        each = [plain_streams(self.model, self.experts, self.bank, self.settings, self.family, roles,
                              [state[n] for state in states], [time[n] for time in times],
                              [self.context[row] for row in self.index[n]]) for n in range(self.requests)]
        return {row: torch.stack([out[row] for out in each]) for row in each[0]}


def every_part(family: Family) -> tuple[Role, ...]:
    """Roles in which as many streams as may be take part, the first of them given."""
    return (C, *[T] * (len(family.streams) - 1))


@families
@pytest.mark.parametrize("finest", ["stream", "frame", "token", "any"])
def test_every_task_equals_the_plain_formula(family, finest):
    toy = Toy(family, requests=2)
    times = toy.times(finest)
    for task in tasks(family)[:: 1 if finest == "stream" else 5]:
        plain = toy.plain(task.roles, times)
        targets = {row for row, role in enumerate(task.roles) if role is T}
        for everything in (False, True):
            ours = toy.forward(task.roles, times=times, all_outputs=everything)
            assert set(ours) == (set(plain) if everything else targets)
            for row, out in ours.items():
                torch.testing.assert_close(out, plain[row], **EXACT)


def test_the_plain_formula_feels_every_own_part():
    # Were a part left out of both, they would agree on nonsense.
    toy, draw = Toy(MIXED), torch.Generator().manual_seed(8)
    roles = (T,) * 5
    base = toy.plain(roles, toy.times())
    for name, parameter in toy.experts.named_parameters():
        kept = parameter.detach().clone()
        parameter.data.mul_(torch.rand(parameter.shape, generator=draw, dtype=parameter.dtype))
        changed = toy.plain(roles, toy.times())
        parameter.data.copy_(kept)
        assert max(float((changed[row] - base[row]).abs().max()) for row in base) > 1e-6, name


def permuted(toy: Toy, order: list[int]) -> Toy:
    """The same toy with the rows of its family in another order, or with some of them only."""
    streams = toy.family.streams
    other = Toy(replace(toy.family, streams=tuple(streams[i] for i in order)), toy.requests)
    assert not other.experts.load_state_dict(toy.experts.state_dict(), strict=False).missing_keys
    other.settings = replace(toy.settings, strengths=tuple(toy.settings.strengths[i] for i in order))
    pictures = [toy.family.pictures.index(streams[i].name) for i in order if streams[i].tokens is None]
    other.latents = toy.latents[:, pictures]
    other.index = [[row[i] for i in order] for row in toy.index]
    if toy.bank is not None:
        stack = [toy.bank.rows.index(i) for i in order if i in toy.bank.rows]
        for ours, theirs in zip(other.bank.parameters(), toy.bank.parameters()):
            ours.data.copy_(theirs[stack] if theirs.ndim > 2 else theirs)
    return other


@families
def test_the_order_of_the_streams_changes_nothing(family):
    toy, n = Toy(family, requests=2), len(family.streams)
    times = toy.times("any")
    for order in ([*range(n)][::-1], [*range(1, n), 0]):
        other = permuted(toy, order)
        for task in tasks(family)[::3]:
            expected = toy.forward(task.roles, times=times)
            got = other.forward(tuple(task.roles[i] for i in order), times=[times[i] for i in order])
            assert {order[row] for row in got} == set(expected)
            for row, out in got.items():
                torch.testing.assert_close(out, expected[order[row]], **EXACT)


@families
def test_an_absent_stream_is_as_if_it_did_not_exist(family):
    for gone in range(1, len(family.streams)):
        rest = [i for i in range(len(family.streams)) if i != gone]
        toy = Toy(family, requests=2)
        roles = tuple(A if i == gone else (T, C, T, T, C, T)[i] for i in range(len(family.streams)))
        expected = toy.forward(roles)
        small = permuted(toy, rest)
        got = small.forward(tuple(roles[i] for i in rest), times=[toy.times()[i] for i in rest],
                            ids=toy.ids if small.family.texts else None)
        for row, out in got.items():
            torch.testing.assert_close(out, expected[rest[row]], **EXACT)


@families
def test_requests_never_see_each_other(family):
    toy, roles = Toy(family, requests=3), every_part(family)
    times = toy.times("token")
    together = toy.forward(roles, times=times)
    for n in range(3):
        alone = toy.forward(roles, latents=toy.latents[n:n + 1], times=[time[n:n + 1] for time in times],
                            index=toy.index[n:n + 1], ids=toy.ids[n:n + 1] if family.texts else None)
        for row, out in alone.items():
            torch.testing.assert_close(together[row][n:n + 1], out, **EXACT)


@pytest.mark.parametrize("family", [VIGU, MIXED], ids=lambda f: f.name)
def test_only_the_wanted_logits_are_made(family):
    toy, roles, row = Toy(family, requests=3), every_part(family), family.index("caption")
    whole = toy.forward(roles)
    rows = []
    hook = toy.experts.head["text"].head.register_forward_hook(lambda m, args, out: rows.append(out.shape[:-1].numel()))
    some = torch.zeros(3, WORDS, dtype=torch.bool)
    some[0, [1, 4]] = some[2, 6] = True
    for wanted in (some, torch.zeros_like(some), torch.ones_like(some)):
        got = toy.forward(roles, wanted=wanted)
        torch.testing.assert_close(got[row], whole[row][wanted], **EXACT)
        for other in set(got) - {row}:
            torch.testing.assert_close(got[other], whole[other], **EXACT)
    hook.remove()
    assert rows == [3, 0, 3 * WORDS]


@families
def test_a_text_of_one_position_equals_many_equal_ones(family):
    toy, roles = Toy(family, requests=2), every_part(family)
    for one in (toy.context[:, :1], torch.zeros_like(toy.context[:, :1])):  # any text, and no prompt at all
        many = toy.forward(roles, context=one.expand(-1, 512, -1))
        single = toy.forward(roles, context=one)
        for row, out in single.items():
            torch.testing.assert_close(out, many[row], **EXACT)


def test_a_text_of_one_position_is_asked_nothing():
    toy, asked = Toy(VIGU), []
    for block in toy.model.blocks:
        for linear in (block.cross_attn.q, block.cross_attn.k):
            linear.register_forward_hook(lambda m, args, out: asked.append(m))
    toy.forward((C, T), context=toy.context[:, :1])
    assert asked == []
    toy.forward((C, T))
    assert len(asked) == 2 * CONFIG.num_layers


def test_a_given_text_steers_the_picture():
    toy, roles = Toy(VIGU), (T, C)
    (velocity,) = toy.forward(roles).values()
    changed = toy.ids.clone()
    changed[0, 3] = (changed[0, 3] + 1) % VOCABULARY
    assert (toy.forward(roles, ids=changed)[0] - velocity).abs().max() > 1e-4
    # A caption has as many tokens as it has words: no padding that would have to be masked.
    shorter = toy.forward(roles, ids=toy.ids[:, :3])[0]
    assert shorter.shape == velocity.shape and (shorter - velocity).abs().max() > 1e-4


def test_text_turns_half_a_head_apart_from_position_0():
    head_dim, length = 24, 5
    x = torch.randn(1, 4 + length, 2, head_dim, dtype=torch.float64)
    table = torch.cat((torch.zeros(2, 4, head_dim // 2), line_rope(length, head_dim)), dim=1)
    table[0, :4] = 1  # the tokens before the text stay as they are
    turned = rotate(x, table, [(4, 4 + length)])
    torch.testing.assert_close(turned[:, :4], x[:, :4], rtol=0, atol=0)
    for position in range(length):
        for j in range(head_dim // 2):
            angle = torch.tensor(position * 10000.0 ** (-2 * j / head_dim), dtype=torch.float64)
            a, b = x[0, 4 + position, :, j], x[0, 4 + position, :, j + head_dim // 2]
            torch.testing.assert_close(turned[0, 4 + position, :, j], a * angle.cos() - b * angle.sin(),
                                       rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(turned[0, 4 + position, :, j + head_dim // 2],
                                       a * angle.sin() + b * angle.cos(), rtol=1e-6, atol=1e-6)


def test_text_without_tokens_is_refused():
    with pytest.raises(ValueError, match="The text has no tokens"):
        make_layout(VIGU, (C, T), (False, False), GRID, 24)


def loss(toy: Toy, roles: tuple[Role, ...], **changes) -> torch.Tensor:
    """A scalar that every output is in, each number with a weight of its own."""
    out = toy.forward(roles, **changes)
    return sum((part * torch.linspace(-1, 1, part.numel(), dtype=part.dtype).view_as(part)).sum()
               for part in out.values())


def learned(toy: Toy) -> dict[str, torch.nn.Parameter]:
    """All weights of a toy, which now ask for gradients."""
    parts = {"model": toy.model, "experts": toy.experts} | ({"bank": toy.bank} if toy.bank is not None else {})
    named = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.named_parameters()}
    for value in named.values():
        value.requires_grad_(True)
    return named


def gradients(toy: Toy, roles: tuple[Role, ...], **changes) -> dict[str, torch.Tensor | None]:
    """The gradient of `loss` for every weight."""
    named = learned(toy)
    return dict(zip(named, torch.autograd.grad(loss(toy, roles, **changes), list(named.values()), allow_unused=True)))


@families
def test_gradients_reach_every_own_part(family):
    toy = Toy(family, requests=2)
    for name, gradient in gradients(toy, (T,) * len(family.streams)).items():
        if name.startswith("experts."):
            assert gradient is not None and gradient.abs().max() > 0, name


@pytest.mark.parametrize("family", [UNITY, VIGU, MIXED], ids=lambda f: f.name)
def test_gradients_equal_finite_differences(family):
    toy, roles = Toy(family), every_part(family)
    named, found = learned(toy), gradients(toy, roles)
    draw, step = torch.Generator().manual_seed(7), 1e-5
    for name, parameter in named.items():
        if not name.startswith("experts.") or found[name] is None:
            continue
        direction = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        along = float((found[name] * direction).sum())
        with torch.no_grad():
            parameter.add_(direction, alpha=step)
            ahead = loss(toy, roles)
            parameter.sub_(direction, alpha=2 * step)
            behind = loss(toy, roles)
            parameter.add_(direction, alpha=step)
        assert float((ahead - behind) / (2 * step)) == pytest.approx(along, rel=1e-6, abs=1e-6), name


class Checkpointed(Host):
    """Computes every block again on the way back, as a training may, and counts how often a block runs."""

    def __init__(self):
        super().__init__()
        self.runs = 0

    def run_block(self, block, *args):
        def counted(*args):
            self.runs += 1
            return block(*args)

        return checkpoint(counted, *args, use_reentrant=False)


@pytest.mark.parametrize("family", [UNITY, VIGU, MIXED], ids=lambda f: f.name)
def test_a_block_under_a_checkpoint_gives_equal_gradients(family):
    toy, roles, host = Toy(family, requests=2), every_part(family), Checkpointed()
    plain = gradients(toy, roles)
    again = gradients(toy, roles, host=host)
    assert host.runs == 2 * CONFIG.num_layers
    for name, gradient in plain.items():
        assert (gradient is None) == (again[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(again[name], gradient, rtol=0, atol=0)


class Breaking(Host):
    """What a host does between blocks is seldom traceable: the compiler begins each block anew."""

    def start_block(self, index):
        torch._dynamo.graph_break()


def test_compiled_blocks_share_their_graphs_and_equal_the_plain_ones(monkeypatch):
    # With a graph a block, dynamo would give up after 8 and leave most of a model's blocks uncompiled.
    graphs = []
    for blocks in (3, 6):
        config = replace(CONFIG, num_layers=blocks)
        model, inputs = toy_model(config=config), {"family": VIGU, "experts": toy_experts(VIGU, config=config),
                                                   "ids": toy_ids(), "host": Breaking()}
        plain = forward(model, None, toy_latents(1, 1), (C, T), **inputs)
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        with monkeypatch.context() as patch:
            patch.setattr(toys, "joint_forward", torch.compile(joint_forward, backend="eager"))
            compiled = forward(model, None, toy_latents(1, 1), (C, T), **inputs)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        torch.testing.assert_close(compiled, plain, **EXACT)
    assert 0 < graphs[1] <= graphs[0]

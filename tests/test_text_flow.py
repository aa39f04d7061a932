"""The discrete flow of text: times, rates, and samplers that must be equal in distribution.

Histograms are compared by a chi-square test at a chance of a false alarm of ALARM each, on fixed seeds.
"""

import math

import pytest
import torch

from comfyui_strata.joint.adapters import AdapterSettings
from comfyui_strata.joint.families import VIGU, parse_task
from comfyui_strata.joint.flow import schedule
from comfyui_strata.joint.sampling import Engine, Texts, predict, sample_text, sample_with_text
from comfyui_strata.joint.text_flow import (
    JumpFirst,
    PublishedCaption,
    PublishedJoint,
    caption_rates,
    draw_tokens,
    joint_rates,
    random_tokens,
    text_grid,
    text_time,
)
from comfyui_strata.joint.transformer import Host
from comfyui_strata.tests.toys import toy_context, toy_experts, toy_ids, toy_latents, toy_model

ALARM = 1e-4
V, S, STEPS = 5, 3, 4
COUNT = 60_000  # texts that are drawn at once


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("asked", "made"), [(1, 1), (2, 2), (6, 6), (49, 50), (50, 50), (100, 100), (400, 400)])
def test_the_grid_rounds_up_as_the_published_solver(asked, made):
    grid = text_grid(asked)
    assert len(grid) == made + 1 and grid[0] == 0 and grid[-1] == 1
    torch.testing.assert_close(grid[:-1], torch.arange(made) / asked, rtol=0, atol=1e-6)


def test_no_step_is_refused():
    with pytest.raises(ValueError, match="at least 1 step"):
        text_grid(0)


@pytest.mark.parametrize(("t", "told"), [(0.0, 1000), (1.0, 0), (0.25, 750), (0.3333, 667), (0.9999, 0), (0.9992, 1)])
def test_the_network_is_told_whole_times(t, told):
    assert text_time(t) == told


def test_a_tokens_chance_to_jump_is_that_of_the_path():
    for steps in (1, 6, 49, 100):
        grid = text_grid(steps).double()
        rates = caption_rates(text_grid(steps))
        # Of 49 steps the last but one already ends at 1, and the last one has nothing left to divide by.
        expected = [1 - math.exp(-(b - a) / (1 - a)) for a, b in zip(grid[:-2].tolist(), grid[1:].tolist())] + [1.0]
        torch.testing.assert_close(rates, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-7)
    assert joint_rates(5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert joint_rates(1).tolist() == [1]


def posterior(ids: torch.Tensor, t: float) -> torch.Tensor:
    """Logits [N, S, V] of a toy network, a fixed random function of the whole text and of the time."""
    table = 3 * torch.randn(2, V ** S, S, V, generator=seeded(11))
    now, later = table[:, number(ids)]
    return math.cos(t) * now + math.sin(3 * t) * later


def histories(solver, seed: int) -> list[torch.Tensor]:
    """What became of all texts, as numbers [N]: after each step, the text, and the text before it with the places that
    changed."""
    ids = random_tokens(COUNT, S, V, seeded(seed))
    grid, seen = text_grid(STEPS), []
    for i in range(solver.steps):
        before, logits, wanted = ids, posterior(ids, float(grid[i])), solver.wanted(i)
        ids = solver.step(i, ids, logits if wanted is None else logits[wanted])
        changed = ((ids != before) * 2 ** torch.arange(S)).sum(1)
        seen += [number(ids), number(before) * 2 ** S + changed]
    return seen


def number(ids: torch.Tensor) -> torch.Tensor:
    """The number [N], below V^S, of each text [N, S]."""
    return (ids * V ** torch.arange(S)).sum(1)


def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether a chi-square test of two equally large samples tells their distributions apart."""
    a, b = (torch.bincount(x, minlength=(2 * V) ** S).double() for x in (a, b))
    seen = a + b > 0
    statistic = float(((a - b) ** 2 / (a + b))[seen].sum())
    # Wilson and Hilferty: the cube root of chi-square / freedom is nearly normal.
    freedom = int(seen.sum()) - 1
    spread = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(z / math.sqrt(2)) < ALARM


PAIRS = {
    "caption": (lambda draw: PublishedCaption(text_grid(STEPS), draw), caption_rates(text_grid(STEPS))),
    "joint": (lambda draw: PublishedJoint(STEPS, draw), joint_rates(STEPS)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_jumping_first_equals_the_published_sampler_in_distribution(kind):
    published, rates = PAIRS[kind]
    before = histories(published(seeded(21)), 22)
    ours = histories(JumpFirst(rates, COUNT, S, seeded(23)), 24)
    for step, (a, b) in enumerate(zip(before, ours)):
        assert not differ(a, b), f"history {step}"


class Wrong(JumpFirst):
    """Jumps to the likeliest token."""

    def step(self, step, ids, logits):
        ids = ids.clone()
        ids[self.jumps[step]] = logits.argmax(-1)
        return ids


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("wrong", ["rates 20 % too high", "rates 20 % too low", "argmax", "one jump decides for all"])
def test_a_wrong_sampler_would_be_caught(kind, wrong):
    published, rates = PAIRS[kind]
    factor = {"rates 20 % too high": 1.2, "rates 20 % too low": 0.8}.get(wrong, 1.0)
    kept = torch.cat((rates[:-1] * factor, rates[-1:]))
    solver = (Wrong if wrong == "argmax" else JumpFirst)(kept, COUNT, S, seeded(23))
    if wrong == "one jump decides for all":
        solver.jumps = solver.jumps[..., :1].expand(-1, -1, S)
    assert any(differ(a, b) for a, b in zip(histories(published(seeded(21)), 22), histories(solver, 24)))


def test_a_test_of_the_published_sampler_against_itself_stays_quiet():
    published, _ = PAIRS["caption"]
    runs = [histories(published(seeded(30 + i)), 40 + i) for i in range(4)]
    assert not any(differ(a, b) for one, other in zip(runs, runs[1:]) for a, b in zip(one, other))


def test_tokens_that_do_not_jump_stay():
    solver = JumpFirst(caption_rates(text_grid(10)), 50, 6, seeded(0))
    ids = random_tokens(50, 6, V, seeded(1))
    after = solver.step(2, ids, torch.zeros(int(solver.wanted(2).sum()), V))
    assert torch.equal(after[~solver.wanted(2)], ids[~solver.wanted(2)])
    assert solver.wanted(9).all()


def test_a_step_without_jumps_needs_no_logits():
    solver = JumpFirst(joint_rates(4), 2, 3, seeded(0))
    ids = random_tokens(2, 3, V, seeded(1))
    assert not solver.wanted(0).any()
    assert torch.equal(solver.step(0, ids, None), ids)
    assert torch.equal(solver.step(0, ids, torch.zeros(0, V)), ids)  # beside a video, whose forward is made anyhow


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_draws_follow_the_posterior(dtype):
    logits = torch.tensor([1.5, -0.5, 0.25, -8.0, 2.0]).to(dtype)
    count = 200_000
    drawn = torch.bincount(draw_tokens(logits.expand(count, -1), seeded(2)), minlength=5).double()
    expected = count * logits.double().softmax(0)
    # Poisson's law leaves a bin 5 deviations from its mean less than once in a million.
    assert ((drawn - expected).abs() < 5 * expected.sqrt() + 1).all()


def test_a_few_tokens_of_a_large_vocabulary_may_have_all_the_mass():
    logits = torch.full((256_000,), -60.0)
    likely = torch.tensor([0, 7, 131_071, 255_999])
    logits[likely] = torch.tensor([0.1, 0.3, 0.4, 0.2]).log()
    drawn = torch.cat([draw_tokens(logits.expand(50, -1), seeded(seed)) for seed in range(8)])
    assert torch.isin(drawn, likely).all()
    found = (drawn[:, None] == likely).sum(0).double()
    expected = len(drawn) * logits[likely].double().softmax(0)
    assert ((found - expected).abs() < 5 * expected.sqrt() + 1).all()


def test_a_flat_posterior_reaches_a_large_vocabulary_evenly():
    size = 256_000
    drawn = torch.cat([draw_tokens(torch.zeros(1, size).expand(50, -1), seeded(seed)) for seed in range(12)])
    places = torch.sort((drawn.double() + 0.5) / size).values
    n = len(places)
    # Kolmogorov and Smirnov: the largest step between the two distributions exceeds this once in 1 / ALARM.
    limit = math.sqrt(math.log(2 / ALARM) / (2 * n))
    steps = torch.arange(n, dtype=torch.float64) / n
    assert max(float((places - steps).max()), float((steps + 1 / n - places).max())) < limit


def test_every_unlikely_token_of_a_large_vocabulary_has_its_place(monkeypatch):
    # In float32, 0.4 % of this posterior would never be drawn: half of the tokens that share the last percent.
    logits = torch.zeros(256_000)
    logits[0] = math.log(99 * (len(logits) - 1))
    tokens = torch.arange(5, 256_000, 6_400)
    end = logits.double().softmax(0).cumsum(0)
    middle = (end[tokens - 1] + end[tokens]) / 2
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype, **_: middle.to(dtype).view(shape))
    assert torch.equal(draw_tokens(logits.expand(len(tokens), -1), seeded(0)), tokens)


@pytest.mark.parametrize("place", [0.0, 1 - 2.0 ** -53])
def test_an_impossible_token_is_not_drawn_at_the_ends(monkeypatch, place):
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype, **_: torch.full(shape, place, dtype=dtype))
    assert draw_tokens(torch.tensor([[-1e4, 0.0, -1e4], [0.0, -1e4, -1e4]]), seeded(0)).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_extreme_logits_leave_one_token(dtype):
    logits = torch.full((64, 9), -1e4, dtype=dtype)
    chosen = torch.randint(9, (64,), generator=seeded(3))
    logits[torch.arange(64), chosen] = 1e4
    assert torch.equal(draw_tokens(logits, seeded(4)), chosen)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(bad):
    logits = torch.zeros(3, V)
    logits[1, 2] = bad
    with pytest.raises(ValueError, match="text logits are not finite"):
        draw_tokens(logits, seeded(0))


@pytest.mark.parametrize(("steps", "length", "empty"), [(100, 256, 1.9), (100, 64, 26), (400, 256, 104)])
def test_the_forwards_that_are_saved_are_as_many_as_the_specification_says(steps, length, empty):
    rates = caption_rates(text_grid(steps))
    none = (1 - rates.double()) ** length  # the chance of each step to be empty
    assert float(none.sum()) == pytest.approx(empty, rel=0.03)
    saved = torch.tensor([steps - JumpFirst(rates, 1, length, seeded(seed)).forwards for seed in range(200)]).double()
    deviation = math.sqrt(float((none * (1 - none)).sum()) / len(saved))
    assert abs(float(saved.mean()) - float(none.sum())) < 4 * deviation


def test_the_published_length_and_steps_are_the_familys():
    tokens = VIGU.stream("caption").tokens
    assert (tokens.length, tokens.steps) == (256, 100)


@pytest.fixture(scope="module")
def engine() -> Engine:
    experts = toy_experts(VIGU)
    experts.head["text"].head.bias.data.zero_()  # it would choose the likeliest token whatever the text
    return Engine(toy_model(), None, AdapterSettings.published(VIGU), Host(), experts)


def test_a_caption_costs_only_the_forwards_and_logits_that_its_jumps_need(engine):
    task, grid, clean = parse_task(VIGU, "R2C"), text_grid(40), toy_latents(1, 1)
    texts, ids = Texts(torch.zeros_like(toy_context()[:, :1])), toy_ids()
    solver = JumpFirst(caption_rates(grid), *ids.shape, seeded(5))
    rows = []
    hook = engine.experts.head["text"].head.register_forward_hook(lambda m, args, out: rows.append(len(args[0])))
    got = sample_text(engine, task, clean, ids, texts, solver, grid)
    hook.remove()
    assert 0 < solver.forwards < 40
    assert len(rows) == solver.forwards and sum(rows) == int(solver.jumps.sum())
    # By hand, with all logits at every step, and the same jumps and draws.
    again, expected = JumpFirst(caption_rates(grid), *ids.shape, seeded(5)), ids
    for i, t in enumerate(grid[:-1]):
        _, logits = predict(engine, task, clean, 0.0, texts, ids=expected, text_time=text_time(float(t)))
        expected = again.step(i, expected, logits[again.wanted(i)])
    assert torch.equal(got, expected)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_caption_beside_its_video_is_read_from_the_prompted_branch(engine, guidance):
    task, ids, steps, length = parse_task(VIGU, "t2RC"), toy_ids(2, length=30), 4, 30
    clean, noise = torch.zeros_like(toy_latents(2, 1)), toy_latents(2, 1, seed=9)
    texts = Texts(10 * toy_context(1 if guidance == 1 else 2))  # so that the two prompts say different things
    solver, again = (JumpFirst(joint_rates(steps), 2, length, seeded(6)) for _ in range(2))
    read = []
    hook = engine.model.text_embedding.register_forward_hook(lambda m, args, out: read.append(args[0]))
    x, caption = sample_with_text(engine, task, clean, noise, texts, ids, solver, guidance=guidance)
    hook.remove()
    assert len(read) == steps + 1 and torch.equal(read[-1], texts.branches[:1])
    sigmas = schedule(steps, VIGU.flow.shift).tolist()
    expected = noise
    for i, (here, there) in enumerate(zip(sigmas, sigmas[1:])):
        branches = [predict(engine, task, expected, here, Texts(text[None]), ids=ids, text_time=1000 * here)
                    for text in texts.branches]
        velocity = branches[0][0] if guidance == 1 else torch.lerp(branches[1][0], branches[0][0], guidance)
        expected = expected + velocity * (there - here)
        ids = again.step(i, ids, branches[0][1][again.wanted(i)])
    torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)
    _, logits = predict(engine, task, expected, 0.0, Texts(texts.branches[:1]), ids=ids)
    assert torch.equal(caption, logits.argmax(-1))

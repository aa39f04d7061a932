"""The objective of UnityVideo and Uni-ViGU: what is drawn, what is lost, and that a fixed batch can be learned."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from comfyui_strata.joint.families import FAMILIES, UNITY, VIGU, parse_task, tasks, vary
from comfyui_strata.joint.sampling import Texts, predict
from comfyui_strata.joint.transformer import Host
from comfyui_strata.joint.variants import Variant
from comfyui_strata.tests.toys import LATENT, toy_context, toy_model
from comfyui_strata.training.new_parts import make_experts
from comfyui_strata.training.objective import (
    Draw,
    Lesson,
    draw,
    learnable,
    noised,
    noised_text,
    training_levels,
)
from comfyui_strata.training.trainee import Trainee

V, S = 11, 6
PAPER = vary(UNITY, Variant(condition_time="own", modulation="per_stream", together="all"))


def trainee(family, train_all: bool = True) -> Trainee:
    """A toy network of a family in float32, its own parts as a training makes them."""
    model = toy_model().float()
    experts = make_experts(family, model, V if family.texts else 0, seed=1)
    return Trainee(family, model, experts, training_levels(family.flow), all_weights=train_all, host=Host())


def lesson(family, clips: int = 2) -> Lesson:
    """Random clips, texts and prompts."""
    generator = torch.Generator().manual_seed(4)
    shape = (clips, len(family.pictures), *LATENT)
    clean, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    own = {s.name: toy_context(seed=10 + i).float() for i, s in enumerate(family.streams) if s.prompt}
    if not family.texts:
        return Lesson(clean, noise, toy_context(clips).float(), own)
    ids = torch.randint(V, (clips, S), generator=generator)
    noisy = torch.randint(V, (clips, S), generator=generator)
    return Lesson(clean, noise, toy_context(clips).float(), own, ids, noisy, (4, 6, 5)[:clips])


def test_unity_draws_what_its_release_draws():
    generator = torch.Generator().manual_seed(0)
    drawn = [draw(UNITY, generator) for _ in range(8000)]
    counts = Counter(str(d.task) for d in drawn)
    assert set(counts) == {str(task) for task in tasks(UNITY)}
    kinds = Counter("joint" if len(d.task.targets) == 2 else "layer" if d.task.targets != ("rgb",) else "rgb"
                    for d in drawn)
    assert {kind: kinds[kind] / 8000 for kind in kinds} == pytest.approx({"joint": 0.5, "layer": 0.25, "rgb": 0.25},
                                                                         abs=0.03)
    assert counts["t2RS"] / 8000 == pytest.approx(0.5 * 0.4 / 1.4, abs=0.02)
    levels = training_levels(UNITY.flow)
    sigmas = torch.stack([levels.sigmas[d.levels[0]] for d in drawn])
    # The shifted sigmoid of a normal number: its median is that of 0, its quarters those of -+0.6745.
    for share, normal in ((0.25, -0.6745), (0.5, 0.0), (0.75, 0.6745)):
        t = float(torch.sigmoid(torch.tensor(normal)))
        assert float(sigmas.quantile(share)) == pytest.approx(5 * t / (1 + 4 * t), abs=0.02)
    assert (levels.weights == 1).all()
    assert all(d.reads == "prompt" for d in drawn)


def test_a_clip_without_somebody_teaches_nothing_of_bodies():
    generator = torch.Generator().manual_seed(0)
    drawn = {str(draw(UNITY, generator, None, {"rgb", "depth"}).task) for _ in range(200)}
    assert drawn == {"t2RD", "R2D", "D2R"}
    assert not learnable(UNITY, {"R2K": 1.0}, {"rgb", "depth"}) and learnable(UNITY, {}, {"rgb", "depth"})
    with pytest.raises(ValueError, match="None of the tasks R2K, K2R can be learned from depth, rgb"):
        draw(UNITY, generator, {"R2K": 1.0, "K2R": 1.0}, {"rgb", "depth"})


def test_vigu_draws_the_times_of_video_and_text_apart():
    generator = torch.Generator().manual_seed(0)
    drawn = [draw(VIGU, generator, drop=0.5) for _ in range(4000)]
    assert {str(d.task) for d in drawn} == {"t2RC"}
    both = torch.tensor([[d.levels[0] / 1000, d.clean[0]] for d in drawn])
    assert torch.corrcoef(both.T)[0, 1].abs() < 0.06  # 4 standard deviations of 1/sqrt(4000)
    assert both.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.03)
    reads = Counter(d.reads for d in drawn)
    shares = {kind: count / 4000 for kind, count in reads.items()}
    assert shares == pytest.approx({"prompt": 0.5, "zeros": 0.25, "empty": 0.25}, abs=0.04)
    assert draw(VIGU, generator, {"C2R": 1.0}).clean == (1.0,)


def test_a_text_keeps_as_many_tokens_as_its_time_says():
    ids = torch.full((400, 50), 3)
    drawn = Draw(parse_task(VIGU, "t2RC"), (0,), "zeros", clean=(0.7,))
    noisy = noised_text(ids, drawn, V, torch.Generator().manual_seed(0))
    assert float((noisy == 3).float().mean()) == pytest.approx(0.7 + 0.3 / V, abs=0.015)
    assert noisy.min() == 0 and noisy.max() == V - 1


def test_what_is_given_to_unity_is_clean_and_told_the_targets_time_or_its_own():
    clips = lesson(UNITY)
    for family, told in ((UNITY, "targets"), (PAPER, "own")):
        network = trainee(family)
        with torch.no_grad():
            for vector in (*network.experts.modulation.values(), network.experts.embedding["layer"].linear.weight):
                vector.normal_(std=0.3)
        drawn = Draw(parse_task(family, "R2D"), (300,))
        x = noised(clips.clean, clips.noise, drawn, network.levels)
        assert torch.equal(x[:, 0], clips.clean[:, 0])
        sigma = float(network.levels.sigmas[300])
        with torch.no_grad():
            velocity, _ = predict(network.engine(), drawn.task, x, sigma, Texts(clips.context, clips.own))
            expected = F.mse_loss(velocity[:, 1], (clips.noise - clips.clean)[:, 1])
            assert float(network(drawn, clips)) == pytest.approx(float(expected), rel=1e-5)
            otherwise = {"own": "targets", "targets": "own"}[told]
            other = replace(family, flow=replace(family.flow, condition_time=otherwise))
            velocity, _ = predict(network.engine(), parse_task(other, "R2D"), x, sigma,
                                  Texts(clips.context, clips.own))
        assert float(F.mse_loss(velocity[:, 1], (clips.noise - clips.clean)[:, 1])) != pytest.approx(float(expected))


def test_the_loss_of_video_and_text_is_the_sum_of_their_means():
    network, clips = trainee(VIGU), lesson(VIGU)
    with torch.no_grad():
        network.experts.head["text"].head.weight.normal_(std=0.2)
    drawn = Draw(parse_task(VIGU, "t2RC"), (400,), clean=(0.3,))
    x = noised(clips.clean, clips.noise, drawn, network.levels)
    with torch.no_grad():
        velocity, logits = predict(network.engine(), drawn.task, x, float(network.levels.times[400]) / 1000,
                                   Texts(clips.context), ids=clips.noisy_ids, text_time=700.0)
        text = -logits.log_softmax(-1).gather(-1, clips.ids[..., None]).mean()
        expected = F.mse_loss(velocity, clips.noise - clips.clean) + text
        assert float(network(drawn, clips)) == pytest.approx(float(expected), rel=1e-4)
        caption = replace(drawn, task=parse_task(VIGU, "R2C"))
        alone = float(network(caption, clips))
        changed = clips._replace(noise=clips.noise + 1)
        assert float(network(caption, changed)) == alone  # the video is clean, its noise is nowhere


def test_a_text_that_is_given_has_no_padding():
    network, clips = trainee(VIGU), lesson(VIGU, 3)
    drawn = Draw(parse_task(VIGU, "C2R"), (400,))
    with torch.no_grad():
        loss = float(network(drawn, clips))
        padding = clips.ids.clone()
        for n, length in enumerate(clips.lengths):
            padding[n, length:] = (padding[n, length:] + 1) % V
        assert float(network(drawn, clips._replace(ids=padding))) == pytest.approx(loss, rel=1e-6)
        padding[0, 0] = (padding[0, 0] + 1) % V
        assert float(network(drawn, clips._replace(ids=padding))) != pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("family", [UNITY, PAPER, VIGU], ids=["unity", "paper", "vigu"])
def test_every_step_reaches_all_that_is_learned(family):
    """Or AdamW would count other steps for some, and several processes would wait for gradients that never come."""
    clips = lesson(family)
    for train_all in (True, False):
        network = trainee(family, train_all)
        names = network.learned()
        assert {name.split("/")[0] for name in names} == ({"own", "backbone"} if train_all else {"own"})
        for task in tasks(family):
            network.zero_grad()
            zeros = [clips.context[:1, :1] * 0] if family.no_prompt == "zeros" else []
            for context in (clips.context, *zeros):
                network(Draw(task, (300,), clean=(0.5,)), clips._replace(context=context)).backward()
            assert all(value.grad is not None for value in network.learned().values()), str(task)


@pytest.mark.parametrize(("family", "task"), [
    (UNITY, "R2D"), (UNITY, "S2R"), (UNITY, "t2RF"), (PAPER, "RD2KP"), (VIGU, "t2RC"), (VIGU, "R2C"), (VIGU, "C2R")],
    ids=lambda value: getattr(value, "name", value))
def test_twenty_steps_learn_a_fixed_batch(family, task):
    network, clips = trainee(family), lesson(family)
    drawn = Draw(parse_task(family, task), (400,), clean=(0.5,))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = network(drawn, clips)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_at_first_the_other_layer_is_not_seen_and_text_thinks_as_the_video_does():
    network = trainee(UNITY)
    clips = lesson(UNITY)
    x, texts = clips.clean, Texts(clips.context, clips.own)
    with torch.no_grad():
        a, b = (predict(network.engine(), parse_task(UNITY, "D2R"), y, 0.5, texts)[0][:, 0]
                for y in (x, x + torch.randn_like(x) * torch.tensor([0.0, 1, 0, 0, 0, 0]).view(1, 6, 1, 1, 1, 1)))
    assert torch.equal(a, b)
    network = trainee(VIGU)
    assert torch.equal(network.experts.ffn["text"][1][2].weight, network.backbone.blocks[1].ffn[2].weight)
    assert not network.experts.head["text"].head.weight.any()


def test_every_family_has_levels_and_a_draw():
    for family in FAMILIES.values():
        levels = training_levels(family.flow)
        drawn = draw(family, torch.Generator().manual_seed(0))
        assert 0 <= drawn.levels[0] < len(levels.sigmas) and drawn.task.targets




@pytest.mark.parametrize(("family", "task"), [(UNITY, "R2D"), (PAPER, "RD2KP"), (VIGU, "t2RC"), (VIGU, "C2R")],
                         ids=lambda value: getattr(value, "name", value))
def test_every_clip_of_a_batch_may_have_its_own_level(family, task):
    network, clips = trainee(family), lesson(family, 3)
    task = parse_task(family, task)
    makes_text = bool(set(family.texts) & set(task.targets))
    levels, clean = (100, 400, 900), (0.2, 0.5, 0.9) if makes_text else (1.0,)
    with torch.no_grad():
        together = network(Draw(task, levels, clean=clean), clips)
        alone = [network(Draw(task, (levels[n],), clean=clean[n:n + 1] if makes_text else clean), one(clips, n))
                 for n in range(3)]
    assert len({round(float(loss), 3) for loss in alone}) == 3  # or the levels would not matter
    assert float(together) == pytest.approx(float(sum(alone)) / 3, rel=1e-4)


def one(clips, n):
    """Clip n of a lesson."""
    each = {name: getattr(clips, name)[n:n + 1] for name in ("clean", "noise", "ids", "noisy_ids")
            if getattr(clips, name) is not None}
    return clips._replace(**each, context=clips.context[n:n + 1] if len(clips.context) > 1 else clips.context,
                          lengths=clips.lengths[n:n + 1])


def test_every_clip_is_drawn_a_level_and_a_time():
    drawn = draw(VIGU, torch.Generator().manual_seed(0), {"t2RC": 1.0}, clips=64)
    assert len(set(drawn.levels)) > 50 and len(set(drawn.clean)) == 64
    assert all(0 <= level < 1000 for level in drawn.levels) and all(0 <= time <= 1 for time in drawn.clean)

"""The training objective against the reference's numbers, and as something that can be learned from."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from comfyui_strata.joint.adapters import AdapterSettings
from comfyui_strata.joint.families import ALPHA, INTRINSIC, parse_task, tasks
from comfyui_strata.joint.sampling import Engine
from comfyui_strata.joint.transformer import Host
from comfyui_strata.tests.toys import forward, toy_bank, toy_context, toy_latents, toy_model
from comfyui_strata.training.objective import Draw, Lesson, draw, noised, training_levels, training_loss

FLOW = INTRINSIC.flow
EXACT = replace(FLOW, round_time=None)


@pytest.fixture(scope="module")
def reference():
    return load_file(Path(__file__).parent / "fixtures/unividx/intrinsic_forward.safetensors")


def test_levels_are_the_references(reference):
    levels = training_levels(EXACT)
    for ours, key in ((levels.sigmas, "sigmas"), (levels.times, "timesteps"), (levels.weights, "weights")):
        torch.testing.assert_close(ours, reference[f"const/train_{key}"], rtol=1e-5, atol=1e-5)
    assert levels.weights.mean() == pytest.approx(1)


def test_rounded_times_take_the_sigma_and_weight_nearest_to_them(reference):
    levels = training_levels(FLOW)
    exact = reference["const/train_timesteps"]
    for index in (0, 1, 250, 499, 777, 998, 999):
        rounded = exact[index].bfloat16()
        nearest = int((exact - rounded.float()).abs().argmin())
        assert levels.times[index] == rounded.float()
        assert levels.sigmas[index] == pytest.approx(float(reference["const/train_sigmas"][nearest]), rel=1e-5)
        assert levels.weights[index] == pytest.approx(float(reference["const/train_weights"][nearest]), abs=1e-5)


@pytest.mark.parametrize("family", [INTRINSIC, ALPHA], ids=lambda f: f.name)
def test_tasks_are_drawn_alike(family):
    generator = torch.Generator().manual_seed(0)
    drawn = [draw(family, generator) for _ in range(10_000)]
    counts = Counter(str(d.task) for d in drawn)
    assert set(counts) == {str(task) for task in tasks(family)}
    # 10,000 / 15 = 667 with a standard deviation of 25
    assert max(abs(count - 10_000 / 15) for count in counts.values()) < 5 * 25
    given = Counter(len(d.task.conditions) for d in drawn)
    for conditions, share in {0: 1, 1: 4, 2: 6, 3: 4}.items():
        assert given[conditions] / 10_000 == pytest.approx(share / 15, abs=0.025)
    levels = torch.tensor([float(d.levels[0]) for d in drawn])
    assert levels.min() < 20 and levels.max() > 979 and levels.mean() == pytest.approx(499.5, abs=15)


def test_the_same_seed_draws_the_same():
    a, b = ([draw(ALPHA, g) for _ in range(5)] for g in (torch.Generator().manual_seed(3) for _ in range(2)))
    assert a == b


def test_weights_decide_how_often_a_task_is_drawn():
    generator = torch.Generator().manual_seed(0)
    weights = {"R2AIN": 5.0, "t2RAIN": 2.0, "AIN2R": 1.0}
    counts = Counter(str(draw(INTRINSIC, generator, weights).task) for _ in range(4000))
    assert set(counts) == set(weights)
    for name, weight in weights.items():
        assert counts[name] / 4000 == pytest.approx(weight / 8, abs=0.035)  # 5 standard deviations of 0.008 at most


@pytest.mark.parametrize("family", [INTRINSIC, ALPHA], ids=lambda f: f.name)
def test_a_prompt_is_told_in_the_tasks_that_were_published_with_one(family):
    generator = torch.Generator().manual_seed(0)
    for task in tasks(family):
        told = draw(family, generator, {str(task): 1.0}).reads == "prompt"
        assert told == (str(task) in family.text_tasks)
    drawn = [draw(family, generator) for _ in range(2000)]
    assert {str(d.task) for d in drawn if d.reads == "prompt"} == family.text_tasks


@pytest.mark.parametrize("lacking", [(), ("rgb",), ("albedo", "normal"), ("rgb", "irradiance", "normal")])
def test_layers_that_a_clip_lacks_are_neither_given_nor_generated(lacking):
    present = set(INTRINSIC.layers) - set(lacking)
    generator = torch.Generator().manual_seed(5)
    drawn = [draw(INTRINSIC, generator, None, present) for _ in range(3000)]
    for d in drawn:
        assert {*d.task.conditions, *d.task.targets} == present and d.task.targets
    # A task, and whether it is told the prompt, is that of a whole clip less what is lacking.
    left = [(tuple(layer for layer in task.targets if layer in present), task.uses_text) for task in tasks(INTRINSIC)]
    shares = Counter((targets, text) for targets, text in left if targets)
    counts = Counter((d.task.targets, d.reads == "prompt") for d in drawn)
    assert set(counts) == set(shares)
    for kind, count in counts.items():
        assert count / 3000 == pytest.approx(shares[kind] / sum(shares.values()), abs=0.046)  # 5 standard deviations


def test_weights_of_tasks_that_could_not_remain_are_refused():
    with pytest.raises(ValueError, match="None of the tasks R2AIN can be learned from rgb"):
        draw(INTRINSIC, torch.Generator(), {"R2AIN": 1.0}, {"rgb"})


def test_every_stream_gets_its_own_noise_at_its_roles_level():
    clean, noise = toy_latents(2, seed=1), toy_latents(2, seed=2)
    levels = training_levels(FLOW)
    x = noised(clean, noise, Draw(parse_task(INTRINSIC, "RI2AN"), (300,)), levels)
    for row, level in ((0, 999), (1, 300), (2, 999), (3, 300)):
        s = float(levels.sigmas[level])
        torch.testing.assert_close(x[:, row], (1 - s) * clean[:, row] + s * noise[:, row])


@pytest.fixture
def engine():
    return Engine(toy_model(), toy_bank(), AdapterSettings.published(INTRINSIC), Host())


def test_the_loss_is_the_weighted_error_of_the_targets_alone(engine):
    clean, noise, texts = toy_latents(2, seed=1), toy_latents(2, seed=2), toy_context(2)
    drawn, levels = Draw(parse_task(INTRINSIC, "R2AIN"), (400,)), training_levels(FLOW)
    ours = training_loss(engine, drawn, Lesson(clean, noise, texts), levels)
    times = torch.tensor([[[float(levels.times[999])]] + 3 * [[float(levels.times[400])]]]).expand(2, -1, -1)
    predicted = forward(engine.model, engine.bank, noised(clean, noise, drawn, levels), drawn.task.roles, times=times,
                        context=texts, index=[[0] * 4, [1] * 4])
    errors = [((predicted[row] - (noise - clean)[:, row]) ** 2).mean() for row in (1, 2, 3)]
    assert float(ours) == pytest.approx(float(levels.weights[400] * sum(errors) / 3), rel=1e-5)


@pytest.mark.parametrize("task", ["t2RAIN", "R2AIN", "AN2RI", "AIN2R"])
def test_gradients_are_those_of_finite_differences(engine, task):
    drawn, levels = Draw(parse_task(INTRINSIC, task), (500,)), training_levels(FLOW)
    inputs = (toy_latents(seed=1), toy_latents(seed=2), toy_context())

    def loss() -> torch.Tensor:
        return training_loss(engine, drawn, Lesson(*inputs), levels)

    engine.bank.requires_grad_(True)
    loss().backward()
    used = {"rgb": 0, "albedo": 1, "irradiance": 2, "normal": 3}
    for name, parameter in engine.bank.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        if "ffn" not in name:
            for layer, row in used.items():
                learns = bool(parameter.grad[row].abs().max() > 0)
                # The last block's q and o matter for targets only, which is also where the gate is open.
                assert learns == (layer in drawn.task.targets), (name, layer)
    weight = engine.bank.blocks[0].o_up
    row, step = INTRINSIC.index(drawn.task.targets[0]), 1e-2
    with torch.no_grad():
        direction = torch.sign(weight.grad[row])
        weight[row] += step * direction
        above = float(loss())
        weight[row] -= 2 * step * direction
        below = float(loss())
        weight[row] += step * direction
    slope = float((weight.grad[row] * direction).sum())
    assert (above - below) / (2 * step) == pytest.approx(slope, rel=2e-2)
    assert all(parameter.grad is None for parameter in engine.model.parameters())


def test_twenty_steps_learn_a_fixed_batch(engine):
    clean, noise, texts = toy_latents(seed=1), toy_latents(seed=2), toy_context()
    drawn, levels = Draw(parse_task(INTRINSIC, "R2AIN"), (400,)), training_levels(FLOW)
    engine.bank.requires_grad_(True)
    optimiser = torch.optim.AdamW(engine.bank.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = training_loss(engine, drawn, Lesson(clean, noise, texts), levels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]

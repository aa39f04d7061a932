"""Whole samplings on tensors."""

from dataclasses import replace

import pytest
import torch

from comfyui_strata.joint.adapters import AdapterSettings
from comfyui_strata.joint.families import INTRINSIC, parse_task
from comfyui_strata.joint.sampling import Engine, Texts, effective_guidance, initial_noise, predict, sample
from comfyui_strata.joint.transformer import Host
from comfyui_strata.tests.toys import LATENT, toy_bank, toy_context, toy_latents, toy_model

R2AIN = parse_task(INTRINSIC, "R2AIN")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_model(), toy_bank(), AdapterSettings.published(INTRINSIC), Host())


def test_noise_is_one_draw_over_all_streams():
    noise = initial_noise(R2AIN, LATENT[1:], LATENT[0], seed=7)
    expected = torch.randn(4, *LATENT, generator=torch.Generator().manual_seed(7))
    assert torch.equal(noise[0], expected)


def test_conditions_come_back_exactly_and_targets_do_not(engine):
    clean, noise = toy_latents(2, seed=5), toy_latents(2, seed=6)
    out = sample(engine, R2AIN, clean, noise, Texts(toy_context()), steps=3)
    assert torch.equal(out[:, 0], clean[:, 0])
    assert torch.isfinite(out).all() and not torch.allclose(out[:, 1:], clean[:, 1:])


def test_what_stands_at_a_targets_place_does_not_matter(engine):
    clean, noise = toy_latents(seed=5), toy_latents(seed=6)
    other = clean.clone()
    other[:, 1:] = 100.0
    a, b = (sample(engine, R2AIN, c, noise, Texts(toy_context()), steps=2) for c in (clean, other))
    assert torch.equal(a, b)


def test_batched_guidance_equals_two_calls(engine):
    x, texts = toy_latents(2), toy_context(2)
    both, _ = predict(engine, R2AIN, torch.cat((x, x)), 0.6, Texts(texts))
    for branch, got in enumerate(both.chunk(2)):
        alone, _ = predict(engine, R2AIN, x, 0.6, Texts(texts[branch:branch + 1]))
        torch.testing.assert_close(got, alone, rtol=1e-9, atol=1e-9)


def test_guidance_follows_its_formula(engine):
    clean, noise, texts = toy_latents(seed=5), toy_latents(seed=6), toy_context(2)
    got = sample(engine, R2AIN, clean, noise, Texts(texts), guidance=3.0, steps=1)
    start = sample_start(engine, clean, noise)
    v = [predict(engine, R2AIN, start, 1.0, Texts(text[None]))[0] for text in texts]
    expected = start - (v[1] + 3.0 * (v[0] - v[1]))
    torch.testing.assert_close(got[:, 1:], expected[:, 1:], rtol=1e-9, atol=1e-9)


def sample_start(engine, clean, noise):
    """The latents that the first step of a sampling sees."""
    seen = []
    sample(engine, R2AIN, clean, noise, Texts(toy_context()), steps=1, callback=lambda i, x: seen.append(x))
    return seen[0]


def test_the_empty_prompt_turns_guidance_off():
    assert effective_guidance(5.0, prompt_is_empty=True) == 1.0
    assert effective_guidance(5.0, prompt_is_empty=False) == 5.0


def test_without_adapters_the_bare_backbone_runs(engine):
    out = sample(replace(engine, bank=None), R2AIN, toy_latents(), toy_latents(seed=6), Texts(toy_context()), steps=1)
    assert torch.isfinite(out).all()

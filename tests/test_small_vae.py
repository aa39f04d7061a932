"""The small VAE: what its start promises, what the second stage holds, and that a run goes on where it was cut off."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from comfyui_strata.model_loaders.vae import load_vae
from comfyui_strata.training import small_vae
from comfyui_strata.training.small_vae import Pictures, Recipe, hold_stills, loss, make_vae, normalise, train_vae
from comfyui_strata.training.vae_network import encode, reconstruct

TINY = Recipe(width=4, stills=2, clips=2, still_steps=3, clip_steps=2, still_batch=2, clip_batch=1, warmup=(1, 1),
              frames=5, size=16)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_at_first_every_frame_passes_as_a_still():
    vae = make_vae(4, 0)
    still = torch.rand(1, 3, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        alone = vae.encode(still).latent_dist.mean
        clip = vae.encode(still.expand(-1, -1, 9, -1, -1)).latent_dist.mean
        torch.testing.assert_close(clip, alone.expand_as(clip))
        made = vae.decode(clip).sample
    torch.testing.assert_close(made, made[:, :, :1].expand_as(made))


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_a_clip_at_once_gives_what_diffusers_gives_in_chunks(frames):
    vae = make_vae(4, 0)
    x = torch.rand(2, 3, frames, 16, 32) * 2 - 1
    with torch.no_grad():
        for value in vae.parameters():  # as made, what looks back in time is nearly nothing
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
        latents = vae.encode(x).latent_dist.mean
        torch.testing.assert_close(encode(vae, x), latents, atol=1e-5, rtol=1e-4)
        noise = torch.randn(latents.shape)
        pictures, mean = reconstruct(vae, x, noise)
        torch.testing.assert_close(mean, latents, atol=1e-5, rtol=1e-4)
        # diffusers clamps what it decodes
        torch.testing.assert_close(pictures.clamp(-1, 1), vae.decode(latents + noise).sample, atol=1e-5, rtol=1e-4)


def test_drawings_count_for_more(cache):
    vae, x = make_vae(4, 0), torch.rand(2, 3, 1, 16, 16)
    none = torch.zeros(2, 16, 1, 2, 2)
    with torch.no_grad():
        plain, first = (loss(vae, x, torch.tensor(counts), TINY, none) for counts in ([1.0, 1.0], [3.0, 1.0]))
    assert first > plain


def test_the_second_stage_leaves_latents_of_stills_alone(cache):
    vae = make_vae(4, 0)
    x, counts = Pictures(TINY.folder(cache, 5), 2).batch(1, np.random.default_rng(0))
    before = vae.encode(x).latent_dist.mean.detach()
    hold_stills(vae)
    optimiser = torch.optim.AdamW([p for p in vae.parameters() if p.requires_grad], lr=1e-2, weight_decay=0)
    for _ in range(3):
        optimiser.zero_grad()
        loss(vae, x, counts, TINY, torch.zeros_like(before)).backward()
        optimiser.step()
    after = vae.encode(x).latent_dist.mean.detach()
    assert torch.equal(after[:, :, 0], before[:, :, 0])
    assert (after[:, :, 1] - before[:, :, 1]).abs().max() > 1e-3


def test_normalised_latents_are_those_of_wan_and_pictures_stay():
    vae = make_vae(4, 0)
    stills = torch.rand(4, 3, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(stills).latent_dist.mean).sample
        normalise(vae, stills)
        mean = vae.encode(stills).latent_dist.mean
        after = vae.decode(mean).sample
    z = mean.transpose(0, 1).flatten(1)
    torch.testing.assert_close(z.mean(dim=1), torch.tensor(vae.config.latents_mean), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(z.std(dim=1), torch.tensor(vae.config.latents_std), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_the_file_is_read_as_any_wan_vae_and_a_cut_off_run_goes_on(cache, tmp_path, monkeypatch):
    whole = train_vae(TINY, tmp_path / "whole.safetensors", cache)
    vae = load_vae(whole)
    assert vae.decode(vae.encode(torch.rand(5, 16, 16, 3))).shape == (5, 16, 16, 3)

    cut = tmp_path / "cut.safetensors"
    real, calls = small_vae.loss, []

    def stop(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(small_vae, "_SAVE_EVERY", 1)
        patch.setattr(small_vae, "loss", stop)
        train_vae(TINY, cut, cache)
    assert train_vae(TINY, cut, cache).read_bytes() == whole.read_bytes()


def test_it_learns(cache):
    recipe = replace(TINY, still_steps=60, still_rate=1e-2)
    vae = make_vae(recipe.width, 0)
    x, counts = Pictures(TINY.folder(cache, 1), 2).batch(2, np.random.default_rng(1))
    optimiser = torch.optim.AdamW(vae.parameters(), lr=recipe.still_rate)
    values = []
    for _ in range(recipe.still_steps):
        optimiser.zero_grad()
        value = loss(vae, x, counts, recipe, torch.zeros(2, 16, 1, 2, 2))
        value.backward()
        optimiser.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.7 * values[0]

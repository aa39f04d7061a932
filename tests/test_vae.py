"""Wan's VAEs outside ComfyUI: `model_loaders.vae` on tiny files in the layouts of wan_2.1_vae and wan2.2_vae."""

import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfyui_strata.model_loaders.detect import detect
from comfyui_strata.model_loaders.vae import load_vae, looks_like_vae
from comfyui_strata.tests.tiny_files import MEAN, MEAN_22, STD, STD_22, write_tiny_vae, write_tiny_wan22_vae

pytest.importorskip("diffusers", reason="the VAE outside ComfyUI needs diffusers")

# What ComfyUI 0.33's own VAE makes of `ramp()` with the same file, in float32 on a CPU (2026-11-21):
# Wan21.process_in(vae.encode(images)) at [:4, 1, 2, 3], and vae.decode of it at [3, 10, 20:22]
COMFY_LATENTS = [-0.4911, -0.81618, 3.12235, -0.35013]
COMFY_PIXELS = [0.63399, 0.44702, 0.54028, 0.68823, 0.42158, 0.56213]
# The same of ComfyUI's vae2_2.WanVAE and Wan22.process_in for `ramp(64, 96)`
COMFY_LATENTS_22 = [-2.69612, -0.54144, -0.10132, 0.02597]
COMFY_PIXELS_22 = [0.54101, 0.1825, 0.70739, 0.64892, 0.31712, 0.56554]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_tiny_vae(tmp_path_factory.mktemp("vae") / "wan_2.1_vae.safetensors")


@pytest.fixture(scope="module")
def vae(file):
    return load_vae(file)


@pytest.fixture(scope="module")
def file_22(tmp_path_factory):
    return write_tiny_wan22_vae(tmp_path_factory.mktemp("vae") / "wan2.2_vae.safetensors")


@pytest.fixture(scope="module")
def vae_22(file_22):
    return load_vae(file_22)


def pictures(frames, height=32, width=48, seed=0):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


def ramp(height=32, width=48):
    """Five frames [5, H, W, 3] of colour ramps, the third channel brightening with time."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([torch.stack([y, x, (x + y + t / 5) / 3], -1) for t in range(5)])


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_there_and_back(vae, frames):
    latents = vae.encode(pictures(frames))
    decoded = vae.decode(latents)
    assert latents.shape == (16, (frames - 1) // 4 + 1, 4, 6) and latents.dtype == torch.float32
    assert decoded.shape == (frames, 32, 48, 3) and decoded.dtype == torch.float32
    assert decoded.min() >= 0 and decoded.max() <= 1 and decoded.std() > 0.05
    assert torch.equal(latents, vae.encode(pictures(frames)))  # the posterior's mean: nothing is drawn


@pytest.mark.parametrize("frames", [1, 5])
def test_there_and_back_in_wan_22(vae_22, frames):
    images = pictures(frames, 64, 96)
    latents = vae_22.encode(images)
    decoded = vae_22.decode(latents)
    assert latents.shape == (48, (frames - 1) // 4 + 1, 4, 6) and decoded.shape == images.shape
    assert decoded.min() >= 0 and decoded.max() <= 1 and decoded.std() > 0.05
    torch.testing.assert_close(vae_22.encode(images[:1]), latents[:, :1], atol=1e-5, rtol=0)


def test_channels_and_cell(vae, vae_22):
    assert (vae.channels, vae.cell) == (16, 8) and (vae_22.channels, vae_22.cell) == (48, 16)


@pytest.mark.parametrize(("name", "mean", "std"), [("vae", MEAN, STD), ("vae_22", MEAN_22, STD_22)])
def test_latents_are_means_normalised_or_not(request, name, mean, std):
    vae, images = request.getfixturevalue(name), pictures(5, 64, 96)
    mu = vae.model.encode(images.permute(3, 0, 1, 2)[None] * 2 - 1).latent_dist.mean[0]
    normalised = (mu - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)
    torch.testing.assert_close(vae.encode(images), normalised)
    assert torch.equal(vae.encode(images, normalised=False), mu)
    torch.testing.assert_close(vae.decode(mu, normalised=False), vae.decode(normalised), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "images", "expected_latents", "expected_pixels"),
    [("vae", ramp(), COMFY_LATENTS, COMFY_PIXELS), ("vae_22", ramp(64, 96), COMFY_LATENTS_22, COMFY_PIXELS_22)],
    ids=["2.1", "2.2"],
)
def test_same_numbers_as_comfyui(request, name, images, expected_latents, expected_pixels):
    vae = request.getfixturevalue(name)
    latents = vae.encode(images)
    pixels = vae.decode(latents)[3, 10, 20:22].flatten()
    torch.testing.assert_close(latents[:4, 1, 2, 3], torch.tensor(expected_latents), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels, torch.tensor(expected_pixels), atol=1e-4, rtol=0)


def test_causal_in_time(vae):
    torch.testing.assert_close(vae.encode(pictures(9))[:, :2], vae.encode(pictures(9)[:5]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("base_dim", [2, 6])
def test_any_width(tmp_path, base_dim):
    assert load_vae(write_tiny_vae(tmp_path / "a.safetensors", base_dim)).encode(pictures(1)).shape == (16, 1, 4, 6)


@pytest.mark.parametrize(("base_dim", "decoder_dim"), [(2, 2), (6, 4)])
def test_any_width_of_wan_22(tmp_path, base_dim, decoder_dim):
    vae = load_vae(write_tiny_wan22_vae(tmp_path / "a.safetensors", base_dim, decoder_dim))
    assert vae.decode(vae.encode(pictures(1, 32, 32))).shape == (1, 32, 32, 3)


def test_diffusers_naming_of_wan_22_is_the_same_vae(vae_22, tmp_path):
    other = load_vae(write_tiny_wan22_vae(tmp_path / "diffusers.safetensors", diffusers_names=True))
    latents = vae_22.encode(pictures(5, 32, 64))
    assert torch.equal(other.encode(pictures(5, 32, 64)), latents)
    assert torch.equal(other.decode(latents), vae_22.decode(latents))


def test_diffusers_naming_is_the_same_vae(vae, tmp_path):
    save_file(vae.model.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    other = load_vae(tmp_path / "diffusion_pytorch_model.safetensors")
    assert torch.equal(other.encode(pictures(5)), vae.encode(pictures(5)))


def test_bfloat16_stays_close(vae, file):
    latents = load_vae(file, dtype=torch.bfloat16).encode(pictures(5))
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, vae.encode(pictures(5)), atol=0.2, rtol=0)


def test_tiles(vae):
    latents = torch.randn(16, 2, 4, 60, generator=torch.Generator().manual_seed(0))  # wider than a tile
    whole, tiled = vae.decode(latents), vae.decode(latents, tiled=True)
    assert tiled.shape == whole.shape == (5, 32, 480, 3)
    assert 0 < (tiled - whole).abs().mean() < 0.05


def test_tiles_of_wan_22(vae_22):
    latents = torch.randn(48, 2, 2, 60, generator=torch.Generator().manual_seed(0))
    whole, tiled = vae_22.decode(latents), vae_22.decode(latents, tiled=True)
    assert tiled.shape == whole.shape == (5, 32, 960, 3)
    assert 0 < (tiled - whole).abs().mean() < 0.05


def test_tiling_does_not_leak_into_encode(vae):
    images = pictures(1, 256, 16)  # higher than a tile
    before = vae.encode(images)
    vae.decode(before, tiled=True)
    assert torch.equal(vae.encode(images), before)


def test_same_seed_same_file(file, tmp_path):
    assert write_tiny_vae(tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    assert write_tiny_vae(tmp_path / "other.safetensors", seed=1).read_bytes() != file.read_bytes()


def test_same_seed_same_file_of_wan_22(file_22, tmp_path):
    assert write_tiny_wan22_vae(tmp_path / "again.safetensors").read_bytes() == file_22.read_bytes()
    assert write_tiny_wan22_vae(tmp_path / "other.safetensors", seed=1).read_bytes() != file_22.read_bytes()


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((4, 32, 48, 3), "4 frames and needs 4n\\+1"),
        ((0, 32, 48, 3), "0 frames"),
        ((5, 32, 40, 3), "40x32 pictures and needs multiples of 16"),
        ((5, 32, 48, 4), "needs \\[F, H, W, 3\\]"),
    ],
)
def test_wrong_pictures(vae, shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        vae.encode(torch.zeros(shape))


def test_wan_22_needs_larger_steps(vae_22):
    with pytest.raises(ValueError, match="80x64 pictures and needs multiples of 32"):
        vae_22.encode(pictures(1, 64, 80))


def test_wrong_latents(vae, vae_22):
    with pytest.raises(ValueError, match="needs \\[16, T, h, w\\]"):
        vae.decode(torch.zeros(48, 2, 4, 6))
    with pytest.raises(ValueError, match="needs \\[48, T, h, w\\]"):
        vae_22.decode(torch.zeros(16, 2, 4, 6))


def test_the_other_vae_is_refused_by_name(file, file_22):
    assert load_vae(file, channels=16).channels == 16 and load_vae(file_22, channels=48).channels == 48
    with pytest.raises(ValueError, match="is a Wan 2.2 VAE, of 48 .* 16 are needed: give .*wan_2.1_vae.safetensors"):
        load_vae(file_22, channels=16)
    with pytest.raises(ValueError, match="is a Wan 2.1 VAE, of 16 .* 48 are needed: give .*wan2.2_vae.safetensors"):
        load_vae(file, channels=48)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_vae(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_file(file, tmp_path, keep):
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="'cut.safetensors' is (truncated|no safetensors)"):
        load_vae(tmp_path / "cut.safetensors")


def spoil(file, tmp_path, change):
    state = load_file(file)
    change(state)
    save_file(state, tmp_path / "spoilt.safetensors")
    return tmp_path / "spoilt.safetensors"


def widen_latents(state):
    state["conv2.weight"] = torch.zeros(32, 32, 1, 1, 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("decoder.middle.0.residual.0.gamma"), "is not a Wan VAE"),
        (lambda state: state.pop("decoder.upsamples.4.shortcut.weight"), "lacks 1 tensors, first decoder.up_blocks.1"),
        (
            lambda state: state.update({"decoder.head.2.bias": torch.zeros(4)}),
            "conv_out.bias of shape \\[4\\], not \\[3",
        ),
        (lambda state: state["encoder.conv1.bias"].fill_(float("nan")), "not finite .*encoder.conv_in.bias"),
        (widen_latents, "of shape \\[32, 32, 1, 1, 1\\], not \\[16, 16.*wan_2.1_vae.safetensors"),
    ],
)
def test_wrong_files(file, tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_vae(spoil(file, tmp_path, change))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("decoder.middle.0.residual.0.gamma"), "is not a Wan VAE"),
        (
            lambda state: state.pop("encoder.downsamples.1.downsamples.2.time_conv.bias"),
            "lacks 1 tensors, first encoder.down_blocks.1.downsampler.time_conv.bias",
        ),
        (
            lambda state: state.update({"decoder.head.2.bias": torch.zeros(3)}),
            "conv_out.bias of shape \\[3\\], not \\[12\\]: give the Wan 2.2 VAE, wan2.2_vae.safetensors",
        ),
        (lambda state: state["decoder.conv1.weight"].fill_(float("inf")), "not finite .*decoder.conv_in.weight"),
    ],
)
def test_wrong_files_of_wan_22(file_22, tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_vae(spoil(file_22, tmp_path, change))


def test_further_tensors_do_no_harm(file, tmp_path):
    load_vae(spoil(file, tmp_path, lambda state: state.update(note=torch.zeros(1))))


def test_which_vae_is_told_from_names_alone(vae, file, vae_22, file_22):
    assert looks_like_vae(load_file(file)) == looks_like_vae(iter(vae.model.state_dict())) == "2.1"
    assert looks_like_vae(load_file(file_22)) == looks_like_vae(iter(vae_22.model.state_dict())) == "2.2"
    assert not looks_like_vae(["encoder.conv1.weight", "blocks.0.self_attn.q.weight"]) and not looks_like_vae([])
    assert detect(file).line == "Wan 2.1 VAE" and detect(file_22).line == "Wan 2.2 VAE"


def test_without_diffusers(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match="needs diffusers outside ComfyUI: pip install"):
        load_vae(file)

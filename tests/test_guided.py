"""Guided upsampling: small layers with the plate's edges, better than bilinear, and true to what they came from."""

import pytest
import torch

from comfyui_strata.imaging.colour import linear_to_srgb, srgb_to_linear
from comfyui_strata.imaging.encodings.normal_maps import decode_normals, encode_normals
from comfyui_strata.imaging.sizes.guided import _local_lines, albedo_by_ratio, guided_upsample, inconsistency
from comfyui_strata.imaging.sizes.plate_size import GUIDED, RATIO, layers_at_plate_size
from comfyui_strata.training.scenes import render

SEEDS = (0, 4, 9)
SCALE = 4


def nothing():
    pass


def shrunk(image):
    """[F, H, W, C] by the mean of 4x4 pixels, as a network's input is made."""
    return torch.nn.functional.avg_pool2d(image.movedim(-1, 1), SCALE).movedim(1, -1)


def bilinear(image, like):
    return torch.nn.functional.interpolate(
        image.movedim(-1, 1), size=like.shape[1:3], mode="bilinear").movedim(1, -1)  # fmt: skip


def rms(made, wanted):
    return float((made - wanted).square().mean().sqrt())


def degrees(codes, wanted):
    cosine = (decode_normals(codes) * decode_normals(wanted)).sum(-1).clamp(-1, 1)
    return float(cosine.acos().rad2deg().mean())


@pytest.fixture(scope="module", params=SEEDS)
def shot(request):
    """A grainy plate and its exact layers, and the film exposure with its alpha."""
    shot = render(request.param, 1, 96, 128, antialias=2, film_samples=16)
    grain = 0.01 * torch.randn(shot.rgb.shape, generator=torch.Generator().manual_seed(request.param))
    light = linear_to_srgb(shot.irradiance)
    layers = {"normal": encode_normals(shot.normal), "irradiance": light, "albedo": shot.albedo}
    return shot.rgb + grain, layers, shot.plate.plate + grain, shot.plate.alpha


def test_guided_beats_bilinear_by_far(shot):
    plate, layers, film, alpha = shot
    small = {name: shrunk(layer) for name, layer in layers.items()}
    made, _ = layers_at_plate_size(
        plate, small, albedo_by=GUIDED, radius=1, grain=0.01, linear=False, after_frame=nothing)  # fmt: skip
    for name in ("albedo", "irradiance"):
        assert rms(made[name], layers[name]) < 0.65 * rms(bilinear(small[name], plate), layers[name]), name
    assert degrees(made["normal"], layers["normal"]) < 0.8 * degrees(bilinear(small["normal"], plate), layers["normal"])
    by_ratio, _ = layers_at_plate_size(
        plate, small, albedo_by=RATIO, radius=1, grain=0.01, linear=False, after_frame=nothing)  # fmt: skip
    assert rms(by_ratio["albedo"], layers["albedo"]) < 0.75 * rms(bilinear(small["albedo"], plate), layers["albedo"])
    small = {"alpha": shrunk(alpha)}
    matte, _ = layers_at_plate_size(
        film, small, albedo_by=RATIO, radius=1, grain=0.01, linear=False, after_frame=nothing)  # fmt: skip
    assert rms(matte["alpha"], alpha) < 0.65 * rms(bilinear(small["alpha"], plate), alpha)


def test_the_results_are_layers_and_true_to_the_small_ones(shot):
    plate, layers, film, alpha = shot
    small = {name: shrunk(layer) for name, layer in {**layers, "alpha": alpha}.items()}
    made, missed = layers_at_plate_size(
        film, small, albedo_by=GUIDED, radius=1, grain=0.01, linear=False, after_frame=nothing)  # fmt: skip
    assert list(missed) == list(small)
    for name, layer in made.items():
        error = rms(shrunk(layer), small[name])
        assert missed[name] == pytest.approx(error, rel=1e-4) and error < 0.02, name
        assert layer.min() >= 0
    assert made["alpha"].max() <= 1 and made["albedo"].max() <= 1
    torch.testing.assert_close((2 * made["normal"] - 1).norm(dim=-1), torch.ones(1, 96, 128))


def test_the_ratio_albedo_and_irradiance_are_the_plate(shot):
    plate, layers, *_ = shot
    small = {"irradiance": shrunk(layers["irradiance"])}
    made, missed = layers_at_plate_size(
        plate, small, albedo_by=RATIO, radius=1, grain=0.01, linear=False, after_frame=nothing)  # fmt: skip
    assert list(made) == ["irradiance", "albedo"] and list(missed) == ["irradiance"]
    product = srgb_to_linear(made["albedo"]) * srgb_to_linear(made["irradiance"])
    possible = (made["albedo"] > 0) & (made["albedo"] < 0.999) & (srgb_to_linear(made["irradiance"]) > 1e-3)
    assert possible.float().mean() > 0.9
    torch.testing.assert_close(product[possible], srgb_to_linear(plate)[possible], atol=1e-5, rtol=1e-4)


def test_linear_pictures_give_the_same_layers(shot):
    plate, layers, *_ = shot
    small = {name: shrunk(layer) for name, layer in layers.items()}
    how = {"albedo_by": RATIO, "radius": 1, "grain": 0.01, "after_frame": nothing}
    coded, missed = layers_at_plate_size(plate, small, linear=False, **how)
    linear = {name: layer if name == "normal" else srgb_to_linear(layer) for name, layer in small.items()}
    made, again = layers_at_plate_size(srgb_to_linear(plate), linear, linear=True, **how)
    assert again == pytest.approx(missed, rel=1e-2)
    for name in ("albedo", "irradiance"):
        torch.testing.assert_close(linear_to_srgb(made[name]), coded[name], atol=1e-3, rtol=0)
    torch.testing.assert_close(made["normal"], coded["normal"], atol=5e-3, rtol=0)


def test_the_local_lines_are_those_of_ridge_regression():
    """The filter's a and b, before they are averaged, are the least squares of every window (He et al., eq. 4)."""
    generator = torch.Generator().manual_seed(0)
    guide, layer = torch.rand(3, 7, 8, generator=generator), torch.rand(2, 7, 8, generator=generator)
    noise, slopes, offsets = 0.01, torch.zeros(2, 3, 7, 8), torch.zeros(2, 7, 8)
    for row in range(7):
        for column in range(8):
            window = (slice(None), slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2))
            x, y = guide[window].flatten(1).T, layer[window].flatten(1).T  # [n, 3], [n, 2]
            count = len(x)
            design = torch.cat([x, torch.ones(count, 1)], 1)
            ridge = torch.diag(torch.tensor([noise * count] * 3 + [0.0]))
            answer = torch.linalg.solve(design.T @ design + ridge, design.T @ y)  # [4, 2]
            slopes[:, :, row, column], offsets[:, row, column] = answer[:3].T, answer[3]
    slope, offset = _local_lines(guide, layer, 1, noise)

    def mean(planes, row, column):
        return planes[..., max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].mean((-1, -2))

    for row, column in ((0, 0), (3, 4), (6, 7), (2, 0)):
        torch.testing.assert_close(slope[..., row, column], mean(slopes, row, column), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(offset[..., row, column], mean(offsets, row, column), atol=1e-4, rtol=1e-3)


def test_what_is_linear_in_the_plate_comes_back_exactly():
    guide = torch.rand(24, 32, 3, generator=torch.Generator().manual_seed(4))
    layer = guide @ torch.tensor([[0.3, 1.0], [0.5, -0.4], [-0.2, 0.1]]) + 0.2
    made = guided_upsample(shrunk(layer[None])[0], guide, radius=2, grain=1e-4)
    torch.testing.assert_close(made, layer, atol=2e-3, rtol=0)
    assert inconsistency(made, shrunk(layer[None])[0]) < 1e-3


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (24, 32)])
def test_any_smaller_size_goes_and_a_constant_stays(size):
    guide = torch.rand(24, 32, 3, generator=torch.Generator().manual_seed(4))
    made = guided_upsample(torch.full((*size, 1), 0.3), guide)
    torch.testing.assert_close(made, torch.full((24, 32, 1), 0.3), atol=1e-4, rtol=0)


def test_a_ratio_in_the_dark_is_cut():
    plate, light = torch.tensor([0.4, 0.4, 0.0, -0.1]), torch.tensor([0.8, 0.0, 0.0, 0.5])
    torch.testing.assert_close(albedo_by_ratio(plate, light), torch.tensor([0.5, 1.0, 0.0, 0.0]))


def test_a_still_layer_goes_with_a_clip():
    plate = torch.rand(3, 8, 8, 3, generator=torch.Generator().manual_seed(1))
    done = []
    made, missed = layers_at_plate_size(
        plate, {"alpha": torch.ones(1, 2, 2, 1)}, albedo_by=RATIO, radius=1, grain=0.01, linear=False,
        after_frame=lambda: done.append(1))  # fmt: skip
    assert made["alpha"].shape == (3, 8, 8, 1) and len(done) == 3 and missed["alpha"] < 1e-5


@pytest.mark.parametrize(
    "layers, message",
    [({}, "No layer is given"), ({"albedo": torch.ones(2, 4, 4, 3)}, "no irradiance is given"),
     ({"alpha": torch.ones(2, 9, 4, 1)}, "4x9, larger than the plate's 8x8"),
     ({"normal": torch.ones(3, 4, 4, 3)}, "has 3 frames, the plate 2"),
     ({"normal": torch.full((2, 4, 4, 3), torch.nan)}, "normal has NaN")],
)  # fmt: skip
def test_what_cannot_be_enlarged_is_refused_in_one_sentence(layers, message):
    with pytest.raises(ValueError, match=message) as caught:
        layers_at_plate_size(torch.ones(2, 8, 8, 3), layers, albedo_by=RATIO, radius=1, grain=0.01, linear=False,
                             after_frame=nothing)  # fmt: skip
    assert "\n" not in str(caught.value)

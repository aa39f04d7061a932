"""Harmonics, microfacets, colour temperature, cameras and normals against slow and independent versions."""

import math

import pytest
import torch

from comfyui_strata.imaging.encodings.normal_maps import (
    decode_normals,
    encode_normals,
    renormalise,
    resize_normals,
    rotate_normals,
    turn_green,
)
from comfyui_strata.imaging.light.camera import pixel_rays, rotation
from comfyui_strata.imaging.light.colour_temperature import black_body, black_body_xy
from comfyui_strata.imaging.light.ggx import ggx
from comfyui_strata.imaging.light.spherical_harmonics import environment_light, irradiance_from, latlong_directions


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed)), dim=-1)


# ---- environments ----------------------------------------------------------------------------------------------------


def integrated(picture, normals):
    """Irradiance over pi by summing every pixel's cosine and solid angle."""
    height, width = picture.shape[:2]
    directions = latlong_directions(height, width).double()
    angle = math.pi / height * 2 * math.pi / width * directions[..., 1].square().neg().add(1).sqrt()  # cos(latitude)
    cosine = torch.einsum("hwc,nc->nhw", directions, normals.double()).clamp_min(0)
    return torch.einsum("nhw,hw,hwc->nc", cosine, angle, picture.double()).float() / math.pi


def test_a_constant_environment_lights_all_alike():
    level = torch.tensor([0.2, 1.0, 7.0])
    harmonics = environment_light(level.expand(64, 128, 3), rotation(30, 20, 10))
    torch.testing.assert_close(irradiance_from(harmonics, unit(50)), level.expand(50, 3), rtol=3e-4, atol=0)


def test_a_smooth_environment_is_exact():
    """What is of order 2 or less loses nothing to harmonics of order 2."""
    x, y, z = latlong_directions(64, 128).unbind(-1)
    picture = torch.stack([1.2 + x - 0.3 * y, 2 + x * y - z * z, 1.5 + 0.5 * z + y * z + x * x], -1)
    normals = unit(200)
    made = irradiance_from(environment_light(picture, torch.eye(3)), normals)
    torch.testing.assert_close(made, integrated(picture, normals).clamp_min(0), atol=2e-3, rtol=0)


def test_a_single_direction_is_within_the_known_bound():
    """The clamped cosine is 1/4 + c/2 + 5/32 (3c^2 - 1) to order 2: at most 3/32 of the light's strength off."""
    picture = torch.zeros(64, 128, 3)
    picture[20, 90] = 500.0
    towards = latlong_directions(64, 128)[20, 90]
    normals = unit(400)
    made = irradiance_from(environment_light(picture, torch.eye(3)), normals)
    strength = integrated(picture, towards[None])
    cosine = normals @ towards
    series = (0.25 + cosine / 2 + 5 / 32 * (3 * cosine**2 - 1)).clamp_min(0)
    torch.testing.assert_close(made / strength, series[:, None].expand(-1, 3), atol=2e-3, rtol=0)
    off = (made - integrated(picture, normals)).abs() / strength
    assert 0.09 < off.max() < 3 / 32 + 2e-3


def test_light_comes_from_where_the_picture_shows_it():
    """The middle of a panorama is before the camera, its right half to the right, its top above."""
    for row, column, towards in ((16, 32, (0, 0, -1)), (16, 48, (1, 0, 0)), (16, 16, (-1, 0, 0)), (0, 5, (0, 1, 0))):
        picture = torch.zeros(32, 64, 3)
        picture[row, column] = 1.0
        harmonics = environment_light(picture, torch.eye(3))
        axes = torch.cat([torch.eye(3), -torch.eye(3)])
        brightest = axes[irradiance_from(harmonics, axes)[:, 0].argmax()]
        assert brightest.tolist() == list(map(float, towards))


def test_a_turned_environment_lights_turned_surfaces():
    picture = torch.rand(16, 32, 3, generator=torch.Generator().manual_seed(1))
    turn, normals = rotation(40, -25, 70), unit(60)
    turned = irradiance_from(environment_light(picture, turn), normals @ turn.T)
    torch.testing.assert_close(turned, irradiance_from(environment_light(picture, torch.eye(3)), normals))
    # pan moves the middle to the left, tilt moves it up
    for angles, towards in (((90, 0, 0), (-1, 0, 0)), ((0, 90, 0), (0, 1, 0))):
        torch.testing.assert_close(rotation(*angles) @ torch.tensor([0.0, 0.0, -1.0]), torch.tensor(towards).float())


# ---- microfacets -----------------------------------------------------------------------------------------------------


def slow_ggx(n, light, v, roughness, reflectance):
    """Walter et al. 2007, eq. 20, 33 and 34 as they stand there, with angles, in Python's doubles."""
    n, light, v = (vector.double() for vector in (n, light, v))
    half = (light + v) / (light + v).norm()
    alpha = roughness**2
    if n @ light <= 0 or n @ v <= 0:
        return 0.0
    tangent2 = 1 / float(n @ half) ** 2 - 1
    d = alpha**2 / (math.pi * float(n @ half) ** 4 * (alpha**2 + tangent2) ** 2)
    g = 1.0
    for way in (light, v):
        g *= 2 / (1 + math.sqrt(1 + alpha**2 * (1 / float(n @ way) ** 2 - 1)))
    f = reflectance + (1 - reflectance) * (1 - float(v @ half)) ** 5
    return d * f * g / (4 * float(n @ light) * float(n @ v))


@pytest.mark.parametrize("roughness", [0.1, 0.4, 1.0])
def test_ggx_is_the_papers(roughness):
    n, light, v = unit(60, seed=1), unit(60, seed=2), unit(60, seed=3)
    made = ggx(n, light, v, roughness, 0.2)[:, 0].double()
    slow = torch.tensor([slow_ggx(*three, roughness, 0.2) for three in zip(n, light, v)], dtype=torch.double)
    assert (slow > 0).sum() > 5 and (slow == 0).sum() > 5
    torch.testing.assert_close(made, slow, rtol=1e-3, atol=1e-6)


def hemisphere(count=512):
    """Directions above +Z on a grid, and their solid angle times cosine."""
    # The square of the sine, even: each direction stands for as much of the projected hemisphere, pi in all.
    square = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    around = (torch.arange(2 * count, dtype=torch.float64) + 0.5) / count * math.pi
    square, around = torch.meshgrid(square, around, indexing="ij")
    sine = square.sqrt()
    ways = torch.stack([sine * around.cos(), sine * around.sin(), (1 - square).sqrt()], -1).flatten(0, 1)
    return ways.float(), math.pi / len(ways)


@pytest.mark.parametrize("degrees", [0, 45, 80])
def test_ggx_never_gives_more_light_than_it_takes(degrees):
    ways, share = hemisphere()
    normal = torch.tensor([0.0, 0.0, 1.0])
    view = torch.tensor([math.sin(math.radians(degrees)), 0.0, math.cos(math.radians(degrees))])
    mirrored = {}
    for roughness in (0.3, 0.6, 1.0):
        lobe = ggx(normal.expand_as(ways), ways, view.expand_as(ways), roughness, 1.0)[:, 0].double()
        mirrored[roughness] = float(lobe.sum() * share)
        assert 0.3 < mirrored[roughness] < 1.005
    assert mirrored[0.3] > mirrored[1.0]  # one bounce: rougher surfaces lose more
    if degrees == 0:
        assert mirrored[0.3] > 0.97


def test_ggx_is_the_same_both_ways():
    n, light, v = unit(200, seed=1), unit(200, seed=2), unit(200, seed=3)
    torch.testing.assert_close(ggx(n, light, v, 0.4, 0.1), ggx(n, v, light, 0.4, 0.1), rtol=1e-4, atol=1e-7)


def test_a_smooth_highlight_is_sharp_where_it_mirrors():
    ways, _ = hemisphere(64)
    normal = torch.tensor([0.0, 0.0, 1.0]).expand_as(ways)
    view = torch.nn.functional.normalize(torch.tensor([-0.6, 0.0, 0.8]), dim=0).expand_as(ways)
    brightest = ways[ggx(normal, ways, view, 0.15, 0.04)[:, 0].argmax()]
    assert (brightest - torch.tensor([0.6, 0.0, 0.8])).norm() < 0.06
    assert ggx(normal, ways, view, 0.0, 0.04).isfinite().all()


# ---- colour temperature ----------------------------------------------------------------------------------------------

# CIE 1931 chromaticities of Planck's law, from Wyszecki & Stiles' tables.
PLANCK = {2000: (0.5267, 0.4133), 2856: (0.4476, 0.4074), 4000: (0.3805, 0.3768), 5000: (0.3451, 0.3516),
          6500: (0.3135, 0.3237), 10000: (0.2807, 0.2884)}  # fmt: skip


@pytest.mark.parametrize("kelvin", PLANCK)
def test_a_black_body_has_plancks_colour(kelvin):
    assert black_body_xy(kelvin) == pytest.approx(PLANCK[kelvin], abs=1.5e-3)


def test_temperatures_change_the_colour_and_not_the_brightness():
    weights = torch.tensor([0.2126, 0.7152, 0.0722])
    for kelvin in (2500, 4000, 6500, 12000):
        assert float(black_body(kelvin) @ weights) == pytest.approx(1, abs=2e-3)
    red, _, blue = black_body(2500).tolist()
    assert red > 2 > 0.3 > blue
    assert (black_body(6500) - 1).abs().max() < 0.05
    blue_sky = black_body(20000)
    assert blue_sky[2] > 1.5 * blue_sky[0]
    assert black_body(1700).min() == 0  # beyond Rec.709
    curve = torch.stack([black_body(kelvin) for kelvin in range(1700, 25000, 10)])
    assert curve.diff(dim=0).abs().max() < 0.03  # the pieces of the fit meet


@pytest.mark.parametrize("kelvin", [0, 1000, 1e5])
def test_a_temperature_without_a_colour_is_refused(kelvin):
    with pytest.raises(ValueError, match="but 1667 to 25000 K is needed"):
        black_body(kelvin)


# ---- cameras and normals ---------------------------------------------------------------------------------------------


def test_rays_span_the_field_of_view():
    rays = pixel_rays(20, 40, 90.0)
    assert torch.equal(rays[..., 2], -torch.ones(20, 40))
    step = 2 / 40
    torch.testing.assert_close(rays[0, :, 0], (torch.arange(40) + 0.5) * step - 1)
    torch.testing.assert_close(rays[:, 0, 1], 0.5 - (torch.arange(20) + 0.5) * step)
    assert torch.equal(pixel_rays(20, 40, 90.0, slice(7, 11)), rays[7:11])


@pytest.mark.parametrize("angle", [0.0, 180.0, -20.0])
def test_an_impossible_field_of_view_is_refused(angle):
    with pytest.raises(ValueError, match="more than 0 and less than 180"):
        pixel_rays(4, 4, angle)


def test_normals_come_back_from_pictures():
    normals = unit(500)
    torch.testing.assert_close(decode_normals(encode_normals(normals)), normals)
    eight_bits = (encode_normals(normals) * 255).round() / 255
    angle = torch.rad2deg(2 * ((decode_normals(eight_bits) - normals).norm(dim=-1) / 2).asin())
    assert angle.max() < 0.4
    assert not decode_normals(torch.tensor([[0.5, 0.5, 0.5], [128 / 255] * 3, [127 / 255] * 3])).any()


def test_directx_is_opengl_with_green_turned():
    up = torch.tensor([0.5, 1.0, 0.5])
    torch.testing.assert_close(encode_normals(turn_green(decode_normals(up))), torch.tensor([0.5, 0.0, 0.5]))
    normals = unit(10)
    assert torch.equal(turn_green(turn_green(normals)), normals)


def test_world_normals_of_a_camera_that_looks_down_and_left():
    facing_us = torch.tensor([[0.0, 0.0, 1.0]])
    looks_down = rotate_normals(facing_us, rotation(0, -90, 0))
    torch.testing.assert_close(looks_down, torch.tensor([[0.0, 1.0, 0.0]]), atol=1e-6, rtol=0)  # it sees a floor
    looks_left = rotate_normals(facing_us, rotation(90, 0, 0))
    torch.testing.assert_close(looks_left, torch.tensor([[1.0, 0.0, 0.0]]), atol=1e-6, rtol=0)
    rolled = rotate_normals(torch.tensor([[1.0, 0.0, 0.0]]), rotation(0, 0, 90))
    torch.testing.assert_close(rolled, torch.tensor([[0.0, 1.0, 0.0]]), atol=1e-6, rtol=0)
    turn, normals = rotation(12, 34, 56), unit(20)
    torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(rotate_normals(rotate_normals(normals, turn), turn.T), normals)


def test_resized_normals_are_unit_again():
    normals = unit(1, 8, 10)
    for size in ((5, 4), (16, 31)):
        resized = resize_normals(normals, *size)
        assert resized.shape == (1, *size, 3)
        torch.testing.assert_close(resized.norm(dim=-1), torch.ones(1, *size))
    assert not renormalise(torch.zeros(2, 3)).any()
    flat = unit(1).expand(1, 6, 6, 3)
    torch.testing.assert_close(resize_normals(flat, 3, 9), flat[:, :1, :1].expand(1, 3, 9, 3))

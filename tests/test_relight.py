"""New light on exact shots: what we light anew is what a renderer makes of the same lights."""

import dataclasses
import math

import pytest
import torch

from comfyui_strata.imaging.colour import linear_to_srgb, srgb_to_linear
from comfyui_strata.imaging.encodings.normal_maps import decode_normals, encode_normals
from comfyui_strata.imaging.light.camera import pixel_rays
from comfyui_strata.imaging.light.lights import DirectionalLight, EnvironmentLight, PointLight, SpotLight
from comfyui_strata.imaging.light.relight import Gloss, Relight, limited_ratio, relight_clip
from comfyui_strata.imaging.light.spherical_harmonics import environment_light, latlong_directions
from comfyui_strata.training import scenes
from comfyui_strata.training.rendering.lights import Sun
from comfyui_strata.training.rendering.staging import stage

SEEDS = (0, 4, 9, 17)  # a sun in a field, lamps in rooms, one and two lights
SIZE = (1, 48, 64)
SUN = DirectionalLight((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))


def same(pixels):
    return pixels


def nothing():
    pass


def psnr(made, wanted):
    """Of sRGB code values, with 1 as the peak."""
    difference = linear_to_srgb(made) - linear_to_srgb(wanted)
    return -10 * math.log10(float(difference.square().mean()) + 1e-12)


@pytest.fixture
def taken(monkeypatch):
    """Renders a seed without shadows: (shot, gain); with the gain of an earlier shot, or another scene, where given."""

    def take(seed, scene=None, gain=None):
        found = []
        own = scenes._gain
        with monkeypatch.context() as patch:
            patch.setattr(scenes, "_gain", lambda *a: found.append(own(*a) if gain is None else gain) or found[0])
            if scene is not None:
                patch.setattr(scenes, "stage", lambda *a: scene)
            shot = scenes.render(seed, *SIZE, film_samples=0, shadows=False)
        return shot, found[0]

    return take


def true_lights(scene, shot, gain):
    """The scene's lights as ours, in the camera of the shot's only frame."""
    world = scene.at(torch.zeros(1))
    to_camera = shot.view[0].T
    lights = []
    for source in world.lights:
        colour = tuple((gain * source.colour).tolist())
        if isinstance(source, Sun):
            lights.append(DirectionalLight(colour, tuple((to_camera @ source.towards[0]).tolist())))
        else:
            place = to_camera @ (source.position[0] - shot.eye[0])
            lights.append(PointLight(colour, tuple(place.tolist()), radius=source.radius))
    # Irradiance over pi that is linear in the normal's height is that of a radiance so too, 3/2 as steep.
    up = latlong_directions(64, 128)[..., 1:2]
    level, slope = (world.sky.above + world.sky.below) / 2, (world.sky.above - world.sky.below) / 2
    dome = environment_light(gain * (level + 1.5 * slope * up), to_camera)
    return (*lights, EnvironmentLight((1.0, 1.0, 1.0), dome))


def field_of_view(shot):
    return 2 * math.degrees(math.atan(SIZE[2] / 2 / shot.focal))


def surfaces(shot):
    """Where something stands, not sky."""
    return (shot.depth < 59).expand_as(shot.normal) & (shot.irradiance != 1)


def eight_bits(x):
    return (x * 255).round() / 255


def relit(shot, lights, layers, **how):
    relight = Relight(lights, field_of_view(shot), **how)
    return relight_clip(relight, {"normal": shot.normal, "depth": shot.depth, **layers}, {}, same, nothing)[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_true_lights_make_the_rendered_frame(taken, seed):
    shot, gain = taken(seed)
    lights = true_lights(stage(seed), shot, gain)
    there = surfaces(shot)
    assert there.float().mean() > 0.3
    made = relit(shot, lights, {"albedo": shot.albedo_linear})
    assert psnr(made[there], shot.rgb_linear[there]) > 60
    torch.testing.assert_close(made[there], shot.rgb_linear[there], atol=2e-3, rtol=0)
    # As pictures: eight bits of albedo and normal
    albedo = srgb_to_linear(eight_bits(linear_to_srgb(shot.albedo_linear)))
    normal = decode_normals(eight_bits(encode_normals(shot.normal)))
    made = relit(shot, lights, {"albedo": albedo, "normal": normal})
    assert psnr(made[there], shot.rgb_linear[there]) > 40


@pytest.mark.parametrize("seed", SEEDS)
def test_a_changed_light_makes_what_a_new_rendering_does(taken, seed):
    """The plate times new over old light, and albedo times new light, against the scene rendered with that light."""
    shot, gain = taken(seed)
    scene = stage(seed)
    plans = tuple(dataclasses.replace(plan, turn=plan.turn + 0.9, height=0.8 * plan.height, tint="warm", rate=0.0)
                  for plan in scene.lights)  # fmt: skip
    changed = dataclasses.replace(scene, lights=plans)
    wanted, _ = taken(seed, changed, gain)
    lights = true_lights(changed, shot, gain)
    there = surfaces(shot)
    assert psnr(wanted.rgb_linear[there], shot.rgb_linear[there]) < 30  # it is another light
    by_albedo = relit(shot, lights, {"albedo": shot.albedo_linear})
    by_ratio = relit(shot, lights, {"plate": shot.rgb_linear, "irradiance": shot.irradiance}, limit=10.0)
    for made in (by_albedo, by_ratio):
        assert psnr(made[there], wanted.rgb_linear[there]) > 50
    coded = {
        "plate": srgb_to_linear(eight_bits(shot.rgb)),
        "normal": decode_normals(eight_bits(encode_normals(shot.normal))),
        "irradiance": srgb_to_linear(eight_bits(linear_to_srgb(shot.irradiance))),
    }
    assert psnr(relit(shot, lights, coded, limit=4.0)[there], wanted.rgb_linear[there]) > 35


# ---- one light on one wall -------------------------------------------------------------------------------------------


def wall(distance=2.0, size=33):
    """Layers of a white wall that faces the camera."""
    flat = torch.ones(1, size, size, 1)
    normal = flat * torch.tensor([0.0, 0.0, 1.0])
    return {"albedo": flat.expand(1, size, size, 3), "normal": normal, "depth": distance * flat}


def lit(light, layers=None, **how):
    return relight_clip(Relight((light,), 60.0, **how), layers or wall(), {}, same, nothing)[0][0]


def test_strength_is_what_a_white_card_shows():
    sun = DirectionalLight((0.7, 0.5, 0.2), (0.0, 0.0, 5.0))
    torch.testing.assert_close(lit(sun), torch.tensor([0.7, 0.5, 0.2]).expand(33, 33, 3))
    at_one_metre = PointLight((0.7, 0.5, 0.2), (0.0, 0.0, -1.0))
    torch.testing.assert_close(lit(at_one_metre)[16, 16], torch.tensor([0.7, 0.5, 0.2]))


@pytest.mark.parametrize("falloff, expected", [(2.0, 1 / 4), (1.0, 1 / 2), (0.0, 1.0)])
def test_light_fades_by_the_power_of_its_falloff(falloff, expected):
    lamp = PointLight((1.0, 1.0, 1.0), (0.0, 0.0, -1.0), falloff=falloff)
    middle = lit(lamp, wall(distance=3.0))[16, 16, 0]
    assert float(middle) == pytest.approx(expected, rel=1e-5)


def test_a_lamp_off_the_axis_against_a_slow_version():
    lamp, size = PointLight((1.0, 1.0, 1.0), (0.4, -0.3, -0.8), radius=0.2), 9
    made = lit(lamp, wall(size=size))
    focal = size / 2 / math.tan(math.radians(30))
    for row in range(size):
        for column in range(size):
            x, y = (column + 0.5 - size / 2) / focal * 2, (size / 2 - row - 0.5) / focal * 2
            square = (0.4 - x) ** 2 + (-0.3 - y) ** 2 + 1.2**2
            assert float(made[row, column, 0]) == pytest.approx(1.2 / math.sqrt(square) / (square + 0.04), rel=1e-4)


def test_a_spot_light_lights_its_cone_and_nothing_else():
    spot = SpotLight((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, -1.0), 30.0, 0.5, falloff=0.0)
    made = lit(spot)[..., 0]
    rays = pixel_rays(33, 33, 60.0)
    angle = torch.rad2deg((1 / rays.norm(dim=-1)).acos())
    facing = 1 / rays.norm(dim=-1)
    torch.testing.assert_close(made[angle < 7.5], facing[angle < 7.5])
    assert not made[angle > 15].any()
    soft = made[(angle > 8) & (angle < 14.5)] / facing[(angle > 8) & (angle < 14.5)]
    assert soft.min() > 0 and soft.max() < 1 and len(soft) > 50
    hard = lit(dataclasses.replace(spot, penumbra=0.0))[..., 0]
    torch.testing.assert_close(hard, torch.where(angle < 15, facing, 0.0))


def test_a_spot_aims_at_its_target():
    rays = pixel_rays(33, 33, 60.0)
    target = 2 * rays[5, 25]
    made = lit(SpotLight((1.0,) * 3, (0.1, 0.0, 0.0), tuple(target.tolist()), 5.0, 0.0))[..., 0]
    rows, columns = made.nonzero().T
    assert (rows.float().mean() - 5).abs() < 1 and (columns.float().mean() - 25).abs() < 1


def test_a_light_from_behind_lights_nothing():
    assert not lit(DirectionalLight((1.0,) * 3, (0.0, 0.0, -1.0)), gloss=Gloss()).any()


def test_a_lights_mask_paints_its_shadow_frame_by_frame():
    half = torch.zeros(2, 33, 33)
    half[0, :, :10] = 1
    half[1, :, 20:] = 0.5
    made = relight_clip(Relight((dataclasses.replace(SUN, mask=half), SUN)), wall(), {}, same, nothing)[0]
    torch.testing.assert_close(made, 1 + half[..., None].expand(2, 33, 33, 3))


# ---- the picture -----------------------------------------------------------------------------------------------------


def layers_of(generator, frames=2, height=7, width=9):
    pictures = {name: torch.rand(frames, height, width, 3, generator=generator)
                for name in ("albedo", "irradiance", "residual", "plate")}  # fmt: skip
    normal = torch.randn(frames, height, width, 3, generator=generator)
    return {**pictures, "normal": torch.nn.functional.normalize(normal, dim=-1)}


@pytest.fixture
def layers():
    return layers_of(torch.Generator().manual_seed(3))


def test_residual_and_kept_light_are_added(layers):
    light = layers["normal"][..., 2:].clamp_min(0)
    picture, irradiance, specular = relight_clip(
        Relight((SUN,), keep=0.5, residual=0.3), layers, {}, same, nothing)  # fmt: skip
    torch.testing.assert_close(irradiance, light + 0.5 * layers["irradiance"])
    torch.testing.assert_close(picture, layers["albedo"] * irradiance + 0.3 * layers["residual"])
    assert not specular.any()


def test_the_picture_is_its_parts(layers):
    picture, irradiance, specular = relight_clip(Relight((SUN,), gloss=Gloss(0.6, 0.5)), layers, {}, same, nothing)
    assert specular.max() > 0.05
    torch.testing.assert_close(picture, layers["albedo"] * irradiance + specular + layers["residual"])


def test_outside_the_mask_the_plate_stays(layers):
    mask = torch.zeros(2, 7, 9, 1)
    mask[:, :4] = 1
    picture, *_ = relight_clip(Relight((SUN,)), {**layers, "mask": mask}, {}, same, nothing)
    whole, *_ = relight_clip(Relight((SUN,)), layers, {}, same, nothing)
    torch.testing.assert_close(picture[:, :4], whole[:, :4])
    assert torch.equal(picture[:, 4:], layers["plate"][:, 4:])


def test_masks_beyond_zero_and_one_are_clamped(layers):
    wild = torch.cat([torch.full((2, 3, 9, 1), -4.0), torch.full((2, 4, 9, 1), 3.0)], 1)
    made = []
    for mask in (wild, wild.clamp(0, 1)):
        light = dataclasses.replace(SUN, mask=mask[..., 0])
        made.append(relight_clip(Relight((light,)), {**layers, "mask": mask}, {}, same, nothing))
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))
    assert torch.equal(made[0][0][:, :3], layers["plate"][:, :3])


def test_curves_are_undone_and_done(layers):
    coded = {name: linear_to_srgb(layer) for name, layer in layers.items()}
    coded["normal"] = encode_normals(layers["normal"])
    decode = {**dict.fromkeys(coded, srgb_to_linear), "normal": decode_normals}
    for how in ({}, {"limit": 2.0}):
        picture, *_ = relight_clip(Relight((SUN,), **how), coded, decode, linear_to_srgb, nothing)
        wanted, *_ = relight_clip(Relight((SUN,), **how), layers, {}, same, nothing)
        torch.testing.assert_close(srgb_to_linear(picture), wanted, atol=1e-4, rtol=1e-4)


def test_the_same_light_again_leaves_the_plate_alone(layers):
    layers["irradiance"] = (layers["normal"][..., 2:].clamp_min(0)).expand(2, 7, 9, 3)
    picture, *_ = relight_clip(Relight((SUN,), limit=3.0), layers, {}, same, nothing)
    there = layers["irradiance"] > 1e-3
    torch.testing.assert_close(picture[there], layers["plate"][there])


def test_the_ratio_is_limited_on_both_sides():
    new, old = torch.tensor([8.0, 0.01, 1.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 0.8, 0.0, -1.0])
    torch.testing.assert_close(limited_ratio(new, old, 2.0), torch.tensor([4.0, 0.25, 1.25, 0.25, 4.0]))


def test_highlights_above_one_and_negative_residuals_survive(layers):
    layers["residual"] = layers["residual"] - 3
    bright = DirectionalLight((50.0,) * 3, (0.0, 0.0, 1.0))
    picture, *_ = relight_clip(Relight((bright,)), layers, {}, same, nothing)
    assert picture.max() > 5 and picture.min() < -2


def test_bands_and_stills_leave_no_trace(layers, monkeypatch):
    lamp = PointLight((3.0, 2.0, 1.0), (0.2, 0.3, -1.0), mask=torch.rand(2, 7, 9))
    layers |= {"depth": 1 + torch.rand(1, 7, 9, 1), "albedo": layers["albedo"][:1]}
    how = Relight((lamp, SUN), gloss=Gloss(0.3, 0.2))
    whole = relight_clip(how, layers, {}, same, nothing)
    monkeypatch.setattr("comfyui_strata.imaging.frames._PIXELS", 20)
    done = []
    banded = relight_clip(how, layers, {}, same, lambda: done.append(1))
    assert len(done) == 2
    for a, b in zip(whole, banded, strict=True):
        torch.testing.assert_close(a, b)
    longer = {name: layer.expand(2, *layer.shape[1:]) for name, layer in layers.items()}
    torch.testing.assert_close(relight_clip(how, longer, {}, same, nothing)[0], whole[0])


def test_no_surface_gets_no_light(layers):
    layers["normal"][:, 0] = 0
    sky = EnvironmentLight((1.0,) * 3, environment_light(torch.ones(64, 128, 3), torch.eye(3)))
    _, irradiance, specular = relight_clip(Relight((SUN, sky), gloss=Gloss()), layers, {}, same, nothing)
    assert not irradiance[:, 0].any() and not specular[:, 0].any()
    wanted = (1 + layers["normal"][:, 1:, :, 2:].clamp_min(0)).expand(2, 6, 9, 3)
    torch.testing.assert_close(irradiance[:, 1:], wanted, atol=1e-3, rtol=0)


LAMP = PointLight((1.0,) * 3, (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    "how, change, message",
    [
        (Relight(()), {}, "no lights"),
        (Relight((SUN,)), {"albedo": None}, "No albedo is given"),
        (Relight((SUN,), limit=1.0), {"irradiance": None}, "No irradiance is given"),
        (Relight((SUN,), limit=1.0), {"plate": None}, "No plate is given"),
        (Relight((SUN,), keep=0.5), {"irradiance": None}, "No irradiance .* own light is kept"),
        (Relight((LAMP,)), {}, "No depth is given, but it is needed .a point or spot light has a place."),
        (Relight((LAMP,)), {"depth": torch.zeros(2, 7, 9, 1)}, "0 m or less"),
        (Relight((SUN,)), {"normal": None}, "No normal is given"),
        (Relight((SUN,)), {"plate": None, "mask": torch.ones(2, 7, 9, 1)}, "No plate .* outside the mask"),
        (Relight((SUN,)), {"albedo": torch.full((2, 7, 9, 3), torch.nan)}, "albedo has NaN"),
        (Relight((SUN,)), {"albedo": torch.ones(2, 8, 9, 3)}, "differ in size"),
        (Relight((SUN,)), {"albedo": torch.ones(3, 7, 9, 3)}, "differ in length"),
        (Relight((dataclasses.replace(SUN, mask=torch.ones(2, 5, 5)),)), {}, "differ in size .*mask of light 1 5x5"),
        (Relight((SUN,), field_of_view=180.0), {}, "field of view is 180"),
    ],
)  # fmt: skip
def test_what_cannot_be_lit_is_refused_in_one_sentence(layers, how, change, message):
    given = {name: layer for name, layer in {**layers, **change}.items() if layer is not None}
    with pytest.raises(ValueError, match=message) as caught:
        relight_clip(how, given, {}, same, nothing)
    assert "\n" not in str(caught.value)

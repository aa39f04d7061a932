"""The physics of synthetic shots: every layer is exact, and agrees with every other."""

import dataclasses
import math

import pytest
import torch

from comfyui_strata.training.pictures import pictures
from comfyui_strata.training.rendering.camera import camera_rays, pixel_grid, project
from comfyui_strata.training.rendering.captions import VOCABULARY, Facts, LightFact, ObjectFact, caption, words
from comfyui_strata.training.rendering.figures import JOINTS, Clothes, angles, figure, iuv
from comfyui_strata.training.rendering.film import over
from comfyui_strata.training.rendering.lights import Lamp, Sky, Sun, light
from comfyui_strata.training.rendering.motion import turn_x, turn_y, turn_z
from comfyui_strata.training.rendering.shapes import BOX, PLANE, ROUND, Part, distances, stack, trace
from comfyui_strata.training.rendering.staging import stage
from comfyui_strata.training.scenes import Shot, render

SEEDS = (0, 1, 4, 9, 17, 30)  # rooms, studios and fields; moving cameras and lights; one to four objects
_shots: dict[int, Shot] = {}


@pytest.fixture(params=SEEDS)
def shot(request) -> Shot:
    """A small shot of every seed, rendered once."""
    if request.param not in _shots:
        _shots[request.param] = render(request.param, 3, 48, 64)
    return _shots[request.param]


def points(shot: Shot) -> torch.Tensor:
    """World points [F, H*W, 3] of all pixels, from depth and camera alone."""
    frames, height, width = shot.depth.shape[:3]
    rays = camera_rays(pixel_grid(height, width), shot.focal, height, width)  # [3, P]
    camera = (rays / -rays[2] * shot.depth.view(frames, 1, -1)).transpose(1, 2)
    return camera @ shot.view.transpose(1, 2) + shot.eye[:, None]


def tensors(shot: Shot) -> dict[str, torch.Tensor]:
    both = vars(shot) | (vars(shot.plate) if shot.plate else {})
    return {name: value for name, value in both.items() if isinstance(value, torch.Tensor)}


# ---- shots -----------------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_shot_again(shot):
    again = render(shot.seed, 3, 48, 64)
    assert again.caption == shot.caption
    assert all(torch.equal(a, b) for a, b in zip(tensors(shot).values(), tensors(again).values()))


@pytest.mark.parametrize("seed", range(6))
def test_a_close_shot_shows_one_or_two_and_the_first_fills_it(seed):
    shot = render(seed, 2, 48, 64, framing="close")
    torch.testing.assert_close(shot.rgb_linear, shot.albedo_linear * shot.irradiance + shot.specular)
    assert torch.equal(shot.plate.plate_linear, over(shot.plate.fg_linear, shot.plate.alpha, shot.plate.bg_linear))
    assert 1 <= len(shot.facts.objects) <= 2
    rows, columns = (shot.ids[0, ..., 0] == shot.plate.hero).nonzero().T
    height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
    assert max(height / 48, width / 64) > 0.45
    assert not torch.equal(shot.rgb_linear, render(seed, 2, 48, 64).rgb_linear)


def test_an_unknown_framing_is_refused():
    with pytest.raises(ValueError, match="no framing 'near'; choose one of wide, close"):
        render(0, 1, 16, 16, framing="near")


def test_a_shot_without_shadows_has_the_same_surfaces_in_more_light(shot):
    bare = render(shot.seed, 3, 48, 64, film_samples=0, shadows=False)
    for name in ("albedo_linear", "normal", "depth", "ids"):
        assert torch.equal(getattr(bare, name), getattr(shot, name)), name
    # The gain differs, but is one number: nowhere does less light arrive, compared with where nothing was hidden.
    share = (bare.irradiance / shot.irradiance.clamp_min(1e-6))[shot.irradiance != 1]
    assert share.isfinite().all() and share.max() > 1.2 * share.min()


def test_seeds_give_different_shots():
    pictures = [render(seed, 1, 16, 16, film_samples=0).rgb_linear for seed in range(12)]
    apart = [(a - b).abs().mean().item() for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(apart) > 0.02
    assert len({caption(stage(seed).facts) for seed in range(300)}) == 300


def test_a_longer_shot_begins_as_the_shorter_one():
    short, long = render(3, 2, 24, 24), render(3, 4, 24, 24)
    for name in ("depth", "normal", "ids", "albedo_linear", "iuv"):
        assert torch.equal(getattr(long, name)[:2], getattr(short, name)), name
    assert torch.equal(long.plate.alpha[:2], short.plate.alpha)


def test_a_block_boundary_leaves_no_trace(monkeypatch):
    whole = render(5, 1, 30, 40)
    monkeypatch.setattr("comfyui_strata.training.scenes._BLOCK", 333)
    torch.testing.assert_close(render(5, 1, 30, 40).rgb_linear, whole.rgb_linear, atol=1e-4, rtol=0)


@pytest.mark.parametrize("frames, height, width", [(1, 1, 1), (1, 17, 9), (2, 9, 33), (3, 31, 31)])
def test_any_size(frames, height, width):
    shot = render(6, frames, height, width, film_samples=2)
    for name, image in (tensors(shot) | pictures(shot)).items():
        if name not in ("joints", "joints_visible", "eye", "view"):
            assert image.shape[:3] == (frames, height, width), name
        assert image.isfinite().all(), name
    assert not shot.forward_valid[-1].any() and not shot.forward[-1].any()
    assert not shot.backward_valid[0].any() and not shot.backward[0].any()


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"frames": 0}, {"height": 0}, {"width": 2.5}, {"film_samples": -1}, {"frames": "9"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_argument_is_named(wrong):
    arguments = {"seed": 0, "frames": 1, "height": 8, "width": 8} | wrong
    with pytest.raises(ValueError, match=next(iter(wrong))) as caught:
        render(**arguments)
    assert repr(next(iter(wrong.values()))) in str(caught.value) and "\n" not in str(caught.value)


# ---- light -----------------------------------------------------------------------------------------------------------


def test_rgb_is_albedo_times_irradiance(shot):
    assert torch.equal(shot.rgb_linear, shot.albedo_linear * shot.irradiance)
    assert not shot.specular.any()
    assert shot.irradiance.min() >= 0 and shot.albedo_linear.min() > 0 and shot.albedo_linear.max() <= 0.95


def test_highlights_are_the_whole_residual(shot):
    shiny = render(shot.seed, 3, 48, 64, specular=True, film_samples=0)
    assert torch.equal(shiny.rgb_linear, shiny.albedo_linear * shiny.irradiance + shiny.specular)
    assert torch.equal(shiny.irradiance, shot.irradiance) and shiny.specular.min() >= 0
    assert render(4, 1, 48, 64, specular=True, film_samples=0).specular.max() > 0.01


def test_antialiasing_smooths_colour_and_nothing_else(shot):
    soft = render(shot.seed, 3, 48, 64, antialias=2, specular=True)
    assert torch.equal(soft.rgb_linear, soft.albedo_linear * soft.irradiance + soft.specular)
    for name in ("normal", "depth", "forward", "ids", "iuv"):
        assert torch.equal(getattr(soft, name), getattr(shot, name)), name
    # Away from edges a pixel is its centre; between neighbours there is less of a step.
    assert (soft.albedo_linear - shot.albedo_linear).abs().median() < 5e-3
    assert soft.rgb.diff(dim=2).square().sum() < shot.rgb.diff(dim=2).square().sum()
    assert soft.plate.plate_linear.isfinite().all()
    # What is behind the hero has nothing of him in it.
    hero = (soft.ids == soft.plate.hero).expand_as(soft.rgb_linear)
    assert (soft.plate.bg_linear - shot.plate.bg_linear)[hero].abs().median() < 0.02


def test_pictures_are_well_exposed(shot):
    assert 0.15 < shot.rgb.mean() < 0.8
    assert (shot.rgb > 1).float().mean() < 0.03


def card(lights, *parts, shadows=True):
    """Irradiance at the origin of a floor, with a dark sky."""
    eye = torch.tensor([[[0.0], [1.0], [0.0]]])
    floor = Part(PLANE, (0.0, 0.0, 0.0), torch.zeros(1, 3), torch.eye(3)[None], 0, 0)
    shapes = stack([floor, *parts])
    surface = trace(stack([floor]), eye, torch.tensor([[[0.0], [-1.0], [0.0]]]))
    dark = Sky(torch.zeros(3), torch.zeros(3))
    return light(surface, shapes if shadows else None, dark, lights, None)[0][0, 0]


def test_a_card_in_the_sun_and_under_a_lamp():
    colour = torch.tensor([1.0, 0.5, 0.25])
    slope = torch.tensor([[math.sin(1.0), math.cos(1.0), 0.0]])
    torch.testing.assert_close(card([Sun(slope, colour)]), math.cos(1.0) * colour)
    torch.testing.assert_close(card([Lamp(torch.tensor([[0.0, 2.0, 0.0]]), colour, 0.0)]), colour / 4)


def test_what_stands_before_a_light_casts_a_shadow_and_what_stands_behind_it_does_not():
    high, low = torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([[0.0, 0.5, 0.0]])
    ball = Part(ROUND, (0.2, 0.0, 0.0), torch.tensor([[0.0, 1.0, 0.0]]), torch.eye(3)[None], 0, 1)
    assert not card([Lamp(high, torch.ones(3), 0.0)], ball).any()
    assert card([Lamp(low, torch.ones(3), 0.0)], ball).all()
    assert torch.equal(card([Lamp(high, torch.ones(3), 0.0)], ball, shadows=False), torch.full((3,), 0.25))


# ---- geometry --------------------------------------------------------------------------------------------------------


def test_rays_meet_shapes_where_a_slow_march_does():
    generator = torch.Generator().manual_seed(0)
    turn = turn_y(torch.tensor([0.7])) @ turn_x(torch.tensor([-1.1])) @ turn_z(torch.tensor([0.4]))
    middle = torch.tensor([[0.3, -0.2, 0.1]])
    sizes = {ROUND: (0.5, 0.7, 0.0), BOX: (0.6, 0.3, 0.9)}
    shapes = stack([Part(kind, size, middle, turn, 0, 1) for kind, size in sizes.items()])
    origin = torch.tensor([[0.0, 0.5, 4.0]])
    target = torch.rand(1, 400, 3, generator=generator) * 3 - 1.5
    rays = torch.nn.functional.normalize(target - origin[:, None], dim=-1).transpose(1, 2)
    found = distances(shapes, origin[..., None], rays)[0]  # [2, P]

    def outside(points, kind):  # signed distance of points [P, 3]
        q = (points - middle) @ turn[0]
        if kind == ROUND:
            y = q[:, 1] - q[:, 1].clamp(-0.7, 0.7)
            return torch.stack([q[:, 0], y, q[:, 2]], -1).norm(dim=-1) - 0.5
        gap = q.abs() - torch.tensor(sizes[BOX])
        return gap.clamp_min(0).norm(dim=-1) + gap.amax(-1).clamp_max(0)

    for row, kind in enumerate(sizes):
        far = torch.zeros(400)
        for _ in range(400):
            far = (far + outside(origin + far[:, None] * rays[0].T, kind)).clamp_max(9)
        meets = outside(origin + far[:, None] * rays[0].T, kind).abs() < 1e-4
        hit = found[row].isfinite()
        assert 50 < hit.sum() < 390
        assert (hit == meets).float().mean() > 0.98  # grazing rays creep
        both = hit & meets
        torch.testing.assert_close(found[row][both], far[both], atol=2e-3, rtol=0)


def test_normals_are_unit_and_face_the_camera(shot):
    frames, height, width = shot.depth.shape[:3]
    torch.testing.assert_close(shot.normal.norm(dim=-1), torch.ones(frames, height, width))
    rays = camera_rays(pixel_grid(height, width), shot.focal, height, width).T.view(height, width, 3)
    assert (shot.normal * -rays).sum(-1).min() > -1e-4


def test_normals_agree_with_depth(shot):
    frames, height, width = shot.depth.shape[:3]
    world = points(shot).view(frames, height, width, 3)
    right, down = world[:, 1:-1, 2:] - world[:, 1:-1, :-2], world[:, 2:, 1:-1] - world[:, :-2, 1:-1]
    slope = torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)
    slope = slope @ shot.view[:, None]  # world to camera
    normal = shot.normal[:, 1:-1, 1:-1]
    around = [shot.normal[:, 1:-1, 2:], shot.normal[:, 1:-1, :-2], shot.normal[:, 2:, 1:-1], shot.normal[:, :-2, 1:-1]]
    smooth = torch.stack([(normal * other).sum(-1) for other in around]).amin(0) > 0.95
    smooth &= shot.depth[:, 1:-1, 1:-1, 0] < 20  # not the sky
    angle = (normal * slope).sum(-1).clamp(-1, 1).acos().rad2deg()[smooth]
    assert smooth.float().mean() > 0.4
    assert angle.median() < 0.5 and angle.quantile(0.97) < 6


def test_flow_of_the_still_set_is_the_cameras(shot):
    frames, height, width = shot.depth.shape[:3]
    moved, _ = project(points(shot)[:-1], shot.eye[1:], shot.view[1:], shot.focal, height, width)
    expected = (moved - pixel_grid(height, width)).view(frames - 1, height, width, 2)
    still = (shot.ids[:-1, ..., 0] == 0) & (shot.depth[:-1, ..., 0] < 20)
    torch.testing.assert_close(shot.forward[:-1][still], expected[still], atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_flow_carries_a_frame_onto_its_neighbour(shot, way):
    frames, height, width = shot.depth.shape[:3]
    here, there = (slice(None, -1), slice(1, None)) if way == "forward" else (slice(1, None), slice(None, -1))
    flow, valid = getattr(shot, way)[here], getattr(shot, f"{way}_valid")[here, ..., 0]
    back = getattr(shot, "backward" if way == "forward" else "forward")[there]
    assert valid.float().mean() > 0.5
    landing = pixel_grid(height, width).view(height, width, 2) + flow
    column, row = landing.floor().long().unbind(-1)
    number = torch.arange(frames - 1)[:, None, None].expand_as(column)
    place = (number[valid], row[valid], column[valid])
    # The nearest pixel may lie across an edge: a pixel's width of outline is what may disagree.
    assert (shot.ids[there][place] == shot.ids[here][valid]).float().mean() > 0.95
    albedo = (shot.albedo[there][place] - shot.albedo[here][valid]).abs().amax(-1)
    assert albedo.median() < 0.01 and (albedo < 0.1).float().mean() > 0.8
    # There and back again is nowhere, but for the change of flow within a pixel.
    loop = (flow[valid] + back[place]).norm(dim=-1)
    assert loop.median() < 0.05 and (loop < 0.5).float().mean() > 0.9


def test_flow_knows_what_goes_out_of_sight():
    hidden = 0
    for seed in SEEDS:
        shot = _shots.get(seed) or render(seed, 3, 48, 64)
        moved = shot.forward.norm(dim=-1, keepdim=True)
        assert not shot.forward_valid[moved > 100].any()  # out of the picture
        hidden += int((~shot.forward_valid[:-1]).sum())
    assert hidden > 100


# ---- people ----------------------------------------------------------------------------------------------------------


def test_joints_lie_on_the_figure():
    on = seen = 0
    for seed in range(16):
        shot = render(seed, 2, 64, 64, film_samples=0)
        for slot, person in enumerate(shot.people):
            mask = (shot.ids[..., 0] == person).float()[:, None]
            mask = torch.nn.functional.max_pool2d(mask, 3, 1, 1)[:, 0]  # a joint may sit at the rim of a thin limb
            visible = shot.joints_visible[:, slot]
            frame, joint = visible.nonzero().unbind(-1)
            column, row = shot.joints[frame, slot, joint].floor().long().unbind(-1)
            on, seen = on + int(mask[frame, row, column].sum()), seen + len(frame)
    assert seen > 200
    assert on / seen > 0.97


def test_body_parts_are_on_people_and_nowhere_else(shot):
    part, u, v = shot.iuv.unbind(-1)
    person = torch.isin(shot.ids[..., 0], torch.tensor(shot.people, dtype=torch.long))
    assert torch.equal(part > 0, person)
    assert part.max() <= 24 and torch.equal(part, part.round())
    assert min(u.min(), v.min()) >= 0 and max(u.max(), v.max()) <= 1
    if person.sum() > 100:
        assert len(part[person].unique()) > 4


def test_a_figure_that_faces_us_has_its_left_on_our_right():
    zero = torch.zeros(1)
    clothes = Clothes(head=0, skin=0, shirt=0, trousers=0, shoes=0)
    parts, joints = figure(1, torch.zeros(1, 3), zero, 1.0, angles("stands", zero, 1.0, 0.0, 1.0), zero, clothes)
    place = dict(zip(JOINTS, joints[0], strict=True))
    for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "eye", "ear"):
        assert place[f"left {name}"][0] > 0.02 and place[f"right {name}"][0] < -0.02, name
    assert place["nose"][2] > place["neck"][2] + 0.1

    shapes = stack(parts)

    def part_at(point, direction):  # DensePose part that a ray along direction meets
        surface = trace(shapes, (point - 2 * direction)[None, :, None], direction[None, :, None])
        index = surface.index
        return int(iuv(shapes.dense[index], shapes.split[index], shapes.size[index], surface.local)[0, 0, 0])

    x, z = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    belly = (place["neck"] + place["left hip"] + place["right hip"]) / 3
    aside = 0.05 * x
    assert (part_at(belly, -z), part_at(belly, z)) == (2, 1)  # seen from the front, from behind
    assert (part_at(place["nose"] - aside, -z), part_at(place["nose"] + aside, -z)) == (23, 24)
    left_arm = (place["left shoulder"] + place["left elbow"]) / 2
    right_arm = (place["right shoulder"] + place["right elbow"]) / 2
    assert (part_at(left_arm, -x), part_at(right_arm, x)) == (17, 18)  # seen from outside
    left_thigh = (place["left hip"] + 2 * place["left knee"]) / 3
    right_thigh = (place["right hip"] + 2 * place["right knee"]) / 3
    assert (part_at(left_thigh, -z), part_at(right_thigh, -z)) == (10, 9)


# ---- the film exposure -----------------------------------------------------------------------------------------------


def test_the_plate_is_the_foreground_over_the_background(shot):
    plate = shot.plate
    again = over(plate.fg_linear, plate.alpha, plate.bg_linear)
    torch.testing.assert_close(plate.plate_linear, again, atol=1e-5, rtol=0)
    assert plate.alpha.min() >= 0 and plate.alpha.max() <= 1 and plate.fg_linear.min() >= 0
    assert not plate.fg_linear[(plate.alpha == 0).expand_as(plate.fg_linear)].any()


def test_alpha_is_the_hero_with_soft_edges(shot):
    alpha, hero = shot.plate.alpha, shot.ids == shot.plate.hero
    assert hero.any()
    assert ((alpha > 0.05) & (alpha < 0.95)).sum() > 20
    assert alpha[hero].mean() > 0.7
    away = torch.nn.functional.max_pool2d(hero.float().permute(0, 3, 1, 2), 25, 1, 12) == 0
    assert alpha.permute(0, 3, 1, 2)[away].mean() < 0.02


def test_the_background_is_the_shot_without_the_hero(shot):
    elsewhere = (shot.ids != shot.plate.hero).expand_as(shot.rgb_linear)
    assert torch.equal(shot.plate.bg_linear[elsewhere], shot.rgb_linear[elsewhere])
    assert not torch.equal(shot.plate.bg_linear, shot.rgb_linear)


def test_more_moments_change_the_alpha_little():
    few, many = (render(7, 1, 48, 48, film_samples=samples).plate.alpha for samples in (8, 64))
    assert (few - many).abs().mean() < 0.01


def bald(motion) -> int:
    """The first seed whose hero has neither hair nor fur and moves that way."""
    for seed in range(2000):
        company = stage(seed).cast
        if not company.hairy and company.actors[0].motion == motion:
            return seed
    raise AssertionError(motion)


def test_edges_are_soft_without_hair_too():
    alpha = render(bald("stays still"), 1, 64, 64, film_samples=16).plate.alpha
    levels = alpha.unique()
    assert 8 < len(levels) <= 17  # sixteenths


def test_what_moves_is_blurred_along_its_way(monkeypatch):
    seed = bald("slides to the right")
    blurred = render(seed, 2, 64, 64, film_samples=16).plate.alpha
    monkeypatch.setattr("comfyui_strata.training.rendering.film._SHUTTER", 0.0)
    frozen = render(seed, 2, 64, 64, film_samples=16).plate.alpha
    assert (blurred * (1 - blurred)).sum() > 1.1 * (frozen * (1 - frozen)).sum()


# ---- facts and captions ----------------------------------------------------------------------------------------------


def test_all_that_a_caption_names_is_seen(shot):
    seen = set(shot.ids.unique().tolist())
    assert {fact.id for fact in shot.facts.objects} <= seen
    for fact in shot.facts.objects:
        assert f"{fact.colour} {'shirt' if fact.kind == 'person' else fact.kind}" in shot.caption
        assert fact.motion in shot.caption


def test_captions_keep_to_their_vocabulary_and_use_all_of_it():
    used = {word for seed in range(1500) for word in words(caption(stage(seed).facts))}
    assert used <= set(VOCABULARY)
    assert set(VOCABULARY) - used <= {"nothing", "is", "seen"}  # of an empty set, which is rare


def test_a_caption_reads_as_english():
    facts = Facts(
        (ObjectFact(1, "person", "orange", "plain", "waves"), ObjectFact(2, "ball", "red", "striped", "bounces")),
        "room", "grey", "checkered", "white", (LightFact("lamp", "warm", True), LightFact("lamp", "blue", False)),
        "pans to the left",
    )  # fmt: skip
    assert caption(facts) == (
        "A person with an orange shirt waves and a striped red ball bounces in a room with a checkered grey ground and "
        "white walls. A moving warm lamp and a blue lamp light the scene. The camera pans to the left."
    )
    alone = dataclasses.replace(facts.seen({2}), place="studio", wall="orange", lights=facts.lights[1:])
    assert caption(alone) == (
        "A striped red ball bounces in a studio with a checkered grey ground and an orange backdrop. A blue lamp "
        "lights the scene. The camera pans to the left."
    )
    assert caption(facts.seen(set())).startswith("Nothing is seen in a room with a checkered grey ground")


def test_a_slide_to_the_left_goes_left():
    checked = 0
    for seed in range(400):
        scene = stage(seed)
        facts = {fact.id: fact.motion for fact in scene.facts.objects if fact.motion.endswith(("left", "right"))}
        if facts and scene.facts.camera == "stays still":
            world = scene.at(torch.tensor([0.0, 0.5]))
            for id, motion in facts.items():
                middle = world.shapes.position[:, world.shapes.owner == id]
                place, _ = project(middle, world.eye, world.view, 100.0, 100, 100)
                assert (place[1, 0, 0] > place[0, 0, 0]) == motion.endswith("right"), (seed, id)
                checked += 1
    assert checked > 10


def test_the_camera_moves_as_the_caption_says():
    found = set()
    for seed in range(200):
        scene = stage(seed)
        world = scene.at(torch.tensor([0.0, 0.5]))
        move, step = scene.facts.camera, (world.eye[1] - world.eye[0]) @ world.view[0]  # in the camera's own axes
        aim = -(world.view[1] - world.view[0])[:, 2] @ world.view[0]
        signs = {
            "pans to the left": -aim[0], "pans to the right": aim[0], "orbits to the left": -step[0],
            "orbits to the right": step[0], "moves forward": -step[2], "moves back": step[2],
            "rises": world.eye[1, 1] - world.eye[0, 1], "sinks": world.eye[0, 1] - world.eye[1, 1],
        }  # fmt: skip
        if move in signs:
            assert signs[move] > 0.02, (seed, move)
            found.add(move)
    assert found == set(signs)


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_show_every_layer(shot):
    layers = pictures(shot)
    assert list(layers) == [
        "rgb", "albedo", "irradiance", "normal", "depth", "flow", "segmentation", "densepose", "skeleton",
        "plate", "alpha", "fg", "bg",
    ]  # fmt: skip
    for name, image in layers.items():
        assert image.shape == shot.rgb.shape and image.dtype == torch.float32, name
        assert image.min() >= 0 and image.max() <= 1, name


def test_a_hero_that_leaves_the_picture_leaves_an_empty_matte():
    """Its window used to end before it began, and the film exposure to stop with an error."""
    shot = render(1, 17, 24, 24)
    assert shot.plate.alpha[0].max() > 0 and not shot.plate.alpha[-1].any()
    assert torch.equal(shot.plate.plate[-1], shot.plate.bg[-1])

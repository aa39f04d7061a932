"""Shots as the layers of other families: drawn in their codes, read back, measured, left out where there are none."""

import importlib
from dataclasses import replace

import pytest
import torch

from comfyui_strata.imaging.encodings.densepose import picture_to_iuv
from comfyui_strata.imaging.encodings.depth import colours_to_depth, depth_to_colours
from comfyui_strata.imaging.encodings.flow import colours_to_flow
from comfyui_strata.imaging.encodings.segmentation import colours_to_ids, palette
from comfyui_strata.imaging.encodings.skeleton import dot_radius
from comfyui_strata.joint.families import INTRINSIC
from comfyui_strata.joint.streams import Role, StreamSpec, Task
from comfyui_strata.training.evaluate import Plan, Texts, evaluate
from comfyui_strata.training.metrics import read_dots
from comfyui_strata.training.scenes import render
from comfyui_strata.training.scores import BLANK, METRICS, measure_layer
from comfyui_strata.training.shots import Example, synthetic_example

NAMES = ("rgb", "depth", "flow", "densepose", "skeleton", "segmentation")
FAMILY = replace(INTRINSIC, name="scene", streams=tuple(StreamSpec(name, name[0].upper(), name) for name in NAMES))
SIZE = 3, 48, 64
PERSON, COUPLE, NOBODY = 0, 2, 3  # seeds, and how many people are there
loop = importlib.import_module("comfyui_strata.training.evaluate")  # the package's own name is the function


def eight_bits(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round() / 255


@pytest.fixture(params=(PERSON, COUPLE, NOBODY), ids=("person", "couple", "nobody"))
def pair(request) -> tuple[Example, object]:
    """An example, and the shot that it is of."""
    return synthetic_example(FAMILY, request.param, *SIZE), render(request.param, *SIZE, antialias=2, film_samples=0)


# ---- what a shot has -------------------------------------------------------------------------------------------------


def test_layers_are_pictures_in_row_order_and_the_caption_stays(pair):
    example, shot = pair
    assert len(shot.people) == {PERSON: 1, COUPLE: 2, NOBODY: 0}[shot.seed]
    bodies = ("densepose", "skeleton")
    assert list(example.layers) == [name for name in NAMES if shot.people or name not in bodies]
    for name, images in example.layers.items():
        assert images.shape == (*SIZE, 3) and images.dtype == torch.float32, name
        assert images.min() >= 0 and images.max() <= 1 and images.any(), name
    assert torch.equal(example.layers["rgb"], shot.rgb.clamp(0, 1))
    assert example.prompt == shot.caption and example.exact["caption"] == (shot.facts,)


def test_a_single_frame_has_no_flow():
    assert list(synthetic_example(FAMILY, PERSON, 1, 48, 64).layers) == [name for name in NAMES if name != "flow"]


def test_a_stream_without_an_encoding_is_no_layer():
    words = replace(StreamSpec("caption", "T", None), encoding=None)
    family = replace(FAMILY, name="told", streams=(FAMILY.streams[0], words))
    assert list(synthetic_example(family, 1, *SIZE).layers) == ["rgb"]


def test_a_layer_that_shots_do_not_have_is_named():
    family = replace(FAMILY, streams=(*FAMILY.streams, StreamSpec("sound", "O", "sound")))
    with pytest.raises(ValueError, match="Synthetic shots have no layer sound of the scene family"):
        synthetic_example(family, 1, *SIZE)


# ---- every layer decodes back to the truth ---------------------------------------------------------------------------


@pytest.mark.parametrize(("spoil", "error"), [(torch.clone, 1e-6), (eight_bits, 0.004)])
def test_depth_comes_back(pair, spoil, error):
    example, shot = pair
    near, far = example.exact["depth"]
    back, true = colours_to_depth(spoil(example.layers["depth"]), near, far), shot.depth.clamp(near, far)
    assert ((1 / back - 1 / true).abs() / (1 / near - 1 / far)).max() < error
    assert (shot.depth != true).float().mean() < 0.05  # beyond the range


@pytest.mark.parametrize(("spoil", "error"), [(torch.clone, 1e-5), (eight_bits, 0.01)])
def test_flow_comes_back_and_the_last_frame_goes_on(pair, spoil, error):
    example, shot = pair
    [reach] = example.exact["flow"]
    back = colours_to_flow(spoil(example.layers["flow"]), reach)
    true = torch.cat([shot.forward[:-1], shot.forward[-2:-1]])
    assert (back - true).norm(dim=-1).max() < error * reach
    assert reach == pytest.approx(shot.forward.norm(dim=-1).max().item()) and back[-1].any()


@pytest.mark.parametrize("spoil", [torch.clone, eight_bits])
def test_segmentation_comes_back(pair, spoil):
    example, shot = pair
    assert torch.equal(colours_to_ids(spoil(example.layers["segmentation"]), palette(64)), shot.ids)


@pytest.mark.parametrize(("spoil", "error"), [(torch.clone, 1e-6), (eight_bits, 1 / 510 + 1e-6)])
@pytest.mark.parametrize("seed", [PERSON, COUPLE])
def test_densepose_comes_back(seed, spoil, error):
    shot = render(seed, *SIZE, film_samples=0)
    back = picture_to_iuv(spoil(synthetic_example(FAMILY, seed, *SIZE).layers["densepose"]))
    assert torch.equal(back[..., 0], shot.iuv[..., 0])
    assert (back - shot.iuv).abs().max() <= error


@pytest.mark.parametrize("spoil", [torch.clone, eight_bits])
@pytest.mark.parametrize("seed", [PERSON, COUPLE])
def test_skeletons_come_back(seed, spoil):
    example = synthetic_example(FAMILY, seed, 3, 128, 128)
    joints, visible = example.exact["skeleton"]
    places, seen = read_dots(spoil(example.layers["skeleton"]))
    near = torch.cdist(places.transpose(1, 2), joints.where(visible[..., None], -1e6).transpose(1, 2)).amin(-1)
    assert near.transpose(1, 2)[seen].max() <= dot_radius(128, 128)  # [F, P, 18]
    assert seen.sum() > 0.8 * visible.sum()  # the others are covered


# ---- what is measured of them ----------------------------------------------------------------------------------------


def numbers(layer: str, images: torch.Tensor, example: Example) -> dict[str, float | None]:
    found = measure_layer(layer, images, example.layers[layer], example.exact.get(layer, ()))
    return {metric.name: number for (_, metric), number in found.items()}


def better(layer: str, one: dict, other: dict) -> list[bool]:
    """Whether one is better than the other, by every metric that both have, flicker aside."""
    both = [(metric, one[metric.name], other[metric.name]) for metric in METRICS[layer] if metric.name != "flicker"]
    return [a > b if metric.better == "higher" else a < b for metric, a, b in both if None not in (a, b)]


@pytest.mark.parametrize("layer", NAMES[1:])
def test_worse_pictures_get_worse_numbers(layer):
    example = synthetic_example(FAMILY, 1, 3, 64, 64)
    true = example.layers[layer]
    draw = torch.Generator().manual_seed(0)
    wrong, where = torch.rand(true.shape, generator=draw), torch.rand(*true.shape[:3], 1, generator=draw)
    perfect = numbers(layer, true, example)
    for metric in METRICS[layer]:
        best = 0 if metric.better == "lower" else 100 if metric.unit == "%" else 1
        assert perfect[metric.name] == pytest.approx(best, abs=1e-9), metric.name
    half, whole = (numbers(layer, torch.where(where < lost, wrong, true), example) for lost in (0.5, 1.1))
    first = METRICS[layer][0].name
    assert better(layer, perfect, half)[0] and better(layer, half, whole)[0], (first, half, whole)


def test_depth_in_another_range_is_as_good_and_a_negative_is_not():
    example = synthetic_example(FAMILY, PERSON, *SIZE)
    near, far = example.exact["depth"]
    inverse = 1 / colours_to_depth(example.layers["depth"], near, far)
    other = depth_to_colours(1 / (0.4 * inverse + 0.1), 0.5, 20.0)[0]
    assert numbers("depth", other, example)["AbsRel"] < 1e-3
    flat = numbers("depth", torch.full_like(other, 0.5), example)["AbsRel"]
    negative = depth_to_colours(1 / (1 / near + 1 / far - inverse), near, far)[0]
    assert numbers("depth", negative, example)["AbsRel"] == pytest.approx(flat, rel=1e-3) and flat > 0.1


def test_renamed_segments_are_as_good_but_have_other_labels():
    example = synthetic_example(FAMILY, COUPLE, *SIZE)
    colours = palette(8)
    ids = colours_to_ids(example.layers["segmentation"], colours)
    renamed = numbers("segmentation", colours[(ids[..., 0] + 3) % 8], example)
    assert renamed["mIoU"] == 1 and renamed["same label"] == 0


@pytest.mark.parametrize("layer", NAMES[1:])
def test_nothing_at_all_scores_below_the_truth(layer):
    example = synthetic_example(FAMILY, 1, 3, 64, 64)
    true = example.layers[layer]
    blank = numbers(layer, torch.full_like(true, BLANK.get(layer, 0.5)), example)
    assert better(layer, numbers(layer, true, example), blank)[0]


# ---- in an evaluation ------------------------------------------------------------------------------------------------


class Through:
    """A VAE whose latents are the pictures."""

    def encode(self, images: torch.Tensor, normalised: bool) -> torch.Tensor:
        return images.movedim(-1, 0)

    def decode(self, latents: torch.Tensor, normalised: bool) -> torch.Tensor:
        return latents.movedim(0, -1)


def task(given: str, made: str) -> Task:
    roles = {given: Role.CONDITION, made: Role.TARGET}
    return Task(FAMILY, tuple(roles.get(name, Role.ABSENT) for name in NAMES))


@pytest.fixture
def results(monkeypatch):
    """Results for tasks and seeds by a model that repeats what it is given, and what it was given."""
    given = []

    def copying(engine, task, clean, noise, *texts, **settings):
        given.append([name for name, latent in zip(NAMES, clean[0]) if latent.any()])
        return torch.stack([clean[:, FAMILY.index(task.conditions[0])]] * len(NAMES), 1)

    monkeypatch.setattr(loop, "sample", copying)

    def run(tasks, seeds):
        return list(evaluate(None, Through(), Plan(tasks, seeds, 5, 32, 48, 2), Texts(torch.zeros(1, 1, 1)))), given

    return run


def test_a_task_is_left_out_where_the_shot_lacks_a_layer(results):
    tasks = task("rgb", "skeleton"), task("rgb", "depth"), task("densepose", "rgb")
    found, given = results(tasks, range(NOBODY, NOBODY + 2))  # somebody is in the second
    assert [(each.seed, str(each.task)) for each in found] == [(3, "R2D"), (4, "R2S"), (4, "R2D"), (4, "D2R")]
    assert given == [["rgb"], ["rgb"], ["rgb"], ["densepose"]]


@pytest.mark.parametrize("layer", NAMES[1:])
def test_stand_ins_stand_beside_every_layer(results, layer):
    [result], _ = results((task("rgb", layer),), range(PERSON, PERSON + 1))
    assert list(result.numbers) == ["model", "constant", "usual", "vae", "copy", "truth"]
    assert not result.numbers["truth"]
    found = {name: {metric.name: number for (_, metric), number in each.items()}
             for name, each in result.numbers.items()}
    assert found["model"] == found["copy"] and list(found["vae"]) == [metric.name for metric in METRICS[layer]]
    example = synthetic_example(FAMILY, PERSON, 5, 32, 48)
    perfect = numbers(layer, example.layers[layer], example)
    assert found["vae"] == pytest.approx(perfect, abs=1e-6)
    assert better(layer, found["vae"], found["constant"])[0]
    blank = torch.full_like(example.layers[layer], BLANK.get(layer, 0.5))
    for name, number in numbers(layer, blank, example).items():  # a number or None
        assert found["constant"][name] == (number and pytest.approx(number, rel=1e-4)), name


def test_flow_that_stands_still_is_off_by_the_motion():
    example = synthetic_example(FAMILY, 1, *SIZE)
    true = colours_to_flow(example.layers["flow"], *example.exact["flow"])
    still = numbers("flow", torch.ones_like(example.layers["flow"]), example)
    assert still["EPE"] == pytest.approx(true.norm(dim=-1).mean().item(), rel=1e-4)

"""Measuring a model: the tables on known layers, the bundled tiny model on small shots, the report, `strata eval`."""

import json
import statistics
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
import torch

from comfyui_strata.cli import main
from comfyui_strata.imaging.encodings.layers import decode
from comfyui_strata.imaging.files.clips import read_clip, write_clip
from comfyui_strata.joint.channels import backbone_channels
from comfyui_strata.joint.families import ALPHA, FAMILIES, INTRINSIC, parse_task, tasks, vary
from comfyui_strata.joint.transformer import Host
from comfyui_strata.joint.variants import Variant
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.standalone import evaluation
from comfyui_strata.standalone.loading import embed_prompts, load_engine, load_layer_file
from comfyui_strata.tests.tiny_files import copy_bundled
from comfyui_strata.tests.tiny_wan import TINY, write_empty_prompt, write_tiny_adapters, write_tiny_backbone
from comfyui_strata.training import metrics
from comfyui_strata.training.caption_scores import CAPTION_METRICS
from comfyui_strata.training.evaluate import Plan, Result, Texts, evaluate, usual_layers
from comfyui_strata.training.report import METHODS, Report
from comfyui_strata.training.scores import METRICS, RELATIONS, Metric, measure_layer, measure_relations
from comfyui_strata.training.shots import FIRST_TRAINING_SEED, synthetic_example

SIZE = 5, 32, 48
FAMILY_NAMES = list(FAMILIES)


def truth(family=INTRINSIC, seed=0, size=SIZE) -> dict[str, torch.Tensor]:
    return synthetic_example(family, seed, *size).layers


def measured(layer: str, images: torch.Tensor, example):
    """`measure_layer` against a shot."""
    return measure_layer(layer, images, example.layers[layer], example.exact.get(layer, ()))


def by_name(numbers) -> dict[tuple[str, str], float]:
    return {(subject, metric.name): number for (subject, metric), number in numbers.items()}


def plan(*names, family=INTRINSIC, seeds=range(1), size=SIZE, **more) -> Plan:
    return Plan(tuple(parse_task(family, name) for name in names), seeds, *size, steps=2, **more)


@pytest.fixture(scope="module")
def tiny():
    """Engine, VAE and texts of the bundled model of a family, loaded once."""
    loaded = {}

    def load(family):
        if family not in loaded:
            models = find_models("tiny", family)
            engine, vae = load_engine(models, load_layer_file(models, family, "cpu"), "cpu", Host())
            loaded[family] = engine, vae, Texts(embed_prompts(models, family, "cpu", [""])[0])
        return loaded[family]

    return load


# ---- the tables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILY_NAMES)
def test_the_truth_gets_the_best_of_every_number(family):
    best = {"PSNR": 100.0, "SSIM": 1.0, "mIoU": 1.0, "part mIoU": 1.0, "%": 100.0}
    example = synthetic_example(family, 0, *SIZE)
    for layer, images in example.layers.items():
        numbers = measured(layer, images, example)
        assert numbers and all(subject == layer for subject, _ in numbers)
        for (_, metric), number in numbers.items():
            most = best.get(metric.name, best.get(metric.unit, 0.0)) if metric.better == "higher" else 0.0
            assert number == pytest.approx(most, abs=1e-9), metric.name


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILY_NAMES)
def test_noise_is_worse_than_the_truth_by_every_number(family):
    example = synthetic_example(family, 1, *SIZE)  # it moves by pixels, or no flow could be wrong by three
    for layer, images in example.layers.items():
        encoding = family.streams[family.index(layer)].encoding
        noise = decode(encoding, torch.rand(*SIZE, 3, generator=torch.Generator().manual_seed(1)))
        exact, wrong = (by_name(measured(layer, x, example)) for x in (images, noise))
        for metric in METRICS[layer]:
            key = layer, metric.name
            assert wrong[key] < exact[key] if metric.better == "higher" else wrong[key] > exact[key], metric.name


def test_exact_layers_fit_together_and_mixed_ones_do_not():
    for family, name in ((INTRINSIC, "albedo x irradiance = rgb"), (ALPHA, "over(fg, alpha, bg) = rgb")):
        every, layers, others = tasks(family)[0], truth(family), truth(family, seed=1)
        [(key, fits)] = by_name(measure_relations(every, layers)).items()
        [mixed] = measure_relations(every, layers | {"rgb": others["rgb"]}).values()
        assert key[0] == name and fits < 0.05 and mixed > 0.2  # the layers are clipped to 0..1


def test_a_constant_error_gives_what_theory_says():
    true = torch.full((*SIZE, 3), 0.25) + 0.5 * torch.rand(5, 1, 1, 3)
    numbers = by_name(measure_layer("rgb", true + 0.1, true))
    assert numbers["rgb", "PSNR"] == pytest.approx(20, abs=1e-4)
    assert numbers["rgb", "flicker"] == pytest.approx(0, abs=1e-6)
    alpha = by_name(measure_layer("alpha", true[..., :1] + 0.1, true[..., :1]))
    assert alpha["alpha", "MAD"] == pytest.approx(100, abs=1e-3)
    assert alpha["alpha", "MSE"] == pytest.approx(10, abs=1e-3)


def test_the_handbook_has_every_number_with_its_unit_and_direction():
    text = (Path(evaluation.__file__).parents[1] / "docs/metrics.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    told = {(name, row[3], row[2]) for row in rows if len(row) == 7 for name in row[1].split(", ")}
    relations = [relation.metric for relation in RELATIONS]
    for metric in [*(metric for table in METRICS.values() for metric in table), *relations, *CAPTION_METRICS]:
        assert (metric.name, metric.unit, {"higher": "↑", "lower": "↓"}[metric.better]) in told
    assert all(relation.name in text for relation in RELATIONS)


def test_relations_are_only_asked_of_sets_that_something_was_made_in():
    layers = truth()
    assert measure_relations(parse_task(INTRINSIC, "RAI2N"), layers) == {}
    assert len(measure_relations(parse_task(INTRINSIC, "RIN2A"), layers)) == 1
    del layers["irradiance"]
    assert measure_relations(parse_task(INTRINSIC, "RIN2A"), layers) == {}


def test_a_single_frame_has_no_numbers_of_change():
    for family in FAMILIES.values():
        still = synthetic_example(family, 0, 1, 32, 32)
        names = {metric.name for layer, images in still.layers.items() for _, metric in measured(layer, images, still)}
        assert names and not names & {"flicker", "dtSSD"}


def test_nothing_to_measure_is_no_number_but_nan_is_an_error():
    layers = truth()
    black = layers | {"rgb": torch.zeros(*SIZE, 3)}
    assert list(measure_relations(parse_task(INTRINSIC, "t2RAIN"), black).values()) == [None]
    with pytest.raises(ValueError, match="The predicted layer has NaN"):
        measure_layer("rgb", layers["rgb"] * float("nan"), layers["rgb"])


# ---- a model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "name", "copied"), [(INTRINSIC, "R2AIN", "rgb"), (ALPHA, "PF2RB", "fg"),
                                                       (ALPHA, "PFB2R", "bg"), (INTRINSIC, "IN2RA", "irradiance")])
def test_the_model_and_its_stand_ins_are_measured(tiny, family, name, copied):
    engine, vae, texts = tiny(family)
    [result] = evaluate(engine, vae, plan(name, family=family), texts)
    true = truth(family)
    assert list(result.numbers) == ["model", "constant", "usual", "vae", "copy", "truth"]
    alone = result.numbers["truth"]
    assert len({frozenset(numbers) for numbers in result.numbers.values() if numbers is not alone}) == 1
    for layer in family.layers:
        assert torch.equal(result.truth[layer], true[layer])
        given = layer in result.task.conditions
        assert torch.equal(result.layers[layer], true[layer]) == given
    for layer in result.task.targets:
        encoding = family.streams[family.index(layer)].encoding
        mean = true[layer].reshape(-1, 3).mean(0).expand(*SIZE, 3)
        expected = {"model": result.layers[layer], "constant": decode(encoding, mean),
                    "usual": decode(encoding, usual_layers(family, "wide")[layer].expand(*SIZE, 3)),
                    "copy": decode(encoding, true[copied]),
                    "vae": decode(encoding, vae.decode(vae.encode(true[layer])))}
        for method, images in expected.items():
            for key, number in measure_layer(layer, images, true[layer]).items():
                assert result.numbers[method][key] == pytest.approx(number, rel=1e-4, abs=1e-7), (method, key)
    [relation] = [r for r in RELATIONS if set(r.layers) <= true.keys()]
    whole = true | {layer: decode(family.streams[family.index(layer)].encoding, true[copied])
                    for layer in result.task.targets}
    number = relation.metric.function(*(whole[layer] for layer in relation.layers))
    assert result.numbers["copy"][relation.name, relation.metric] == number
    exact = relation.metric.function(*(true[layer] for layer in relation.layers))
    assert alone == {(relation.name, relation.metric): exact}


def test_a_task_with_nothing_given_has_nothing_to_copy(tiny):
    [result] = evaluate(*tiny(INTRINSIC)[:2], plan("t2RAIN"), tiny(INTRINSIC)[2])
    assert list(result.numbers) == ["model", "constant", "usual", "vae", "truth"]


def test_shots_go_one_by_one_and_each_has_its_own_noise(tiny):
    engine, vae, texts = tiny(INTRINSIC)
    steps = []
    both = list(evaluate(engine, vae, plan("RIN2A", "RAI2N", seeds=range(3, 5)), texts, lambda: steps.append(1)))
    assert [(r.seed, str(r.task)) for r in both] == list(product((3, 4), ("RIN2A", "RAI2N"))) and len(steps) == 8
    [alone] = evaluate(engine, vae, plan("RIN2A", seeds=range(4, 5)), texts)
    assert alone.numbers == both[2].numbers
    [other] = evaluate(engine, vae, plan("RIN2A", seeds=range(4, 5), seed=1), texts)
    assert other.numbers["model"] != alone.numbers["model"] and other.numbers["vae"] == alone.numbers["vae"]


def test_captions_reach_only_the_tasks_trained_with_text(tiny):
    engine, vae, texts = tiny(INTRINSIC)
    draw = torch.Generator().manual_seed(0)
    captioned = Texts(texts.empty, {0: torch.randn(texts.empty.shape, generator=draw)})
    for name, differ in (("A2RIN", True), ("RIN2A", False)):
        results = [next(evaluate(engine, vae, plan(name), t)).numbers["model"] for t in (texts, captioned)]
        assert (results[0] != results[1]) == differ


def test_sizes_the_network_does_not_take_are_measured_at_their_own(tiny):
    engine, vae, texts = tiny(ALPHA)
    [result] = evaluate(engine, vae, plan("RFB2P", family=ALPHA, size=(2, 17, 33)), texts)
    assert result.layers["alpha"].shape == (2, 17, 33, 3)


@pytest.mark.parametrize(("more", "says"), [
    ({"seeds": range(99_996, 100_004)}, "Shots 99996 to 100003 .* only 0 to 99999 are held out"),
    ({"seeds": range(-1, 3)}, "only 0 to"),
    ({"size": (5, 15, 64)}, "64x15 are too small to measure: give --size 16x16 or more"),
])
def test_plans_that_cannot_be_are_refused(more, says):
    with pytest.raises(ValueError, match=says):
        plan("R2AIN", **more).check()
    plan("R2AIN", seeds=range(FIRST_TRAINING_SEED - 1, FIRST_TRAINING_SEED), size=(1, 16, 16)).check()


# ---- the report ------------------------------------------------------------------------------------------------------


def test_the_report_gives_mean_spread_and_every_shot():
    psnr, odd = Metric("PSNR", "dB", "higher", metrics.psnr), Metric("odd", "", "lower", metrics.psnr)
    task, report = parse_task(INTRINSIC, "t2RAIN"), Report({"family": "intrinsic"})
    for seed, numbers in enumerate([(10.0, None), (20.0, None), (60.0, None)]):
        of = dict(zip((("rgb", psnr), ("rgb", odd)), numbers))
        report.add(Result(seed, task, {}, {}, {"model": of, "constant": dict.fromkeys(of, 0.5)}))
    first, second = json.loads(report.json())["rows"]
    assert first["task"] == "t2RAIN" and first["unit"] == "dB" and first["better"] == "higher"
    assert first["model"] == {"mean": 30.0, "std": pytest.approx(statistics.stdev([10, 20, 60])),
                              "shots": {"0": 10.0, "1": 20.0, "2": 60.0}}
    assert first["copy"] is None and first["constant"]["std"] == 0
    assert second["model"]["mean"] is None and second["model"]["std"] is None
    lines = [line.split() for line in report.table().splitlines()]
    assert lines[1] == ["t2RAIN", "rgb", "PSNR", "↑", "dB", "30", "26.46", "0.5"]
    assert lines[2] == ["t2RAIN", "rgb", "odd", "↓", "–", "–", "0.5"]


# ---- the command -----------------------------------------------------------------------------------------------------


def strata_eval(*args, family="intrinsic", seeds=1) -> int:
    try:
        return main(["eval", "--family", family, "--seeds", str(seeds), "--size", "48x32", "--frames", "5", "--steps",
                     "2", "--device", "cpu", *map(str, args)])
    except SystemExit as stop:  # argparse's own errors
        return int(stop.code or 0)


def test_the_table_holds_the_json_and_comes_out_the_same_again(tmp_path, capsys):
    printed = []
    for name in ("a", "b"):
        assert strata_eval("--task", "R2AIN", "RAI2N", "--json", tmp_path / f"{name}.json", seeds=2) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    report = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert report["shots"] == [0, 1] and report["size"] == [5, 32, 48] and report["steps"] == 2
    assert report["prompts"] == {"R2AIN": "empty", "RAI2N": "empty"}
    lines = printed[0].splitlines()[1:]
    assert len(lines) == len(report["rows"]) == 15 + 6
    methods = [method for method in METHODS if method != "shuffled"]  # which is for captions
    for line, row in zip(lines, report["rows"]):
        assert line.startswith(row["task"]) and row["layer"] in line and row["metric"] in line
        means = [row[method] and f'{row[method]["mean"]:.4g}' or "–" for method in methods]
        assert line.split()[-1 - len(methods):] == [means[0], f'{row["model"]["std"]:.4g}', *means[1:]]
        assert list(row["model"]["shots"]) == ["0", "1"]


def test_all_tasks_are_measured_unless_some_are_named(tmp_path, capsys):
    model = copy_bundled(tmp_path / "model", ALPHA)
    assert strata_eval("--steps", 1, "--json", tmp_path / "all.json", "--model", model, family="alpha") == 0
    assert list(json.loads((tmp_path / "all.json").read_text("utf-8"))["prompts"]) == list(map(str, tasks(ALPHA)))
    captured = capsys.readouterr()
    assert {line.split()[0] for line in captured.out.splitlines()[1:]} == set(map(str, tasks(ALPHA)))
    assert "the empty prompt stands in for captions (t2RPFB, P2RFB," in captured.err
    assert "step" not in captured.err  # no progress bar off a terminal


def test_it_measures_what_strata_run_makes(tmp_path):
    """`strata run` on the shot's own rgb, with the shot's seed, makes the layers on which the numbers stand."""
    seed, out = 7, tmp_path / "out"
    true = truth(seed=seed)
    plate = write_clip(true["rgb"], tmp_path / "rgb", Fraction(16), "png")
    assert main(["run", "--family", "intrinsic", "--task", "R2AIN", "--input", f"rgb={plate}", "--out", str(out),
                 "--steps", "2", "--seed", str(seed), "--device", "cpu"]) == 0
    assert strata_eval("--task", "R2AIN", "--first-seed", seed, "--json", tmp_path / "numbers.json") == 0
    rows = json.loads((tmp_path / "numbers.json").read_text("utf-8"))["rows"]
    for layer in ("albedo", "irradiance", "normal"):
        made = read_clip(out / layer, data=layer == "normal").images
        for (_, metric), number in measure_layer(layer, made, true[layer]).items():
            [row] = [row for row in rows if (row["layer"], row["metric"]) == (layer, metric.name)]
            assert row["model"]["mean"] == pytest.approx(number, rel=2e-2, abs=2e-3), metric.name


def test_a_text_encoder_brings_the_captions(tmp_path):
    task, reports = ("--task", "A2RIN", "RIN2A"), []
    for name, more in (("empty", ("--model", copy_bundled(tmp_path / "model", INTRINSIC))), ("caption", ()),
                       ("unguided", ("--cfg", 1))):
        assert strata_eval(*task, "--json", tmp_path / f"{name}.json", *more) == 0
        reports.append(json.loads((tmp_path / f"{name}.json").read_text("utf-8")))
    assert [r["prompts"] for r in reports] == [{"A2RIN": "empty", "RIN2A": "empty"}] + 2 * [
        {"A2RIN": "caption", "RIN2A": "empty"}]
    assert [r["guidance"] for r in reports] == [1.0, INTRINSIC.guidance, 1.0]
    with_text, without = ([[row["model"] for row in r["rows"] if row["task"] == name] for r in reports]
                          for name in ("A2RIN", "RIN2A"))
    assert all(a != b for i, a in enumerate(with_text) for b in with_text[:i])
    assert without[0] == without[1] == without[2]


def test_a_variant_is_measured_because_its_file_says_so(tmp_path):
    variant = Variant("always", "shared", "channel_concat")
    family = vary(INTRINSIC, variant)
    in_dim, out_dim = backbone_channels(family, 16)
    adapters = write_tiny_adapters(tmp_path / "variant.safetensors", family)
    write_empty_prompt(adapters)
    backbone = write_tiny_backbone(tmp_path / "wan.safetensors", replace(TINY, in_dim=in_dim, out_dim=out_dim))
    assert strata_eval("--task", "R2AIN", "--adapters", adapters, "--backbone", backbone, "--json",
                       tmp_path / "numbers.json") == 0
    report = json.loads((tmp_path / "numbers.json").read_text("utf-8"))
    assert report["family"] == "intrinsic" and report["variant"] == variant.changes()
    assert {row["task"] for row in report["rows"]} == {"R2AIN"}


def test_pictures_show_each_made_layer_above_the_true_one(tmp_path, monkeypatch):
    drawn, draw = {}, evaluation.contact_sheet

    def watched(rows, path, **roles):
        drawn[path.name] = list(rows), {role: sorted(names) for role, names in roles.items()}
        return draw(rows, path, **roles)

    monkeypatch.setattr(evaluation, "contact_sheet", watched)
    assert strata_eval("--task", "RIN2A", "RN2AI", "--pictures", tmp_path / "sheets") == 0
    assert drawn == {
        "RIN2A_00000.png": (["rgb", "albedo", "albedo (truth)", "irradiance", "normal"],
                            {"given": ["irradiance", "normal", "rgb"], "exact": ["albedo (truth)"]}),
        "RN2AI_00000.png": (["rgb", "albedo", "albedo (truth)", "irradiance", "irradiance (truth)", "normal"],
                            {"given": ["normal", "rgb"], "exact": ["albedo (truth)", "irradiance (truth)"]}),
    }
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == sorted(drawn)


def test_an_interrupt_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    def interrupted(result, path):
        if result.seed == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "_draw", interrupted)
    assert strata_eval("--task", "RIN2A", "RAI2N", "--json", tmp_path / "part.json", "--pictures", tmp_path,
                       seeds=3) == 130
    rows = json.loads((tmp_path / "part.json").read_text("utf-8"))["rows"]
    shots = {row["task"]: list(row["model"]["shots"]) for row in rows}
    assert shots == {"RIN2A": ["0", "1"], "RAI2N": ["0"]}
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1 + len(rows) and "Interrupted" in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["part.json"]


@pytest.mark.parametrize(("args", "says", "code"), [
    (["--task", "R2AIM"], "the nearest are R2AIN", 2),
    (["--family", "depth"], "the families are intrinsic, alpha", 2),
    (["--first-seed", "99999", "--seeds", "2"], "Shots 99999 to 100000 were asked for", 2),
    (["--first-seed", "-1"], "only 0 to 99999 are held out", 2),
    (["--seeds", "0"], "is not a number from 1 up", 2),
    (["--size", "12x64"], "too small to measure", 2),
    (["--device", "magic"], "There is no device 'magic' here", 2),
    (["--attention", "magic"], "choose one of sdpa", 2),
    (["--model", "nowhere"], "There is no model 'nowhere'", 1),
])
def test_bad_wishes_get_one_sentence(capsys, monkeypatch, args, says, code):
    monkeypatch.setattr(evaluation, "evaluate", None)  # nothing is sampled before they are found
    assert strata_eval("--task", "R2AIN", *args) == code
    captured = capsys.readouterr()
    assert says in captured.err and "Traceback" not in captured.err and captured.out == ""


def test_a_place_that_cannot_be_written_to_is_found_before_sampling(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", None)
    (tmp_path / "file").touch()
    assert strata_eval("--task", "R2AIN", "--json", tmp_path / "file" / "numbers.json") == 1
    assert "Could not write" in capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_without_scikit_image_nothing_is_even_loaded(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    monkeypatch.setattr(evaluation, "load_layer_file", None)
    assert strata_eval("--task", "R2AIN") == 1
    assert "need scikit-image, which is not installed: pip install 'comfyui-strata[train]'" in capsys.readouterr().err

"""The authors' fixtures pass, and readings of the paper that the authors' code does not follow fail by far."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from comfyui_strata.cli import main
from comfyui_strata.joint import adapters, families, transformer
from comfyui_strata.joint.attention import sdpa
from comfyui_strata.joint.families import ALPHA, INTRINSIC, UNITY, VIGU, parse_task, tasks
from comfyui_strata.joint.streams import Own
from comfyui_strata.joint.transformer import Host
from comfyui_strata.model_loaders.parity import unityvideo, univigu
from comfyui_strata.model_loaders.parity.replay import replay
from comfyui_strata.model_loaders.parity.result import relative_error
from comfyui_strata.model_loaders.parity.unityvideo import UnityVideoFixture
from comfyui_strata.model_loaders.parity.unividx import UniVidXFixture
from comfyui_strata.model_loaders.parity.univigu import UniViGUFixture

FIXTURES = Path(__file__).parent / "fixtures/unividx"
RESULTS = [result for folder in (FIXTURES, FIXTURES.parent / "unityvideo", FIXTURES.parent / "univigu")
           for result in replay(folder)]


@pytest.mark.parametrize("result", RESULTS, ids=lambda r: f"{r.family}-{r.case}-{r.dtype}")
def test_fixture(result):
    assert result.passed, result


def test_every_forward_and_sampling_of_both_families_is_among_them():
    cases = {(r.family, r.case.split("/")[0].split("_")[0], r.dtype) for r in RESULTS}
    for family in ("intrinsic", "alpha"):
        assert {(family, "fwd32", "fp32"), (family, "fwdbf16", "bf16"), (family, "run", "fp32"),
                (family, "run", "bf16")} <= cases
        assert sum(r.family == family and r.case.startswith("fwd32/") for r in RESULTS) == 15
        assert sum(r.family == family and r.case.startswith("fwdbf16/") for r in RESULTS) == 15


def fixture(family=INTRINSIC) -> UniVidXFixture:
    return UniVidXFixture(FIXTURES, family, json.loads((FIXTURES / "manifest.json").read_text()))


def worst(case: UniVidXFixture, engine, published, wanted=lambda task: True) -> float:
    """The largest error of the fp32 forwards of those tasks that a variant touches."""
    chosen = [task for task in tasks(published) if wanted(task)]
    assert chosen
    return max(relative_error(case.velocity(engine, parse_task(case.family, str(task)), "fp32"),
                              case.forward[f"fwd32/{task}"]) for task in chosen)


def test_a_feed_forward_adapter_per_stream_fails(monkeypatch):
    case = fixture()
    names, lora = INTRINSIC.file_adapters, {k[5:]: v for k, v in case.weights.items() if k.startswith("lora/")}

    def per_stream(self, weights, x, y, site):
        order, block = self.layout.order, list(self.blocks).index(weights)
        for j, row in enumerate(order):
            a, b = (lora[f"blocks.{block}.{site}.lora_{m}.{names[row]}.weight"] for m in "AB")
            span = slice(j * self.length, (j + 1) * self.length)
            y[:, span] += F.linear(F.linear(x[:, span], a), b)

    published = adapters.ActiveAdapters.__init__

    def keep_layout(self, bank, settings, layout):
        published(self, bank, settings, layout)
        self.layout = layout

    monkeypatch.setattr(adapters.ActiveAdapters, "__init__", keep_layout)
    for part, site in (("add_ffn_in", "ffn.0"), ("add_ffn_out", "ffn.2")):
        monkeypatch.setattr(adapters.ActiveAdapters, part,
                            lambda self, w, x, y, first, site=site: per_stream(self, w, x, y, site))
    assert worst(case, case.engine("fp32"), INTRINSIC) > 1e-2


def test_no_feed_forward_adapter_fails():
    case = fixture()
    engine = case.engine("fp32")
    engine = replace(engine, settings=replace(engine.settings, ffn_strength=0.0))
    assert worst(case, engine, INTRINSIC) > 1e-2


def test_the_alpha_plate_with_the_adapter_com_fails(monkeypatch):
    variant = replace(ALPHA, streams=(replace(ALPHA.streams[0], adapter="com"), *ALPHA.streams[1:]))
    monkeypatch.setitem(families.FAMILIES, "alpha", variant)
    case = fixture(variant)
    assert worst(case, case.engine("fp32"), ALPHA, lambda task: "rgb" in task.targets) > 1e-2


def test_conditions_at_time_zero_fail():
    case = fixture()
    case.forward["in/t_condition"] = torch.zeros(1)
    assert worst(case, case.engine("fp32"), INTRINSIC, lambda task: task.conditions) > 1e-2


def test_conditions_with_their_adapters_on_fail():
    case = fixture()
    engine = case.engine("fp32")
    settings = replace(engine.settings, gates=(adapters.Gate.ALWAYS,) * 4)
    assert worst(case, replace(engine, settings=settings), INTRINSIC, lambda task: task.conditions) > 1e-2


def test_streams_that_do_not_see_each_other_fail():
    case = fixture()

    def each_alone(q, k, v, heads):
        if q.shape[1] != k.shape[1]:
            return sdpa(q, k, v, heads)
        q, k, v = (x.reshape(4, -1, x.shape[-1]) for x in (q, k, v))
        return sdpa(q, k, v, heads).reshape(1, -1, q.shape[-1])

    engine = replace(case.engine("fp32"), host=Host(each_alone))
    assert worst(case, engine, INTRINSIC) > 1e-2


def test_the_command_counts_and_fails_on_a_changed_weight(tmp_path, capsys):
    assert main(["parity", *(str(FIXTURES.parent / name) for name in ("unividx", "unityvideo", "univigu"))]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{len(RESULTS)} passed, 0 failed"
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(FIXTURES, tmp_path / "changed", copy_function=shutil.copyfile)
    weights = load_file(folder / "alpha_weights.safetensors")
    weights["blocks.0.self_attn.q.weight"] += 0.1
    save_file(weights, folder / "alpha_weights.safetensors")
    assert main(["parity", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out and not out.splitlines()[-1].endswith(" 0 failed")


def test_a_folder_without_fixtures_is_named(tmp_path, capsys):
    assert main(["parity", str(tmp_path)]) == 1
    assert "holds no fixtures" in capsys.readouterr().err


@pytest.mark.parametrize("change", [
    {"columns": 0},
    {"own": Own(embedding="layer", head="layer")},
    {"own": Own(embedding="layer", identity="depth")},
    {"own": Own(identity="depth", head="layer")},
    {"prompt": None},
], ids=["beside rgb at its own places", "no identity", "rgb's head", "rgb's embedding", "rgb's text"])
def test_other_readings_of_unityvideo_fail(monkeypatch, change):
    depth = UNITY.index("depth")
    streams = (*UNITY.streams[:depth], replace(UNITY.streams[depth], **change), *UNITY.streams[depth + 1:])
    fixture = UnityVideoFixture(FIXTURES.parent / "unityvideo", "cpu")
    monkeypatch.setattr(unityvideo, "UNITY", replace(UNITY, streams=streams))
    errors = {result.case: result.error for result in fixture.forwards()}
    assert max(error for case, error in errors.items() if case.startswith("depth")) > 1e-2


def test_a_clean_condition_told_its_own_time_fails(monkeypatch):
    paper = replace(UNITY, flow=replace(UNITY.flow, condition_time="own"))
    monkeypatch.setattr(unityvideo, "UNITY", paper)
    (loop,) = UnityVideoFixture(FIXTURES.parent / "unityvideo", "cpu").loops()
    assert loop.error > 1e-2


@pytest.mark.parametrize("change", [{"ffn": None}, {"time": None}], ids=["video's ffn", "video's time"])
def test_other_readings_of_univigu_fail(monkeypatch, change):
    rgb, caption = VIGU.streams
    family = replace(VIGU, streams=(rgb, replace(caption, own=replace(caption.own, **change))))
    fixture = UniViGUFixture(FIXTURES.parent / "univigu", "cpu")
    monkeypatch.setattr(univigu, "_EXACT", family)
    assert max(result.error for result in fixture.forwards() if result.dtype == "fp32") > 1e-2


def test_text_turned_as_the_video_is_fails(monkeypatch):
    fixture, real = UniViGUFixture(FIXTURES.parent / "univigu", "cpu"), transformer.rotate
    monkeypatch.setattr(transformer, "rotate", lambda x, rope, halved=(): real(x, rope))
    assert max(result.error for result in fixture.forwards() if result.dtype == "fp32") > 1e-2

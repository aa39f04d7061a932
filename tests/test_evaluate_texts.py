"""An evaluation of captions, and of layers with prompts of their own, on networks that know nothing."""

import json

import pytest
import torch

from comfyui_strata.cli import main
from comfyui_strata.joint.adapters import AdapterSettings
from comfyui_strata.joint.families import INTRINSIC, UNITY, VIGU, parse_task, with_text_length
from comfyui_strata.joint.sampling import Engine
from comfyui_strata.joint.transformer import Host
from comfyui_strata.model_loaders.vae import load_vae
from comfyui_strata.model_loaders.vocabulary import Vocabulary, make_word_vocabulary
from comfyui_strata.tests.tiny_files import copy_bundled, write_tiny_vae, write_tiny_wan22_vae
from comfyui_strata.training.config import NewBackbone
from comfyui_strata.training.evaluate import Plan, Texts, evaluate, usual_caption
from comfyui_strata.training.new_backbone import make_backbone, wan_sizes
from comfyui_strata.training.new_parts import make_experts
from comfyui_strata.training.rendering.captions import VOCABULARY
from comfyui_strata.training.report import Report
from comfyui_strata.training.shots import synthetic_example

WORDS = Vocabulary(make_word_vocabulary(VOCABULARY), "words")
FAMILY = with_text_length(VIGU, 90)
SIZE = (5, 32, 32)


def engine_of(family) -> Engine:
    """A new network of a family: its pictures are noise, and every token is as likely as any other."""
    backbone = make_backbone(wan_sizes(NewBackbone(128, 64, 1), family), 0)
    experts = make_experts(family, backbone, WORDS.size if family.texts else 0, 0)
    return Engine(backbone, None, AdapterSettings.published(family), Host(), experts)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return load_vae(write_tiny_vae(tmp_path_factory.mktemp("vae") / "vae.safetensors"))


def results(vae, *names, engine=None, steps=3, seeds=range(2), family=FAMILY):
    plan = Plan(tuple(parse_task(family, name) for name in names), seeds, *SIZE, steps=steps)
    texts = Texts(torch.zeros(1, 1, 4096))
    return list(evaluate(engine or engine_of(family), vae, plan, texts, words=WORDS))


def test_a_caption_stands_beside_the_usual_and_that_of_another_shot(vae):
    made = results(vae, "R2C")
    assert [str(result.task) for result in made] == ["R2C", "R2C"]
    for result in made:
        said, true = result.texts["caption"]
        assert true == synthetic_example(FAMILY, result.seed, *SIZE).texts["caption"] and said != true
        assert set(result.numbers) >= {"model", "usual", "shuffled"}
        by_name = {metric.name: numbers for (_, metric), numbers in result.numbers["model"].items()}
        assert by_name["exact match"] == 0 and 0 < by_name["word edits"] <= 1
    report = Report()
    for result in made:
        report.add(result)
    written = json.loads(report.json())
    assert [text["shot"] for text in written["texts"]] == [0, 1] and written["texts"][0]["made"]
    row = next(row for row in written["rows"] if row["metric"] == "word edits")
    assert row["shuffled"]["mean"] > 0 and row["usual"]["mean"] > 0 and row["copy"] is None
    assert "object count" in report.table()


def test_the_same_seed_says_the_same_and_another_one_does_not(vae):
    engine = engine_of(FAMILY)
    a, b = (results(vae, "R2C", engine=engine, seeds=range(1))[0].texts for _ in range(2))
    assert a == b
    assert results(vae, "R2C", engine=engine, seeds=range(1, 2))[0].texts != a


def test_videos_with_and_from_text_are_measured_too(vae):
    both, from_text = results(vae, "t2RC", "C2R", seeds=range(1), steps=2)
    assert set(both.texts) == {"caption"} and from_text.texts == {}
    for result in (both, from_text):
        names = {metric.name for layer, metric in result.numbers["model"] if layer == "rgb"}
        assert "PSNR" in names and result.layers["rgb"].shape == (*SIZE, 3)


def test_a_text_that_is_given_reaches_the_network(vae):
    engine = engine_of(FAMILY)
    torch.nn.init.normal_(engine.model.head.head.weight, std=0.1)
    torch.nn.init.normal_(engine.model.blocks[0].self_attn.o.weight, std=1.0)
    (one,), (other,) = (results(vae, "C2R", engine=engine, seeds=range(1), steps=2) for _ in range(2))
    assert torch.equal(one.layers["rgb"], other.layers["rgb"])
    with torch.no_grad():
        engine.experts.embedding["text"].weight.neg_()
    (changed,) = results(vae, "C2R", engine=engine, seeds=range(1), steps=2)
    assert not torch.equal(one.layers["rgb"], changed.layers["rgb"])


def test_a_caption_longer_than_the_stream_is_said(vae):
    with pytest.raises(ValueError, match="the stream holds 10: shorten it"):
        results(vae, "C2R", family=with_text_length(VIGU, 10))


def test_the_usual_caption_is_one_of_the_world():
    assert len(usual_caption("wide").split(". ")) == 3


def test_layers_read_their_own_prompts(tmp_path):
    vae = load_vae(write_tiny_wan22_vae(tmp_path / "vae.safetensors"))
    engine, size = engine_of(UNITY), (5, 64, 64)
    with torch.no_grad():
        for value in (engine.model.head.head.weight, *(p for p in engine.experts.head.parameters())):
            value.normal_(std=0.1)
    own = {stream.name: torch.randn(1, 4, 4096) for stream in UNITY.streams if stream.prompt}
    plan = Plan((parse_task(UNITY, "R2D"), parse_task(UNITY, "K2R")), range(1), *size, steps=1)

    def run(own):
        return list(evaluate(engine, vae, plan, Texts(torch.zeros(1, 4, 4096), own=own)))

    first, changed = run(own), run(own | {"depth": own["depth"] + 1})
    assert not torch.equal(first[0].layers["depth"], changed[0].layers["depth"])
    with pytest.raises(ValueError, match="text of depth is not embedded"):
        run({})


def test_the_command_needs_a_model_of_the_family(tmp_path, capsys):
    model = str(copy_bundled(tmp_path / "model", INTRINSIC))
    assert main(["eval", "--family", "vigu", "--model", model, "--task", "R2C", "--seeds", "1", "--device", "cpu"]) == 1
    assert "vigu" in capsys.readouterr().err

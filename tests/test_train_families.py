"""`strata train` of UnityVideo and Uni-ViGU: what a run makes, that it goes on exactly, and its stages."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from comfyui_strata.cli import main
from comfyui_strata.joint.families import UNITY
from comfyui_strata.joint.variants import Variant
from comfyui_strata.model_loaders.backbone import load_backbone
from comfyui_strata.model_loaders.layer_files import check_fits, load_layers, stored_prompts
from comfyui_strata.model_loaders.vocabulary import make_word_vocabulary
from comfyui_strata.tests.tiny_files import write_tiny_umt5, write_tiny_vae, write_tiny_wan22_vae
from comfyui_strata.training.config import (
    Data,
    Model,
    NewBackbone,
    Optimiser,
    Run,
    Stage,
    Text,
    TrainConfig,
    config_text,
    read_config,
)
from comfyui_strata.training.trainer import Trainer, train


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Both VAEs, and caches of encoded shots that the tests share."""
    folder = tmp_path_factory.mktemp("parts")
    write_tiny_vae(folder / "vigu.safetensors")
    write_tiny_wan22_vae(folder / "unity.safetensors")
    return folder


@pytest.fixture(params=["vigu", "unity"])
def config(request, parts):
    """A run of a few steps from nothing."""
    family, size = request.param, {"vigu": 32, "unity": 64}[request.param]
    return TrainConfig(
        family, Model(vae=str(parts / f"{family}.safetensors"), train="all"),
        Data(synthetic=3, frames=5, height=size, width=size, cache=str(parts / family)),
        Optimiser(steps=4, batch=2, learning_rate=1e-2, ema=0.9, added_factor=2.0),
        Run(log_every=1, save_every=2, pictures_every=4, picture_steps=2),
        new_backbone=NewBackbone(dim=128, ffn_dim=128, layers=2),
    )


@pytest.fixture(autouse=True)
def state_of_accelerate():
    """It is one for a process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def ended(config, out: Path) -> dict[str, Path]:
    """The files of a run."""
    return train(config, out, cpu=True)


def trainer(config, out: Path) -> Trainer:
    """A run that has not begun."""
    return Trainer(config, out, cpu=True)


def test_a_run_makes_a_model_that_loads(config, tmp_path, capsys):
    made = ended(config, tmp_path / "run")
    assert set(made) == {"layers", "backbone", "log", "config"}
    loaded = load_layers(made["layers"])
    backbone = load_backbone(made["backbone"]).config
    check_fits(loaded, backbone.num_layers, backbone.dim, backbone.ffn_dim)
    assert loaded.family.name == config.family and backbone.in_dim == loaded.family.latents.channels
    assert (loaded.vocabulary is not None) == (config.family == "vigu")
    own = {stream.name for stream in loaded.family.streams if stream.prompt}
    assert set(stored_prompts(made["layers"])) == {"", *own}
    assert main(["models", str(made["layers"])]) == 0
    assert config.family in capsys.readouterr().out
    kinds = {path.suffix for path in (tmp_path / "run" / "pictures").iterdir()}
    assert kinds == {".txt" if config.family == "vigu" else ".png"}


def test_a_run_that_was_cut_off_ends_with_the_same_weights(config, tmp_path):
    whole = ended(config, tmp_path / "whole")
    first = trainer(config, tmp_path / "cut")
    first.folder.begin()
    for _ in range(3):
        first._step()
        if first.step == 2:
            first._save()
    ended(config, tmp_path / "cut")
    for kind in ("layers", "backbone"):
        a, b = (load_file(tmp_path / run / whole[kind].name) for run in ("whole", "cut"))
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_own_parts_alone_or_from_a_start(config, tmp_path):
    """The backbone of a first run stays as it is where only what the family adds is learned, at its own rate."""
    first = ended(config, tmp_path / "first")
    more = replace(config, new_backbone=None, run=replace(config.run, pictures_every=0), model=replace(
        config.model, backbone=str(first["backbone"]), start=str(first["layers"]), train="adapters"))
    run = trainer(more, tmp_path / "more")
    assert {name.split("/")[0] for name in run.learned} == {"own"}
    assert [group["factor"] for group in run.optimiser.param_groups] == [2.0]
    made = ended(more, tmp_path / "more")
    assert set(made) == {"layers", "log", "config"}
    before, after = load_file(first["layers"]), load_file(made["layers"])
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert stored_prompts(made["layers"]).keys() == stored_prompts(first["layers"]).keys()


def test_what_is_learned_follows_the_stages(parts, tmp_path):
    stages = (Stage(2, {"R2C": 1.0}, "prompt", 0.9), Stage(2, {"t2RC": 1.0}, "caption", 0.5))
    config = TrainConfig(
        "vigu", Model(vae=str(parts / "vigu.safetensors"), train="all"),
        Data(synthetic=3, frames=5, height=32, width=32, cache=str(parts / "vigu")),
        Optimiser(steps=4, batch=1), Run(log_every=1, pictures_every=0),
        new_backbone=NewBackbone(dim=128, ffn_dim=64, layers=1), stages=stages, text=Text(length=80))
    made = ended(config, tmp_path / "run")
    lines = [json.loads(line) for line in made["log"].read_text().splitlines()]
    assert [line["tasks"] for line in lines] == [["R2C"], ["R2C"], ["t2RC"], ["t2RC"]]
    run = trainer(config, tmp_path / "again")
    words = [len(run.vocabulary.decode(run.lessons.example(number)[1].ids[0].tolist()).split())
             for number in range(4)]
    assert max(words[:2]) < min(words[2:])  # a prompt says less than its caption
    assert run.lessons.example(0)[1].ids.shape == (1, 80)
    assert load_layers(made["layers"]).family.stream("caption").tokens.length == 80


def test_a_text_encoder_embeds_every_streams_own_prompt(parts, tmp_path):
    encoder = write_tiny_umt5(tmp_path / "umt5.safetensors", d_model=64)
    config = TrainConfig(
        "unity", Model(vae=str(parts / "unity.safetensors"), train="all", text_encoder=str(encoder)),
        Data(synthetic=1, frames=5, height=64, width=64), Optimiser(steps=1), Run(pictures_every=0),
        new_backbone=NewBackbone(dim=128, ffn_dim=64, layers=1))
    with pytest.raises(ValueError, match="embedded in 64 numbers and the backbone takes 4096"):
        ended(config, tmp_path / "run")


def test_the_papers_variant_trains_and_says_so(parts, tmp_path):
    variant = Variant(condition_time="own", modulation="per_stream", together="all")
    config = TrainConfig(
        "unity", Model(vae=str(parts / "unity.safetensors"), train="all"),
        Data(synthetic=3, frames=5, height=64, width=64, cache=str(parts / "unity")),
        Optimiser(steps=2, batch=1), Run(pictures_every=0), variant,
        NewBackbone(dim=128, ffn_dim=64, layers=1), tasks={"RD2S": 1.0})
    made = ended(config, tmp_path / "run")
    loaded = load_layers(made["layers"])
    assert loaded.family.variant == variant and set(loaded.experts.modulation) == set(UNITY.layers)


@pytest.mark.parametrize(("change", "said"), [
    ({"stages": (Stage(3),)}, r"\[\[stages\]\] have 3 steps and \[optimiser\] 4: they must add up"),
    ({"stages": (Stage(4),), "tasks": {"R2C": 1.0}}, r"\[\[stages\]\] say for themselves"),
    ({"text": Text(learn="all")}, r"\[text\] learn is 'all', but one of caption, prompt"),
    ({"text": Text(drop=2.0)}, r"drop is 2, but 0 to 1"),
    ({"tasks": {"R2D": 1.0}}, "no task of the vigu family"),
    ({"variant": Variant(gating="always")}, "vigu family has no gating"),
    ({"family": "unity", "text": Text(length=5)}, "unity family makes no text"),
    ({"data": Data(synthetic=1, frames=4)}, "4n"),
])
def test_wrong_configs_get_one_sentence(parts, tmp_path, change, said):
    config = TrainConfig("vigu", Model(vae=str(parts / "vigu.safetensors"), train="all"), Data(synthetic=1, frames=5),
                         Optimiser(steps=4), new_backbone=NewBackbone())
    with pytest.raises(ValueError, match=said):
        config = replace(config, **change)
        config.check()
        trainer(config, tmp_path / "run")


def test_stages_go_through_the_file(parts, tmp_path):
    stages = (Stage(2, {"R2C": 1.0}, "prompt", 0.9), Stage(2))
    config = TrainConfig("vigu", Model(vae=str(parts / "vigu.safetensors"), train="all"), Data(synthetic=1, frames=5),
                         Optimiser(steps=4), new_backbone=NewBackbone(), stages=stages)
    path = tmp_path / "config.toml"
    path.write_text(config_text(config))
    assert read_config(path) == config
    path.write_text(path.read_text().replace("learn", "lern"))
    with pytest.raises(ValueError, match="did you mean learn"):
        read_config(path)


def test_a_caption_that_the_stream_cannot_hold_or_read_leaves_its_clip_out(parts, tmp_path, capsys):
    for name, text in (("fits", "a red ball"), ("long", "a red ball " * 9), ("odd", "a vermilion ball"), ("none", " ")):
        clip = tmp_path / "clips" / name
        clip.mkdir(parents=True)
        (clip / "caption.txt").write_text(text)
        _still(clip / "rgb.png")
    (tmp_path / "words.json").write_bytes(make_word_vocabulary(["a", "red", "ball"]))
    config = TrainConfig(
        "vigu", Model(vae=str(parts / "vigu.safetensors"), train="all"),
        Data(clips=str(tmp_path / "clips"), frames=1, height=32, width=32), Optimiser(steps=1), Run(pictures_every=0),
        new_backbone=NewBackbone(dim=128, ffn_dim=64, layers=1),
        text=Text(vocabulary=str(tmp_path / "words.json"), length=8))
    run = trainer(config, tmp_path / "run")
    said = capsys.readouterr().err
    assert [run.lessons.cache.get(i).name for i in run.lessons.usable] == ["fits"]
    for sentence in ("'long': The text is of 28 tokens", "'odd': The text holds 'vermilion'", "'none': An empty text"):
        assert sentence in said
    with pytest.raises(ValueError, match="needs a vocabulary: name a spiece.model"):
        trainer(replace(config, text=Text()), tmp_path / "other")


def _still(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32), (200, 30, 30)).save(path)



"""`strata train` from a config and a folder of clips to files, by way of the command line, as a user runs it."""

import os
import shutil
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from comfyui_strata.cli import main
from comfyui_strata.imaging.files.clips import write_clip
from comfyui_strata.joint.families import ALPHA, INTRINSIC, vary
from comfyui_strata.joint.streams import Role
from comfyui_strata.joint.variants import Variant
from comfyui_strata.model_loaders.layer_files import stored_prompts
from comfyui_strata.model_loaders.text import encode_prompts
from comfyui_strata.tests.tiny_files import write_tiny_umt5, write_tiny_vae
from comfyui_strata.tests.tiny_wan import TINY, write_empty_prompt, write_tiny_adapters, write_tiny_backbone
from comfyui_strata.training import latents, run_folder, texts, trainer
from comfyui_strata.training.config import Data, Model, Optimiser, Run, TrainConfig, config_text
from comfyui_strata.training.trainer import Trainer

RATE = Fraction(24)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A VAE, a backbone with adapters and their empty prompt, and clips, some of which are no good."""
    pytest.importorskip("OpenEXR")
    folder = tmp_path_factory.mktemp("a folder, größer")
    write_tiny_vae(folder / "vae.safetensors", base_dim=2)
    write_tiny_backbone(folder / "wan.safetensors")
    write_empty_prompt(write_tiny_adapters(folder / "start.safetensors", INTRINSIC))
    clips = folder / "clips"
    add(clips / "Büro 窓 1", rgb="mp4", albedo="png", irradiance="exr", normal="exr")
    (clips / "Büro 窓 1" / "prompt.txt").write_text("ein Büro", encoding="utf-8")
    add(clips / "lacks two", rgb="png", normal="png")
    add(clips / "lone", albedo="mp4")
    add(clips / "unequal", frames={"rgb": 7}, rgb="png", normal="mp4")
    add(clips / "too short", frames={"normal": 3}, rgb="png", normal="png")
    add(clips / "cut off", rgb="mp4")
    video = clips / "cut off" / "rgb.mp4"
    video.write_bytes(video.read_bytes()[:700])
    (clips / "empty").mkdir()
    return folder


def add(folder: Path, frames: dict[str, int] | None = None, **layers: str) -> None:
    """A clip as a folder with these layers, in these formats; of 5 frames where `frames` does not say otherwise."""
    for i, (layer, format) in enumerate(layers.items()):
        count = (frames or {}).get(layer, 5)
        t, y, x = torch.meshgrid(*(torch.linspace(0, 1, n) for n in (count, 32, 32)), indexing="ij")
        images = 0.1 + 0.8 * torch.stack([x, y, (t + x + i / 4) % 1], dim=-1)
        write_clip(images, folder / layer, RATE, format, "normal" if layer == "normal" else "colour")


@pytest.fixture
def config(parts):
    return TrainConfig(
        "intrinsic",
        Model(vae=str(parts / "vae.safetensors"), backbone=str(parts / "wan.safetensors"),
              start=str(parts / "start.safetensors"), rank=4),
        Data(clips=str(parts / "clips"), frames=5, height=32, width=32),
        Optimiser(steps=3, learning_rate=1e-2), Run(log_every=1, save_every=2, pictures_every=3, picture_steps=1))


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """accelerate holds one precision a process; here a process does many runs."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def strata(tmp_path, capsys):
    """Writes a config and runs `strata train CONFIG --out OUT`: the exit code, the lines of stdout and of stderr."""
    def run(config: TrainConfig | None, *more: str, out: Path = tmp_path / "out put") -> tuple[int, list, list]:
        path = tmp_path / "config ü.toml"
        if config is not None:
            path.write_text(config_text(config), encoding="utf-8")
        given = [] if config is None else [str(path)]
        capsys.readouterr()
        code = main(["train", *given, "--out", str(out), "--cpu", *more])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()
    return run


def result(out: Path) -> dict[str, torch.Tensor]:
    """The newest checkpoint of a run, whole."""
    return load_file(max((out / "checkpoints").glob("step_*.safetensors")))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---- what works ----


def test_a_folder_with_good_and_bad_clips_becomes_adapters(config, strata, tmp_path, capsys, monkeypatch):
    seen, real = [], Trainer._example

    def example(self, number):
        seen.append(real(self, number))
        return seen[-1]

    monkeypatch.setattr(Trainer, "_example", example)
    code, out, err = strata(replace(config, optimiser=replace(config.optimiser, steps=8)))
    assert code == 0
    skipped = sorted(line for line in err if "Clip '" in line)
    assert [line.partition("': ")[0] for line in skipped] == [
        "Skipped: Clip 'cut off", "Skipped: Clip 'empty", "Skipped: Clip 'too short"]
    assert "rgb.mp4" in skipped[0] and "has no layer" in skipped[1] and "3 frames" in skipped[2]
    assert err.count("3 of 7 clips cannot be used and are left out.") == 1
    # Eight steps are two epochs: each of the four good clips is seen twice, with streams absent where it lacks layers.
    layers = [tuple(bool(stream.any()) for stream in clean[0]) for _, (clean, *_) in seen]
    wanted = [(1, 1, 1, 1), (1, 0, 0, 1), (0, 1, 0, 0), (1, 0, 0, 1)]
    assert sorted(layers) == sorted(2 * [tuple(map(bool, present)) for present in wanted])
    for (drawn, _), there in zip(seen, layers):
        assert [role is not Role.ABSENT for role in drawn.task.roles] == list(there)
    made = dict(line.split("\t") for line in out)
    assert list(made) == ["adapters", "log", "config"] and all(Path(path).is_file() for path in made.values())
    folder = tmp_path / "out put"
    assert sorted(p.name for p in folder.iterdir()) == [
        "cache", "checkpoints", "config.toml", "intrinsic.empty_prompt.safetensors", "intrinsic.safetensors",
        "log.jsonl", "pictures"]
    assert main(["models", made["adapters"], str(folder / "intrinsic.empty_prompt.safetensors")]) == 0
    told = capsys.readouterr().out
    assert "UniVidX adapters of the intrinsic family" in told and "empty prompt" in told


def test_a_clip_without_a_layer_that_a_task_makes_is_left_out(config, strata, tmp_path):
    """It used to end the run when its turn came."""
    code, _, err = strata(replace(config, tasks={"R2AIN": 1.0, "RN2AI": 1.0},
                                  run=replace(config.run, pictures_every=0)))
    assert code == 0 and not any("[tasks]" in line for line in err)  # each has an albedo or a normal
    code, _, err = strata(replace(config, tasks={"AIN2R": 1.0}, optimiser=replace(config.optimiser, steps=8)),
                          out=tmp_path / "made")
    assert code == 0
    assert [line for line in err if "[tasks]" in line] == [
        "Skipped: Clip 'lone' has only albedo, from which no task of [tasks] can be learned."]


def test_interrupted_and_resumed_it_ends_the_same(config, strata, tmp_path, monkeypatch):
    assert strata(config, out=tmp_path / "whole")[0] == 0
    real = Trainer._step

    def pressed(self):
        if self.step == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", pressed)
        code, _, err = strata(config)
    assert code == 130 and "Stopped after step 1 of 3; go on with --resume." in err
    code, _, err = strata(None, "--resume")
    assert code == 0 and "Going on from step 1." in err
    assert same(result(tmp_path / "out put"), result(tmp_path / "whole"))
    name = "intrinsic.safetensors"
    assert same(load_file(tmp_path / "out put" / name), load_file(tmp_path / "whole" / name))


def test_a_text_encoder_embeds_each_prompt_once(config, strata, tmp_path, parts, monkeypatch):
    encoder = write_tiny_umt5(tmp_path / "umt5.safetensors", d_model=TINY.text_dim)
    calls, real = [], encode_prompts

    def count(path, prompts, *rest, **options):
        calls.append(prompts)
        return real(path, prompts, *rest, **options)

    monkeypatch.setattr(texts, "encode_prompts", count)
    config = replace(config, model=replace(config.model, start="", text_encoder=str(encoder)),
                     run=replace(config.run, pictures_every=0))
    assert strata(config)[0] == 0
    assert calls == [["", "ein Büro"]]
    run = Trainer(replace(config, data=replace(config.data, cache=str(tmp_path / "out put" / "cache"))), tmp_path / "2")
    assert len(calls) == 1
    wanted = real(encoder, ["ein Büro", ""]).float()
    assert torch.equal(run.lessons.texts.context(["ein Büro", ""]), wanted)
    assert torch.equal(run.lessons.texts.context(["", ""]), wanted[1:])
    assert torch.equal(stored_prompts(tmp_path / "out put" / "intrinsic.safetensors")[""], wanted[1:])
    told = set()
    for number in range(4 * 12):
        drawn, lesson = run._example(number)
        reads = drawn.reads == "prompt"
        text = reads and bool(lesson.clean[0].flatten(1).any(1).all())  # of the clips, the whole one has the prompt
        assert torch.equal(lesson.context, wanted[:1] if text else wanted[1:])
        told.add((reads, text))
    assert told >= {(True, True), (False, False)}
    # What a damaged disk left of an embedding is made again.
    for path in (tmp_path / "out put" / "cache").glob("text-*"):
        path.write_bytes(path.read_bytes()[:50])
    run.lessons.texts.prepare(["ein Büro"])
    assert calls[1:] == [["", "ein Büro"]]
    assert torch.equal(run.lessons.texts.context(["ein Büro", ""]), wanted)
    # Another encoder of that name makes its own.
    write_tiny_umt5(encoder, d_model=64)
    other = texts.Texts(INTRINSIC, {}, str(encoder), tmp_path / "out put" / "cache", "cpu")
    other.prepare(["ein Büro"])
    assert len(calls) == 3 and other.context(["ein Büro"]).shape == (1, 512, 64)


def test_a_config_from_notepad_is_read(config, tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text("family = 3", encoding="utf-8-sig")
    assert main(["train", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "family is 3, but str is needed" in capsys.readouterr().err


# ---- what is refused, in one sentence ----


def refused(answer: tuple[int, list, list], code: int = 1) -> str:
    """The sentence in which a run ended that made nothing."""
    got, out, err = answer
    assert got == code and out == []
    ends = [line for line in err if line.startswith("strata")]
    assert ends == err[-1:] and ends[0][-1] in ".?"
    return ends[0]


def test_no_clip_that_can_be_used(config, strata, tmp_path, parts):
    for name in ("too short", "empty"):
        shutil.copytree(parts / "clips" / name, tmp_path / "clips" / name)
    config = replace(config, data=replace(config.data, clips=str(tmp_path / "clips")))
    assert "None of the 2 clips can be used, first: Clip 'empty': it has no layer" in refused(strata(config))
    shutil.copytree(parts / "clips" / "lone", tmp_path / "clips" / "lone")  # mended, the same folder will do
    assert strata(config)[0] == 0


@pytest.mark.parametrize("table, field, value, sentence", [
    ("model", "vae", "nowhere.safetensors", "There is no file"),
    ("model", "vae", "wan.safetensors", "wan.safetensors is not a Wan VAE"),
    ("model", "backbone", "nowhere.safetensors", "There is no file"),
    ("model", "backbone", "vae.safetensors", "'vae.safetensors' is no Wan backbone: it is Wan 2.1 VAE."),
    ("model", "start", "nowhere.safetensors", "There is no file"),
    ("model", "start", "vae.safetensors", "'vae.safetensors' holds no layers: it is Wan 2.1 VAE."),
    ("model", "start", "alpha.safetensors", "'alpha.safetensors' belongs to the alpha family"),
    ("model", "start", "narrow.safetensors", "is of shape (2, 128), and (4, 128) is needed; give the same backbone, "),
    ("model", "start", "no_text.safetensors", "a text_encoder (umt5_xxl) is needed"),
    ("model", "text_encoder", "nowhere.safetensors", "There is no text encoder at"),
    ("model", "text_encoder", "vae.safetensors", "vae.safetensors is not a UMT5 text encoder"),
    ("data", "clips", "nowhere", "There is nothing at"),
    ("data", "clips", "vae.safetensors", "is neither a folder of clips nor a .csv"),
    ("data", "frames", 6, "take 5 or 9"),
    ("data", "height", 40, "multiples of 16"),
])
def test_what_is_missing_or_of_another_kind(config, strata, parts, tmp_path, table, field, value, sentence):
    for name in ("vae", "wan"):
        os.link(parts / f"{name}.safetensors", tmp_path / f"{name}.safetensors")
    write_empty_prompt(write_tiny_adapters(tmp_path / "alpha.safetensors", ALPHA))
    write_empty_prompt(write_tiny_adapters(tmp_path / "narrow.safetensors", INTRINSIC, rank=2))
    write_tiny_adapters(tmp_path / "no_text.safetensors", INTRINSIC)
    value = str(tmp_path / value) if isinstance(value, str) else value
    wrong = replace(config, **{table: replace(getattr(config, table), **{field: value})})
    assert sentence in refused(strata(wrong))
    assert not (tmp_path / "out put" / "config.toml").exists()  # or the mended config would be refused


def test_clips_of_which_no_task_makes_a_layer(config, strata, tmp_path, parts):
    shutil.copytree(parts / "clips" / "lone", tmp_path / "clips" / "lone")
    config = replace(config, data=replace(config.data, clips=str(tmp_path / "clips")), tasks={"AIN2R": 1.0})
    assert "No clip has the layers of one of the tasks: see the lines above" in refused(strata(config))


@pytest.mark.parametrize("held, asked", [(Variant(gating="always"), Variant()), (Variant(), Variant(ffn="per_stream")),
                                         (Variant(adapters="shared"), Variant(condition_attention="conditions"))])
def test_a_start_of_another_variant(config, strata, tmp_path, held, asked):
    start = write_tiny_adapters(tmp_path / "other.safetensors", vary(INTRINSIC, held))
    write_empty_prompt(start)
    said = refused(strata(replace(config, model=replace(config.model, start=str(start)), variant=asked)))
    assert f"'other.safetensors' holds the variant {held}, but the config asks for {asked}: " in said
    code, _, _ = strata(replace(config, model=replace(config.model, start=str(start)), variant=held))
    assert code == 0


@pytest.mark.parametrize("in_dim, out_dim", [(48, 48), (68, 64)])  # Wan 2.2 5B; four streams along the channels
def test_a_backbone_of_other_channels(config, strata, tmp_path, in_dim, out_dim):
    backbone = write_tiny_backbone(tmp_path / "other.safetensors", replace(TINY, in_dim=in_dim, out_dim=out_dim))
    said = refused(strata(replace(config, model=replace(config.model, backbone=str(backbone)))))
    assert f"has {in_dim} channels in and {out_dim} out, but the intrinsic family" in said


def test_a_text_encoder_of_another_width(config, strata, tmp_path):
    encoder = write_tiny_umt5(tmp_path / "umt5.safetensors")
    config = replace(config, model=replace(config.model, start="", text_encoder=str(encoder)))
    assert "embedded in 64 numbers and the backbone takes 4096" in refused(strata(config))


def test_a_folder_that_holds_a_run_is_gone_on_with_or_left_alone(config, strata, tmp_path):
    assert strata(config)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out put").rglob("*")}
    assert "holds a run already: go on with --resume" in refused(strata(config), 2)
    assert "--resume goes on by" in refused(strata(config, "--resume"), 2)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out put").rglob("*")} == before
    assert "There is no training config" in refused(strata(None, "--resume", out=tmp_path / "empty"), 2)
    assert "CONFIG is needed" in refused(strata(None, out=tmp_path / "empty"), 2)
    assert not (tmp_path / "empty").exists()


def test_a_file_in_the_place_of_the_results_is_refused_before_any_work(config, strata, tmp_path, monkeypatch):
    (tmp_path / "out put").write_text("mine")
    monkeypatch.setattr(trainer, "load_vae", None)
    monkeypatch.setattr(trainer, "load_backbone", None)
    assert "Could not write" in refused(strata(config))
    assert (tmp_path / "out put").read_text() == "mine"


# ---- a disk that is full ----


def test_a_disk_too_full_to_cache_on(config, strata, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(f"Could not write {path}: No space left on device.")

    monkeypatch.setattr(latents, "replace_file", full)
    code, _, err = strata(config)
    assert code == 0 and len([line for line in err if "No space left" in line]) == 1
    assert sum("Skipped: Clip 'too short'" in line for line in err) == 1


def test_a_disk_too_full_to_save_on(config, strata, tmp_path, monkeypatch):
    assert strata(config, out=tmp_path / "whole")[0] == 0
    name = "intrinsic.safetensors"

    def refuse(path, *rest):
        raise OSError(f"Could not write {path}: No space left on device; free some space.")

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "replace_tensors", refuse)
        code, out, err = strata(config)
    assert code == 1 and out == [] and "Could not write" in err[-1]
    assert any(line.endswith("The newest checkpoint is that of step 2.") for line in err)
    assert not (tmp_path / "out put" / name).exists()
    code, out, _ = strata(None, "--resume")  # every step is done, yet the adapters are still to be written
    assert code == 0
    assert same(load_file(tmp_path / "out put" / name), load_file(tmp_path / "whole" / name))

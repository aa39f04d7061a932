"""`strata caption`, on a tiny model with random weights: what it says is gibberish, but always the same."""

import json
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfyui_strata.imaging.files.clip_search import search_clips
from comfyui_strata.imaging.files.clips import write_clip
from comfyui_strata.imaging.sizes.shot_windows import merge_captions
from comfyui_strata.joint import sampling
from comfyui_strata.joint.families import INTRINSIC, VIGU, parse_task
from comfyui_strata.joint.sampling import Texts
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.model_loaders.parity.univigu import UniViGUFixture
from comfyui_strata.model_loaders.safetensors_file import read_header
from comfyui_strata.standalone import captions as host
from comfyui_strata.standalone.captions import CAPTIONER, Captioner, CaptionSettings, TextDraw, sidecar_path
from comfyui_strata.tests.test_cli import clip, strata
from comfyui_strata.tests.tiny_files import copy_bundled, write_tiny_umt5, write_tiny_vae
from comfyui_strata.tests.tiny_wan import tiny_config, tiny_vocabulary, write_tiny_backbone, write_tiny_layers

pytest.importorskip("tokenizers", reason="vocabularies need tokenizers")
FIXTURE = Path(__file__).parent / "fixtures/univigu"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_backbone(folder / "wan.safetensors", tiny_config(VIGU))
    write_tiny_layers(folder / "layers.safetensors", VIGU)
    write_tiny_vae(folder / "vae.safetensors")
    return folder


@pytest.fixture
def shots(tmp_path) -> Path:
    """A folder of a video, a sequence and a still, deep and strangely named."""
    shots = tmp_path / "my shots"
    (shots / "deep é").mkdir(parents=True)
    write_clip(clip(9), shots / "a 狗", Fraction(24), "mp4")
    write_clip(clip(5).flip(2), shots / "frames", Fraction(24), "png")
    still = write_clip(clip(1).flip(1), tmp_path / "still", Fraction(24), "png")
    next(still.iterdir()).rename(shots / "deep é" / "b.png")
    return shots


@pytest.fixture
def video(shots) -> Path:
    return shots / "a 狗.mp4"


def caption(model, *args, steps=4, length=8, size="32x32") -> int:
    wishes = ("--steps", steps, "--length", length, *(("--size", size) if size else ()))
    return strata("caption", "--model", model, "--device", "cpu", *wishes, *args)


def said(capsys) -> dict[str, str]:
    """What stdout has: path -> caption."""
    return dict(line.split("\t") for line in capsys.readouterr().out.splitlines())


def as_json(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_for_every_clip_of_a_folder_the_model_loaded_once(model, shots, capsys, monkeypatch):
    made = []
    load = host.load_engine
    monkeypatch.setattr(host, "load_engine", lambda *args: made.append(1) or load(*args))
    assert caption(model, shots) == 0
    captions = said(capsys)
    assert list(captions) == [str(shots / name) for name in ("a 狗.mp4", "deep é/b.png", "frames")]
    assert made == [1] and len(set(captions.values())) > 1
    words = set(tiny_vocabulary().decode().replace('"', " ").split())
    assert all(word.strip(".,") in words for text in captions.values() for word in text.split())
    assert not list(shots.rglob("*.txt"))


def test_a_seed_decides_and_other_clips_do_not(model, video, shots, capsys):
    assert caption(model, video, length=32) == caption(model, shots, length=32) == 0
    alone, among = capsys.readouterr().out.splitlines()[:2]
    assert alone == among
    assert caption(model, video, "--seed", 2, length=32) == 0
    assert capsys.readouterr().out.strip() != alone


def test_json_says_what_was_looked_at(model, video, capsys, monkeypatch):
    forwards = []
    predict = sampling.predict
    monkeypatch.setattr(sampling, "predict", lambda *args, **more: forwards.append(1) or predict(*args, **more))
    assert caption(model, video, "--json", "--frames", 5, steps=100) == 0
    [row] = as_json(capsys)
    assert row["path"] == str(video) and row["frames"] == [[0, 2, 4, 6, 8]] and row["size"] == [32, 32]
    assert len(row["tokens"]) == 1 and len(row["tokens"][0]) == 8 and row["seconds"] > 0 and row["caption"]
    assert row["forwards"] == len(forwards) < 100  # where no token jumps, nothing is computed


def test_the_published_sampler_needs_every_forward(model, video, capsys):
    captions = []
    for _ in range(2):
        assert caption(model, video, "--json", "--sampler", "published", steps=10) == 0
        [row] = as_json(capsys)
        assert row["forwards"] == 10
        captions.append(row["caption"])
    assert captions[0] == captions[1] != ""


def test_the_published_sampler_is_the_published_one_to_the_token():
    fixture = UniViGUFixture(FIXTURE, "cpu")
    run = "v2t_sampler.seed7"
    steps = len(fixture.io[f"{run}.time_t"])
    draw = TextDraw.caption("published", steps, fixture.about["S"], fixture.about["vocab"],
                            torch.Generator().manual_seed(7))
    with host.forward_bar(draw.forwards, run) as bar:
        ids = draw.sample(fixture.engine, parse_task(VIGU, "R2C"), fixture.io["in.x_v"].unsqueeze(1),
                          Texts(torch.zeros_like(fixture.io["in.cond_t"][:, :1])), bar)
    assert draw.forwards == steps and torch.equal(ids, fixture.io[f"{run}.result"])


@pytest.mark.parametrize(("wishes", "size", "frames"), [
    ((), [48, 64], [list(range(9))]),
    (("--fit", "cover"), [48, 64], [list(range(9))]),
    (("--fit", "crop", "--frames", 1), [48, 64], [[4]]),
    (("--long", "windows", "--frames", 5), [48, 64], [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]),
    (("--long", "windows"), [48, 64], [list(range(9))]),
])
def test_size_and_frames_are_as_asked(model, video, capsys, wishes, size, frames):
    assert caption(model, video, "--json", *wishes, size="64x48") == 0
    [row] = as_json(capsys)
    assert row["size"] == size and row["frames"] == frames and len(row["tokens"]) == len(frames)


def test_a_whole_clip_of_any_size_and_a_smaller_part_of_it(model, tmp_path, capsys):
    odd = write_clip(clip(3, 37, 50), tmp_path / "odd", Fraction(24), "png")
    assert caption(model, odd, "--json", "--fit", "whole", size=None) == 0
    assert caption(model, odd, "--json", "--fit", "crop", size="33x20") == 0
    whole, part = as_json(capsys)
    assert whole["size"] == [37, 50] and part["size"] == [20, 33] and whole["frames"] == [[1]]


def test_the_default_size_covers_without_being_asked(model, tmp_path, capsys, monkeypatch):
    seen = []

    def small(self, images):
        seen.append(tuple(images.shape))
        return torch.zeros(1, 1, 16, 1, 4, 4)

    monkeypatch.setattr(Captioner, "_latents", small)
    still = write_clip(clip(1), tmp_path / "still", Fraction(24), "png")
    assert caption(model, still, size=None) == 0 and seen == [(1, 480, 832, 3)]


def test_windows_are_joined_into_one_caption(model, video, capsys):
    assert caption(model, video, "--json", "--long", "windows", "--frames", 5, length=6) == 0
    [row] = as_json(capsys)
    captioner = Captioner(find_models(str(model), VIGU), CaptionSettings())
    assert row["caption"] == merge_captions([captioner.vocabulary.decode(ids) for ids in row["tokens"]])


def test_sidecars_are_written_kept_and_overwritten(model, shots, video, capsys):
    assert caption(model, shots, "--sidecar") == 0
    captions = said(capsys)
    beside = {str(shots / name): shots / text for name, text in (
        ("a 狗.mp4", "a 狗.txt"), ("deep é/b.png", "deep é/b.txt"), ("frames", "frames.txt"))}
    assert {clip: file.read_text(encoding="utf-8").strip() for clip, file in beside.items()} == captions
    (shots / "frames.txt").unlink()
    (shots / "a 狗.txt").write_text("mine")
    assert caption(model, shots, "--sidecar") == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and "frames\t" in out and "a 狗.txt is kept" in err and "--overwrite" in err
    assert (shots / "a 狗.txt").read_text() == "mine"
    assert caption(model, shots, "--sidecar", "--overwrite") == 0
    assert said(capsys) == captions and (shots / "a 狗.txt").read_text(encoding="utf-8").strip() == captions[str(video)]
    assert not [file for file in shots.rglob("*") if file.name.startswith(".")]


def test_clips_that_would_share_a_sidecar(model, video, capsys):
    twin = write_clip(clip(1), video.with_name("x"), Fraction(24), "png")
    next(twin.iterdir()).rename(video.with_suffix(".png"))
    assert caption(model, video, video.with_suffix(".png"), "--sidecar") == 1
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and "a 狗.txt is the caption of the clip before already" in err


def test_the_sidecar_of_this_folder_lies_beside_it(tmp_path, monkeypatch):
    (tmp_path / "shot.v2").mkdir()
    monkeypatch.chdir(tmp_path / "shot.v2")
    assert sidecar_path(Path(".")) == tmp_path / "shot.v2.txt"


def test_a_hint_is_read_and_needs_a_text_encoder(model, video, tmp_path, capsys):
    assert caption(model, video, "--hint", "a red ball") == 1
    assert "no text encoder and the prompt needs one: add --text-encoder" in capsys.readouterr().err
    encoder = write_tiny_umt5(tmp_path / "umt5.safetensors", d_model=4096)
    lines = []
    for hint in ("a red ball", "a blue cube", "  "):
        assert caption(model, video, "--text-encoder", encoder, "--hint", hint, length=64) == 0
        lines.append(capsys.readouterr().out)
    assert caption(model, video, length=64) == 0
    assert lines[2] == capsys.readouterr().out and len(set(lines)) == 3
    assert sorted(file.name for file in model.iterdir()) == ["layers.safetensors", "vae.safetensors", "wan.safetensors"]


def test_an_empty_caption_is_shown_and_not_written(model, video, capsys, monkeypatch):
    monkeypatch.setattr(host.TextDraw, "sample", lambda self, *_: torch.zeros(1, 8, dtype=torch.int64))
    assert caption(model, video, "--sidecar") == 0
    out, err = capsys.readouterr()
    assert out == f"{video}\t(no text)\n" and "a 狗.txt is not written" in err
    assert not video.with_suffix(".txt").exists()
    assert caption(model, video, "--json") == 0 and as_json(capsys)[0]["caption"] == ""


def test_bad_clips_cost_one_sentence_each_and_the_others_go_on(model, video, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video.read_bytes()[:400])
    text = tmp_path / "notes.doc"
    text.write_text("no clip")
    assert caption(model, tmp_path / "nowhere.mp4", empty, broken, text, video) == 1
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and out.startswith(str(video))
    lines = err.splitlines()
    assert len(lines) == 4 and all(line.startswith("strata caption: ") for line in lines) and "Traceback" not in err
    for name in ("nowhere.mp4 does not exist", "empty holds no clips", "broken.mp4 could not be read", "notes.doc is"):
        assert name in err


def test_a_clip_too_small_to_be_cropped_is_named(model, video, capsys):
    assert caption(model, video, "--fit", "crop", size="128x64") == 1
    assert capsys.readouterr().err == (
        f"strata caption: {video}: The clip is 64x48 pixels, and cropping needs 128x64 at least: fit it by cover, or "
        "give a smaller size.\n")


def test_pixels_that_are_no_numbers_are_refused(model, tmp_path, capsys):
    OpenEXR = pytest.importorskip("OpenEXR")
    images = clip(2)
    frames = write_clip(images, tmp_path / "nan", Fraction(24), "exr")
    file = sorted(frames.iterdir())[0]
    pixels = images[0].clone()
    pixels[3, 4] = torch.nan
    OpenEXR.File({}, {"RGB": pixels.numpy()}).write(str(file))
    assert caption(model, frames, "--fit", "whole", size=None) == 1
    assert "NaN or infinite pixels" in capsys.readouterr().err


def test_an_interrupt_leaves_what_is_finished(model, shots, capsys, monkeypatch):
    finish = Captioner.caption

    def second_is_interrupted(self, path):
        if path.name == "b.png":
            raise KeyboardInterrupt
        return finish(self, path)

    monkeypatch.setattr(Captioner, "caption", second_is_interrupted)
    assert caption(model, shots, "--sidecar") == 130
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and "Interrupted" in err
    assert [file.name for file in shots.rglob("*") if file.suffix in (".txt", ".tmp")] == ["a 狗.txt"]


def test_a_sidecar_that_cannot_be_written_is_one_sentence(model, video, capsys):
    video.with_suffix(".txt").mkdir()
    assert caption(model, video, "--sidecar", "--overwrite") == 1
    out, err = capsys.readouterr()
    assert out.startswith(str(video)) and "Could not write" in err and "Traceback" not in err


@pytest.mark.parametrize(("args", "says"), [
    (("--frames", 8), "1, 5, 9, ... 81 frames at once, not 8"),
    (("--frames", 85), "1, 5, 9, ... 81 frames at once, not 85"),
    (("--frames", 0), "is not a number from 1 up"),
    (("--steps", 0), "is not a number from 1 up"),
    (("--fit", "stretch"), "invalid choice"),
    (("--long", "cut"), "invalid choice"),
    (("--sampler", "magic"), "invalid choice"),
    (("--size", "64"), "is not WIDTHxHEIGHT"),
    (("--fit", "whole"), "keeps its own size"),
    (("--overwrite",), "add that, or leave it out"),
    (("--device", "magic"), "There is no device 'magic' here"),
    (("--attention", "magic"), "choose one of sdpa"),
])
def test_wrong_use_exits_with_2(model, video, capsys, args, says):
    assert caption(model, video, *args) == 2
    out, err = capsys.readouterr()
    assert says in err and not out and "Traceback" not in err


def test_no_clip_is_wrong_use(model):
    assert caption(model) == 2


def _without_head(state):
    return {name: value for name, value in state.items() if not name.startswith("text_head.")}


def _another_size(state):
    wrong = {name: torch.cat((value, value[:3])) for name, value in state.items()
             if name == "vocab_embed.weight" or name.startswith("text_head.linear")}
    return state | wrong


@pytest.mark.parametrize(("change", "says"), [(_without_head, "text_head"), (_another_size, "vocabulary")])
def test_damaged_models_are_one_sentence(model, video, tmp_path, capsys, change, says):
    layers = model / "layers.safetensors"
    damaged = tmp_path / "damaged.safetensors"
    save_file(change(load_file(layers)), damaged, read_header(layers).metadata)
    assert caption(model, video, "--adapters", damaged) == 1
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "damaged.safetensors" in err and says in err


def test_a_model_of_another_family_is_one_sentence(video, tmp_path, capsys):
    assert strata("caption", video, "--model", copy_bundled(tmp_path / "model", INTRINSIC)) == 1
    assert "model' holds no adapters of the vigu family" in capsys.readouterr().err


def test_the_captioner_is_the_family_that_makes_text():
    assert CAPTIONER is VIGU


def test_names_that_are_no_text_are_printed_as_they_are(model, tmp_path):
    if os.name != "posix":
        pytest.skip("only there are names bytes")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff shot"))
    try:
        frames = write_clip(clip(1), odd, Fraction(24), "png")
    except OSError:
        pytest.skip("this disk takes no such name")
    done = subprocess.run([sys.executable, "-m", "comfyui_strata.cli", "caption", str(next(frames.iterdir())),
                           "--model", str(model), "--steps", "1", "--length", "4", "--size", "32x32", "--device",
                           "cpu"], capture_output=True, check=True)
    assert re.match(rb".*/\xff shot.1001.png\t\w", done.stdout)
    assert b"forward" not in done.stderr  # no progress bar off a terminal


def test_folders_are_searched(shots, tmp_path):
    clips = [shots / "a 狗.mp4", shots / "deep é" / "b.png", shots / "frames"]
    assert search_clips(shots) == clips
    assert search_clips(shots / "frames") == [shots / "frames"]
    (shots / ".hidden").mkdir()
    write_clip(clip(1), shots / ".hidden" / "x", Fraction(24), "mp4")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("beach.jpg", "room.png", "notes.txt"):
        (photos / name).write_bytes(b"")
    assert search_clips(photos) == [photos / "beach.jpg", photos / "room.png"]
    assert search_clips(tmp_path) == [*clips, photos / "beach.jpg", photos / "room.png"]
    assert search_clips(photos / "room.png") == [photos / "room.png"]

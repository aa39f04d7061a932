"""The `strata` command, on the bundled tiny model and small clips."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from comfyui_strata.cli import main
from comfyui_strata.imaging.files.clips import read_clip, write_clip
from comfyui_strata.joint.channels import backbone_channels
from comfyui_strata.joint.families import ALPHA, INTRINSIC, UNITY, VIGU, tasks, vary
from comfyui_strata.joint.variants import Variant
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.model_loaders.vocabulary import Vocabulary
from comfyui_strata.standalone import layers, loading
from comfyui_strata.tests.tiny_files import copy_bundled, write_tiny_umt5, write_tiny_vae, write_tiny_wan22_vae
from comfyui_strata.tests.tiny_wan import (
    TINY,
    tiny_config,
    write_empty_prompt,
    write_tiny_adapters,
    write_tiny_backbone,
    write_tiny_layers,
)


def clip(frames=5, height=48, width=64) -> torch.Tensor:
    """A moving gradient [F, H, W, 3]."""
    t, y, x = torch.meshgrid(torch.arange(frames) / 20, torch.linspace(0, 1, height), torch.linspace(0, 1, width),
                             indexing="ij")
    return torch.stack(((x + t) % 1, y, 0.5 * (x + y)), dim=-1)


@pytest.fixture
def plate(tmp_path) -> Path:
    return write_clip(clip(), tmp_path / "plate é 1", Fraction(24000, 1001), "mp4")


def strata(*args) -> int:
    """Run the command in this process."""
    try:
        return main([str(a) for a in args])
    except SystemExit as stop:  # argparse's own errors
        return int(stop.code or 0)


def run(plate, out, *more, task="R2AIN", family="intrinsic", steps=1) -> int:
    return strata("run", "--family", family, "--task", task, "--input", f"rgb={plate}", "--out", out, "--steps", steps,
                  *more)


def test_tasks(capsys):
    assert strata("tasks") == 0
    assert len(capsys.readouterr().out.splitlines()) == 30 + 15 + 3  # UniVidX's two families, unity, vigu
    assert strata("tasks", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"family": "alpha", "task": "R2PFB", "given": ["rgb"], "made": ["alpha", "fg", "bg"], "text": False} in rows


@pytest.mark.parametrize("args", [[], ["nonsense"], ["run"], ["run", "--family", "intrinsic"], ["eval"]])
def test_wrong_use_exits_with_2(args, capsys):
    assert strata(*args) == 2


@pytest.mark.parametrize("command", ["", "tasks", "run", "caption", "eval", "parity", "models", "doctor"])
def test_help_everywhere(command, capsys):
    assert strata(*command.split(), "--help") == 0
    assert "usage: strata" in capsys.readouterr().out


@pytest.mark.parametrize(("family", "task", "made"), [
    ("intrinsic", "R2AIN", ["albedo", "irradiance", "normal"]), ("alpha", "R2PFB", ["alpha", "fg", "bg"]),
])
def test_layers_come_out_in_the_clips_size_length_and_rate(plate, tmp_path, capsys, family, task, made):
    assert run(plate, tmp_path / "out", "--format", "mp4", task=task, family=family) == 0
    printed = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert list(printed) == [*made, "contact sheet", "settings"]
    for layer in made:
        layer_clip = read_clip(printed[layer])
        assert layer_clip.images.shape == (5, 48, 64, 3) and layer_clip.rate == Fraction(24000, 1001)
        assert layer_clip.images.std() > 0.01
    settings = json.loads(Path(printed["settings"]).read_text())
    assert settings["task"] == task and settings["guidance"] == 1.0 and settings["steps"] == 1


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 48, 64), (2, 37, 50), (4, 16, 17), (5, 33, 65)])
def test_odd_sizes_and_lengths_are_kept_exactly(tmp_path, frames, height, width):
    plate = write_clip(clip(frames, height, width), tmp_path / "plate", Fraction(25), "png")
    assert run(plate, tmp_path / "out") == 0
    normal = read_clip(tmp_path / "out/normal", data=True).images
    assert normal.shape == (frames, height, width, 3)
    length = (2 * normal - 1).norm(dim=-1)
    assert (length - 1).abs().max() < 1e-3


def test_the_same_seed_gives_the_same_layers_and_another_does_not(plate, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run(plate, tmp_path / name, "--seed", seed) == 0
    a, b, c = (read_clip(tmp_path / name / "albedo").images for name in "abc")
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("variant", [
    Variant(ffn="per_stream"), Variant("always", "shared", "channel_concat"),
], ids=str)
def test_a_variant_runs_because_its_file_says_so(plate, tmp_path, capsys, variant):
    family = vary(INTRINSIC, variant)
    in_dim, out_dim = backbone_channels(family, 16)
    adapters = write_tiny_adapters(tmp_path / "variant.safetensors", family)
    write_empty_prompt(adapters)
    backbone = write_tiny_backbone(tmp_path / "wan.safetensors", replace(TINY, in_dim=in_dim, out_dim=out_dim))
    assert run(plate, tmp_path / "varied", "--adapters", adapters, "--backbone", backbone) == 0
    assert run(plate, tmp_path / "published") == 0
    varied, published = (read_clip(tmp_path / name / "albedo").images for name in ("varied", "published"))
    assert varied.shape == published.shape and not torch.equal(varied, published)
    assert strata("models", adapters) == 0 and f"intrinsic family with {variant}" in capsys.readouterr().out
    if variant.joint == "channel_concat":
        stock = write_tiny_backbone(tmp_path / "stock.safetensors")
        assert run(plate, tmp_path / "wrong", "--adapters", adapters, "--backbone", stock) == 1
        said = capsys.readouterr().err
        assert "16 channels in and 16 out, but the intrinsic family with joint = channel_concat needs 68 and 64" in said


def test_a_task_with_nothing_given_takes_size_and_length(tmp_path):
    code = strata("run", "--family", "intrinsic", "--task", "t2RAIN", "--out", tmp_path / "out", "--steps", 1,
                  "--size", "64x48", "--frames", 5)
    assert code == 0
    for layer in ("rgb", "albedo", "irradiance", "normal"):
        assert read_clip(tmp_path / "out" / layer).images.shape == (5, 48, 64, 3)


def test_a_still_goes_with_a_clip(plate, tmp_path):
    still = write_clip(clip(1), tmp_path / "still", Fraction(25), "png")
    code = strata("run", "--family", "intrinsic", "--task", "RA2IN", "--input", f"rgb={plate}", "--input",
                  f"albedo={still}", "--out", tmp_path / "out", "--steps", 1)
    assert code == 0 and read_clip(tmp_path / "out/normal").images.shape[0] == 5


@pytest.mark.parametrize(("args", "says", "code"), [
    (["--task", "R2AIM"], "the nearest are R2AIN", 2),
    (["--family", "depth"], "the families are intrinsic, alpha", 2),
    (["--task", "RA2IN"], "needs albedo given: add --input albedo=PATH", 2),
    (["--task", "t2RAIN"], "is not given rgb", 2),
    (["--size", "64x48"], "a given clip keeps its own size", 2),
    (["--steps", "0"], "is not a number from 1 up", 2),
    (["--size", "64"], "is not WIDTHxHEIGHT", 2),
    (["--input", "nonsense"], "is not LAYER=PATH", 2),
    (["--input", "rgb=again.mp4"], "given twice", 2),
    (["--attention", "magic"], "choose one of sdpa", 2),
    (["--device", "magic"], "There is no device 'magic' here", 2),
    (["--device", "cuda:99"], "There is no device 'cuda:99' here", 2),
    (["--prompt", "a red submarine"], "submarine", 1),
    (["--model", "nowhere"], "There is no model 'nowhere'", 1),
    (["--adapters", str(find_models("tiny", ALPHA).adapters)], "belongs to the alpha family", 1),
    (["--backbone", str(find_models("tiny", ALPHA).vae)], "is no Wan backbone: it is Wan 2.1 VAE", 1),
    (["--frames", "9"], "frames", 1),
])
def test_bad_wishes_get_one_sentence_and_leave_nothing(plate, tmp_path, capsys, args, says, code):
    assert run(plate, tmp_path / "out", *args) == code
    err = capsys.readouterr().err
    assert says in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", [b"", b"not a video", None])
def test_unreadable_clips_get_one_sentence(plate, tmp_path, capsys, data):
    bad = tmp_path / "bad clip.mp4"
    bad.write_bytes(plate.read_bytes()[:300] if data is None else data)
    assert run(bad, tmp_path / "out") == 1
    err = capsys.readouterr().err
    assert "bad clip.mp4" in err and "Traceback" not in err and not (tmp_path / "out").exists()
    assert run(tmp_path / "nowhere.mp4", tmp_path / "out") == 1


def test_layers_of_different_sizes_are_named(plate, tmp_path, capsys):
    other = write_clip(clip(5, 32, 64), tmp_path / "albedo", Fraction(25), "png")
    assert run(plate, tmp_path / "out", "--input", f"albedo={other}", task="RA2IN") == 1
    assert "rgb 64x48, albedo 64x32" in capsys.readouterr().err


def test_the_empty_prompt_is_stored_once_a_text_encoder_is_given(plate, tmp_path, capsys):
    folder = copy_bundled(tmp_path / "model", INTRINSIC)
    (folder / "strata_tiny_intrinsic.empty_prompt.safetensors").unlink()
    assert run(plate, tmp_path / "out", "--model", folder) == 1
    assert "no embedding of the empty prompt is stored" in capsys.readouterr().err
    write_tiny_umt5(folder / "umt5.safetensors", d_model=4096)
    assert run(plate, tmp_path / "a", "--model", folder) == 0
    (folder / "umt5.safetensors").unlink()
    assert run(plate, tmp_path / "b", "--model", folder) == 0
    a, b = (read_clip(tmp_path / name / "albedo").images for name in "ab")
    assert (a - b).abs().max() < 1e-3
    assert sorted(p.name for p in folder.iterdir()) == [
        "strata_tiny.wan.safetensors", "strata_tiny_intrinsic.empty_prompt.safetensors",
        "strata_tiny_intrinsic.safetensors", "strata_tiny_vae.safetensors"]


def test_a_read_only_model_folder_costs_nothing_but_the_stored_embedding(plate, tmp_path, monkeypatch, capsys):
    def refused(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(loading, "stored_prompts", lambda path: {})
    monkeypatch.setattr(loading, "save_prompts", refused)
    encoder = write_tiny_umt5(tmp_path / "umt5.safetensors", d_model=4096)
    assert run(plate, tmp_path / "out", "--text-encoder", encoder) == 0
    assert "could not be stored for the next run (Permission denied)" in capsys.readouterr().err


def test_a_prompt_steers_with_guidance_and_its_negative(tmp_path, capsys):
    base = ("run", "--family", "intrinsic", "--task", "t2RAIN", "--steps", 1, "--size", "64x48", "--frames", 1)
    wishes = {"a": ("a red room",), "b": ("a blue field",), "c": ("a red room", "--cfg", 1),
              "d": ("a red room", "--negative", "a tree"), "e": ("a red room", "--negative", "")}
    for name, wish in wishes.items():
        assert strata(*base, "--out", tmp_path / name, "--prompt", *wish) == 0
    pictures = {name: read_clip(tmp_path / name / "rgb").images for name in wishes}
    assert all(not torch.equal(pictures["a"], pictures[name]) for name in "bcd")
    assert torch.equal(pictures["a"], pictures["e"])  # the usual negative is in words that this encoder passes over
    assert json.loads((tmp_path / "a/run.json").read_text())["guidance"] == 5.0


def test_the_prompts_of_two_encoders_are_not_mixed(tmp_path, capsys):
    encoder = write_tiny_umt5(tmp_path / "umt5.safetensors", d_model=4096)  # 512 tokens; the stored prompt has 64
    assert strata("run", "--family", "intrinsic", "--task", "t2RAIN", "--steps", 1, "--out", tmp_path / "out",
                  "--text-encoder", encoder, "--prompt", "a red room", "--negative", "") == 1
    assert "of 64 and of 512 tokens, because some lie stored beside 'strata_tiny_intrinsic" in capsys.readouterr().err


@pytest.fixture(scope="module")
def unity(tmp_path_factory) -> Path:
    """A folder with a tiny model of the unity family, and both VAEs."""
    folder = tmp_path_factory.mktemp("unity")
    write_tiny_backbone(folder / "wan.safetensors", tiny_config(UNITY))
    write_tiny_layers(folder / "layers.safetensors", UNITY)
    write_tiny_wan22_vae(folder / "vae22.safetensors")
    write_tiny_vae(folder / "vae21.safetensors")
    write_tiny_umt5(folder / "umt5.safetensors", d_model=4096)
    return folder


@pytest.fixture(scope="module")
def vigu(tmp_path_factory) -> Path:
    """The same of the vigu family."""
    folder = tmp_path_factory.mktemp("vigu")
    write_tiny_backbone(folder / "wan.safetensors", tiny_config(VIGU))
    write_tiny_layers(folder / "layers.safetensors", VIGU)
    write_tiny_vae(folder / "vae21.safetensors")
    write_tiny_umt5(folder / "umt5.safetensors", d_model=4096)
    return folder


@pytest.mark.parametrize("task", tasks(UNITY), ids=str)
def test_every_task_of_unity(unity, tmp_path, capsys, task):
    given = []
    for layer in task.conditions:
        given += ["--input", f"{layer}={write_clip(clip(1, 40, 48), tmp_path / layer, Fraction(25), 'png')}"]
    free = [] if given else ["--size", "48x40", "--frames", 1]
    assert strata("run", "--family", "unity", "--task", task, "--model", unity, "--out", tmp_path / "out", "--steps", 1,
                  *given, *free) == 0
    printed = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert list(printed) == [*task.targets, "contact sheet", "settings"]
    for layer in task.targets:
        images = read_clip(printed[layer]).images
        assert images.shape == (1, 40, 48, 3) and images.std() > 0.01


def test_unitys_fixed_prompts_are_stored_once_they_are_known(unity, plate, tmp_path, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("wan", "layers", "vae22"):
        (folder / f"{name}.safetensors").write_bytes((unity / f"{name}.safetensors").read_bytes())

    def make(name, *more):
        return run(plate, tmp_path / name, "--model", folder, *more, task="R2D", family="unity")

    assert make("none") == 1
    assert "no embedding of the fixed prompt of depth or the empty prompt is stored" in capsys.readouterr().err
    assert make("a", "--text-encoder", unity / "umt5.safetensors") == 0 and make("b") == 0
    a, b = (read_clip(tmp_path / name / "depth", data=True).images for name in "ab")
    assert (a - b).abs().max() < 1e-3
    assert run(plate, tmp_path / "flow", "--model", folder, task="R2F", family="unity") == 1
    assert "no embedding of the fixed prompt of flow is stored" in capsys.readouterr().err


def test_unity_joins_more_layers_where_its_file_says_so(unity, plate, tmp_path, capsys):
    assert run(plate, tmp_path / "out", "--model", unity, task="R2DFK", family="unity") == 2
    assert "joins rgb with one other" in capsys.readouterr().err
    several = write_tiny_layers(tmp_path / "all.safetensors", vary(UNITY, Variant(together="all")))
    assert run(plate, tmp_path / "out", "--model", unity, "--adapters", several, task="R2DFK", family="unity") == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()][:3] == ["depth", "flow", "skeleton"]


def make_vigu(vigu, out, task, *more) -> int:
    size = () if task == "R2C" else ("--size", "48x32", "--frames", 5)
    return strata("run", "--family", "vigu", "--task", task, "--model", vigu, "--out", out, "--steps", 2, *size, *more)


def test_a_video_with_its_caption(vigu, tmp_path, capsys):
    assert make_vigu(vigu, tmp_path / "a", "t2RC", "--prompt", "a red ball moves left") == 0
    printed = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert list(printed) == ["rgb", "caption", "contact sheet", "settings"]
    settings = json.loads(Path(printed["settings"]).read_text())
    assert Path(printed["caption"]).read_text().strip() == settings["caption"] != ""
    assert settings["guidance"] == 5.0 and read_clip(printed["rgb"]).images.shape == (5, 32, 48, 3)
    assert make_vigu(vigu, tmp_path / "b", "t2RC") == 0  # zeros are read, and guided away from nothing
    assert "CFG 5 becomes 1" in capsys.readouterr().err


def test_a_given_caption_is_read_as_tokens_and_as_a_prompt(vigu, tmp_path, capsys, monkeypatch):
    def made(name, prompt):
        assert make_vigu(vigu, tmp_path / name, "C2R", "--prompt", prompt, "--cfg", 1) == 0
        return read_clip(tmp_path / name / "rgb").images

    with monkeypatch.context() as patched:
        patched.setattr(loading, "encode_prompts", lambda *args, **more: torch.ones(1, 512, 4096))
        as_tokens = made("a", "a red ball"), made("b", "a blue cube")
    monkeypatch.setattr(Vocabulary, "encode", lambda *args: [5, 6, 1])
    as_prompt = made("c", "a red ball"), made("d", "a blue cube")
    assert not torch.equal(*as_tokens) and not torch.equal(*as_prompt)


@pytest.mark.parametrize(("more", "says", "code"), [
    ((), "C2R needs the caption given: add --prompt TEXT", 2),
    (("--prompt", "a red zebra"), "The text holds 'zebra', which the model's vocabulary does not know", 1),
    (("--prompt", "red " * 300), "The text is of 301 tokens with its end and the stream holds 256", 1),
    (("--prompt", "red", "--input", "caption=x.txt"), "The caption is text: give it by --prompt", 2),
])
def test_captions_that_cannot_be_given(vigu, tmp_path, capsys, more, says, code):
    assert make_vigu(vigu, tmp_path / "out", "C2R", *more) == code
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_caption_of_a_clip_by_run(vigu, plate, tmp_path, capsys):
    for name, more in (("a", ()), ("b", ("--prompt", "a red ball"))):
        assert make_vigu(vigu, tmp_path / name, "R2C", "--input", f"rgb={plate}", *more) == 0
        out, err = capsys.readouterr()
        assert [line.split("\t")[0] for line in out.splitlines()] == ["caption", "contact sheet", "settings"]
        assert not err
    a, b = ((tmp_path / name / "caption.txt").read_text() for name in "ab")
    assert a != b and json.loads((tmp_path / "a/run.json").read_text())["guidance"] == 1.0


def test_an_interrupt_leaves_no_half_results(plate, tmp_path, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(layers, "contact_sheet", interrupted)
    assert run(plate, tmp_path / "out") == 130
    assert "Interrupted" in capsys.readouterr().err
    left = [p for p in (tmp_path / "out").rglob("*") if ".tmp" in p.name or p.name.startswith(".")]
    assert left == []


def test_a_full_disk_is_one_sentence(plate, capsys):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    assert run(plate, "/dev/full/out") == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err and "strata: " in err


def test_models_says_what_files_are(tmp_path, capsys):
    models = find_models("tiny", ALPHA)
    assert strata("models", models.backbone, models.adapters) == 0
    out = capsys.readouterr().out
    assert "4 blocks of width 256" in out and "alpha family" in out
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert strata("models", tmp_path / "x.safetensors") == 1


def test_the_installed_command_talks_on_stderr_and_answers_on_stdout(plate, tmp_path):
    done = subprocess.run([sys.executable, "-m", "comfyui_strata.cli", "run", "--family", "alpha", "--task", "R2PFB",
                           "--input", f"rgb={plate}", "--out", str(tmp_path / "out"), "--steps", "1"],
                          capture_output=True, text=True, check=True)
    names = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert names == ["alpha", "fg", "bg", "contact sheet", "settings"]
    assert "nothing but synthetic shots" in done.stderr and "step" not in done.stderr  # no progress bar off a terminal

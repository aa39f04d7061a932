"""`strata train` as a whole, on networks small enough for seconds: what it makes, and that nothing can spoil it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from comfyui_strata import training
from comfyui_strata.cli import main
from comfyui_strata.joint.channels import backbone_channels
from comfyui_strata.joint.families import ALPHA, INTRINSIC, vary
from comfyui_strata.joint.streams import Role, Task
from comfyui_strata.joint.transformer import Host
from comfyui_strata.joint.variants import Variant
from comfyui_strata.model_loaders import model_set
from comfyui_strata.model_loaders.adapters import load_adapters
from comfyui_strata.model_loaders.backbone import load_backbone
from comfyui_strata.model_loaders.layer_files import stored_prompts
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.tests.tiny_files import write_tiny_umt5, write_tiny_vae
from comfyui_strata.tests.tiny_wan import TINY, write_empty_prompt, write_tiny_adapters, write_tiny_backbone
from comfyui_strata.tests.toys import CONFIG, toy_context, toy_latents, toy_model
from comfyui_strata.training import run_folder
from comfyui_strata.training.config import (
    Data,
    Model,
    NewBackbone,
    Optimiser,
    Run,
    TrainConfig,
    config_text,
    read_config,
)
from comfyui_strata.training.lora import TrainableAdapters
from comfyui_strata.training.objective import Draw, Lesson, training_levels
from comfyui_strata.training.trainee import Trainee
from comfyui_strata.training.trainer import Trainer, train

STEPS = 7
SITES = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "ffn.0", "ffn.2"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A VAE, a backbone, adapters with their empty prompt, and a cache of encoded shots that the tests share."""
    folder = tmp_path_factory.mktemp("parts")
    write_tiny_vae(folder / "vae.safetensors")
    write_tiny_backbone(folder / "wan.safetensors")
    write_empty_prompt(write_tiny_adapters(folder / "start.safetensors", INTRINSIC))
    return folder


@pytest.fixture
def config(parts):
    """A run on the frozen tiny backbone."""
    return TrainConfig(
        "intrinsic",
        Model(vae=str(parts / "vae.safetensors"), backbone=str(parts / "wan.safetensors"),
              start=str(parts / "start.safetensors"), rank=4),
        Data(synthetic=3, frames=1, height=32, width=32, cache=str(parts / "cache")),
        Optimiser(steps=STEPS, batch=2, learning_rate=1e-2, ema=0.9),
        Run(log_every=1, save_every=2, pictures_every=0),
    )


def result(out: Path) -> dict[str, torch.Tensor]:
    """The newest checkpoint of a run, whole."""
    return load_file(max((out / "checkpoints").glob("step_*.safetensors")))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """accelerate holds one precision a process; here a process does many runs."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


# ---- what a run makes ----


def test_adapters_are_saved_key_for_key_as_published(config, tmp_path):
    made = train(config, tmp_path)
    keys = {f"blocks.{block}.{site}.lora_{matrix}.{adapter}.weight"
            for block in range(TINY.num_layers)
            for site in SITES
            for matrix in "AB" for adapter in ("rgb", "albedo", "irradiance", "normal")}
    assert load_file(made["adapters"]).keys() == keys
    loaded = load_adapters(made["adapters"])
    assert loaded.family == config.resolve_family() and loaded.rank == 4 and not loaded.warnings
    assert stored_prompts(made["adapters"])[""].shape == (1, 512, TINY.text_dim)
    assert read_config(made["config"]) == config
    log = [json.loads(line) for line in made["log"].read_text().splitlines()]
    assert [entry["step"] for entry in log] == list(range(1, STEPS + 1))
    assert all(entry["loss"] > 0 and entry["gradient_norm"] > 0 for entry in log)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_the_official_way_of_reading_adapters_takes_the_file(config, tmp_path):
    """UniVidX injects one peft adapter a layer into the backbone and calls load_state_dict(strict=False)."""
    from peft import LoraConfig, inject_adapter_in_model

    made = train(config, tmp_path)
    backbone = load_backbone(config.model.backbone, dtype=torch.float32)
    for adapter in INTRINSIC.file_adapters:
        inject_adapter_in_model(
            LoraConfig(r=4, lora_alpha=4, target_modules=SITES), backbone, adapter_name=adapter)
    state = load_file(made["adapters"])
    found = backbone.load_state_dict(state, strict=False)
    assert not found.unexpected_keys
    assert not [key for key in found.missing_keys if "lora_" in key]
    # ... and computes with it what our engine computes: the same product at the same place.
    query, x = backbone.blocks[0].self_attn.q, torch.randn(1, 3, TINY.dim)
    query.set_adapter("albedo")
    down, up = (state[f"blocks.0.self_attn.q.lora_{m}.albedo.weight"].float() for m in "AB")
    torch.testing.assert_close(query(x), query.base_layer(x) + x @ down.T @ up.T)


def test_only_what_the_model_uses_is_trained(config, tmp_path, parts):
    before = load_file(parts / "start.safetensors")
    after = load_file(train(config, tmp_path)["adapters"])
    moved = {key for key in after if not torch.equal(after[key].half(), before[key].half())}
    dead = {key for key in after if ".ffn." in key and ".normal." not in key}
    assert moved == after.keys() - dead
    assert not (tmp_path / "wan.safetensors").exists()


def test_a_new_backbone_learns_and_is_saved(config, tmp_path, parts):
    new = replace(config, model=Model(vae=config.model.vae, rank=2, train="all"),
                  new_backbone=NewBackbone(dim=128, ffn_dim=64, layers=1),
                  optimiser=replace(config.optimiser, steps=60, learning_rate=3e-3, batch=3),
                  run=replace(config.run, save_every=40))
    run = Trainer(new, tmp_path)
    examples = [run._example(number) for number in range(10)]  # fixed, since a step's loss says more of its level
    before = sum(float(run.trainee(*example).detach()) for example in examples)
    made = run.run()
    assert sum(float(run.trainee(*example).detach()) for example in examples) < 0.9 * before
    backbone = load_backbone(made["backbone"], dtype=torch.float32)
    assert (backbone.config.dim, backbone.config.num_layers, backbone.num_heads) == (128, 1, 1)


@pytest.mark.parametrize("variant", [
    Variant(gating="always"), Variant(adapters="shared"), Variant(ffn="per_stream"),
    Variant(condition_attention="conditions"), Variant("always", "shared", "channel_concat")], ids=str)
def test_every_variant_trains_and_its_file_says_so(config, tmp_path, variant):
    new = replace(config, variant=variant, model=Model(vae=config.model.vae, rank=2, train="all"),
                  new_backbone=NewBackbone(dim=128, ffn_dim=64, layers=1),
                  optimiser=replace(config.optimiser, steps=2), run=replace(config.run, pictures_every=2,
                                                                            picture_steps=1))
    made = train(new, tmp_path)
    assert load_adapters(made["adapters"]).family.variant == variant
    assert next((tmp_path / "pictures").glob("*.png")).stat().st_size > 1000


@pytest.mark.parametrize("family", [INTRINSIC, ALPHA], ids=lambda f: f.name)
def test_a_result_runs_on_the_command_line(config, tmp_path, parts, family, capsys):
    start = write_tiny_adapters(tmp_path / "start.safetensors", family)
    write_empty_prompt(start)
    config = replace(config, family=family.name, model=replace(config.model, start=str(start)),
                     optimiser=replace(config.optimiser, steps=1))
    made = train(config, tmp_path / "trained here, ok")
    task = "t2" + "".join(stream.letter for stream in family.streams)
    assert main(["run", "--family", family.name, "--task", task, "--out", str(tmp_path / "made"), "--size", "32x32",
                 "--frames", "1", "--steps", "1", "--adapters", str(made["adapters"]),
                 "--backbone", config.model.backbone, "--vae", config.model.vae, "--device", "cpu"]) == 0
    assert (tmp_path / "made" / "contact_sheet.png").is_file()


def test_a_run_folder_is_a_model_for_the_command_line(config, tmp_path, monkeypatch, capsys):
    """Its checkpoints, encoded clips and encoded prompts are taken for nothing else."""
    encoder = write_tiny_umt5(tmp_path / "umt5.safetensors", d_model=TINY.text_dim)
    new = replace(config, model=Model(vae=config.model.vae, text_encoder=str(encoder), rank=2, train="all"),
                  data=replace(config.data, cache=""), new_backbone=NewBackbone(dim=128, ffn_dim=64, layers=1),
                  optimiser=replace(config.optimiser, steps=3), run=replace(config.run, save_every=1, keep=9))
    made = train(new, tmp_path / "run")
    kinds = {path.parent.name for path in (tmp_path / "run").rglob("*.safetensors")}
    assert kinds == {"run", "checkpoints", "cache"}
    models = find_models(str(tmp_path / "run"), INTRINSIC, vae=config.model.vae)
    assert (models.adapters, models.backbone, models.text_encoder) == (made["adapters"], made["backbone"], None)
    with pytest.raises(FileNotFoundError, match="holds no vae: say where it is with --vae"):
        find_models(str(tmp_path / "run"), INTRINSIC)
    assert main(["run", "--family", "intrinsic", "--task", "t2RAIN", "--model", str(tmp_path / "run"), "--vae",
                 config.model.vae, "--out", str(tmp_path / "out"), "--size", "32x32", "--frames", "1", "--steps", "1",
                 "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["eval", "--family", "intrinsic", "--task", "R2AIN", "--model", str(tmp_path / "run"), "--vae",
                 config.model.vae, "--seeds", "1", "--size", "32x32", "--frames", "1", "--steps", "1",
                 "--device", "cpu"]) == 0
    assert "mean angle" in capsys.readouterr().out

    real = model_set.detect

    def removed(path):  # as by a training that goes on beside
        if path.parent.name == "checkpoints":
            raise FileNotFoundError(f"There is no file '{path}'.")
        return real(path)

    monkeypatch.setattr(model_set, "detect", removed)
    assert find_models(str(tmp_path / "run"), INTRINSIC, vae=config.model.vae) == models


# ---- the arithmetic of a run ----


@pytest.mark.parametrize("variant", [
    Variant(), Variant(gating="always"), Variant(adapters="shared"), Variant(ffn="per_stream"),
    Variant(condition_attention="conditions"), Variant("always", "shared", "channel_concat")], ids=str)
@pytest.mark.parametrize("family", [INTRINSIC, ALPHA], ids=lambda f: f.name)
def test_every_step_reaches_all_that_is_learned(family, variant):
    """Or several processes would wait for gradients that never come."""
    family = vary(family, variant)
    channels_in, channels_out = backbone_channels(family, 4)
    sizes = replace(CONFIG, in_dim=channels_in, out_dim=channels_out)
    for every_weight in (True, False):
        trainee = Trainee(family, toy_model(config=sizes).float(), TrainableAdapters(family, sizes, 2, 1),
                          training_levels(family.flow), all_weights=every_weight, host=Host())
        for roles in product(Role, repeat=len(family.streams)):
            if Role.TARGET in roles:
                trainee.zero_grad()
                clean, noise = (toy_latents(seed=seed).float() for seed in (1, 2))
                trainee(Draw(Task(family, roles), (300,)), Lesson(clean, noise, toy_context().float())).backward()
                unreached = [name for name, value in trainee.learned().items() if value.grad is None]
                assert not unreached, (roles, unreached[:3])


def test_checkpointing_and_accumulation_change_memory_only(config, tmp_path):
    plain = train(replace(config, optimiser=replace(config.optimiser, steps=2)), tmp_path / "a")
    again = train(replace(config, optimiser=replace(config.optimiser, steps=2),
                          run=replace(config.run, gradient_checkpointing=True)), tmp_path / "b")
    assert plain.keys() == again.keys()
    assert same(result(tmp_path / "a"), result(tmp_path / "b"))

    one = Trainer(replace(config, optimiser=Optimiser(steps=1, batch=2, accumulation=2)), tmp_path / "c", cpu=True)
    parts_ = [one._example(number) for number in range(2)]
    wanted = torch.autograd.grad(sum(one.trainee(*part) for part in parts_) / 2, one.learned.values())
    seen = []
    one.optimiser.step = lambda: seen.extend(value.grad.clone() for value in one.learned.values())
    one._step()
    for ours, theirs in zip(seen, wanted):
        torch.testing.assert_close(ours, theirs)


def test_mixed_precision_is_near_full_precision(config, tmp_path):
    losses = []
    for name, precision in (("a", "no"), ("b", "bf16")):
        AcceleratorState._reset_state(reset_partial_state=True)
        made = train(replace(config, run=replace(config.run, mixed_precision=precision)), tmp_path / name)
        losses.append([json.loads(line)["loss"] for line in made["log"].read_text().splitlines()])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_the_running_mean_and_the_rate_are_as_stated(config, tmp_path):
    run = Trainer(replace(config, optimiser=replace(config.optimiser, warmup=2, final_learning_rate=1e-3)),
                  tmp_path, cpu=True)
    name = next(iter(run.learned))
    mean = run.learned[name].detach().clone()
    for step in range(1, 4):
        run._step()
        decay = min(0.9, step / (step + 9))
        mean = decay * mean + (1 - decay) * run.learned[name].detach()
    torch.testing.assert_close(run.mean.values[name], mean)
    assert [run._rate(step) for step in (1, 2, STEPS)] == pytest.approx([5e-3, 1e-2, 1e-3])
    with run.mean.in_place(run.learned):
        assert torch.equal(run.learned[name], run.mean.values[name])
    assert not torch.equal(run.learned[name], run.mean.values[name])


# ---- cut off, and resumed ----


@pytest.fixture(scope="module")
def whole(parts, tmp_path_factory):
    """The checkpoint that an uninterrupted run ends with."""
    out = tmp_path_factory.mktemp("whole")
    config = TrainConfig(
        "intrinsic",
        Model(vae=str(parts / "vae.safetensors"), backbone=str(parts / "wan.safetensors"),
              start=str(parts / "start.safetensors"), rank=4),
        Data(synthetic=3, frames=1, height=32, width=32, cache=str(parts / "cache")),
        Optimiser(steps=STEPS, batch=2, learning_rate=1e-2, ema=0.9), Run(log_every=1, save_every=2, pictures_every=0))
    train(config, out)
    return result(out)


@pytest.mark.parametrize("step", range(1, STEPS))
def test_cut_off_after_any_step_it_ends_the_same(config, tmp_path, whole, monkeypatch, step):
    real = Trainer._step

    def cut(self):
        if self.step == step:
            raise SystemExit("killed")
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", cut)
        with pytest.raises(SystemExit):
            train(config, tmp_path)
    made = train(config, tmp_path)
    assert same(result(tmp_path), whole)
    log = [json.loads(line)["step"] for line in made["log"].read_text().splitlines()]
    assert log == list(range(1, STEPS + 1))


def test_adapters_that_some_tasks_do_not_reach_go_on_the_same_too(config, tmp_path):
    """alpha's plate has no adapter of its own, so nothing reaches those of the other layers when it is the target."""
    start = write_tiny_adapters(tmp_path / "start.safetensors", ALPHA)
    write_empty_prompt(start)
    config = replace(config, family="alpha", model=replace(config.model, start=str(start)),
                     tasks={"PFB2R": 1.0, "R2PFB": 2.0},
                     run=replace(config.run, seed=4, save_every=1, keep=9))
    train(config, tmp_path / "whole")
    log = [json.loads(line)["tasks"] for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert ["PFB2R"] in log[:4] and ["R2PFB"] in log[:4] and ["R2PFB"] in log[4:]
    (tmp_path / "resumed" / "checkpoints").mkdir(parents=True)
    shutil.copy(tmp_path / "whole" / "checkpoints" / "step_0000004.safetensors", tmp_path / "resumed" / "checkpoints")
    train(config, tmp_path / "resumed")
    assert same(result(tmp_path / "whole"), result(tmp_path / "resumed"))


def test_a_task_in_which_no_adapter_acts_teaches_nothing_and_stops_nothing(config, tmp_path):
    start = write_tiny_adapters(tmp_path / "start.safetensors", vary(ALPHA, Variant(ffn="per_stream")))
    write_empty_prompt(start)
    config = replace(config, family="alpha", variant=Variant(ffn="per_stream"), tasks={"PFB2R": 1.0},
                     model=replace(config.model, start=str(start)),
                     optimiser=replace(config.optimiser, steps=2, weight_decay=0.0, ema=0.0))
    made = train(config, tmp_path / "out")
    assert same(load_file(made["adapters"]), load_file(start))


def test_killed_at_a_random_moment_it_ends_the_same(config, tmp_path, whole):
    path = tmp_path / "run.toml"
    path.write_text(config_text(config))
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-m", "comfyui_strata.cli", "train", str(path), "--out", str(out),
                                "--cpu"], stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wanted = 1 + int.from_bytes(os.urandom(1), "big") % (STEPS - 1)
    log = out / "log.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if log.is_file() and len(log.read_text().splitlines()) >= wanted:
            process.kill()
    process.communicate()
    assert process.returncode in (0, -signal.SIGKILL)  # so short a run may end before the signal
    train(config, out)
    assert same(result(out), whole)


def test_ctrl_c_ends_after_the_step_at_hand_with_a_checkpoint(config, tmp_path, whole, monkeypatch, capsys):
    real = Trainer._step

    def pressed(self):
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", pressed)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path)
    assert "Stopped after step 3 of 7; go on with --resume." in capsys.readouterr().err
    assert (tmp_path / "checkpoints" / "step_0000003.safetensors").is_file()
    train(config, tmp_path)
    assert same(result(tmp_path), whole)


def test_a_damaged_checkpoint_is_passed_over(config, tmp_path, whole, capsys):
    train(config, tmp_path)
    newest = max((tmp_path / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    train(config, tmp_path)
    assert "step_0000007.safetensors cannot be read and is passed over" in capsys.readouterr().err
    assert same(result(tmp_path), whole)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="None of the 2 checkpoints .* can be read: begin anew"):
        train(config, tmp_path)


def test_checkpoints_of_another_variant_are_refused(config, tmp_path):
    config = replace(config, optimiser=replace(config.optimiser, steps=1),
                     model=replace(config.model, start="", rank=4, train="all", backbone=""),
                     new_backbone=NewBackbone(dim=128, ffn_dim=64, layers=1))
    train(config, tmp_path)
    other = replace(config, variant=Variant(gating="always"))
    with pytest.raises(ValueError, match=r"variant \(as published\) than the config's \(gating = always\): set"):
        train(other, tmp_path)


def test_checkpoints_of_another_model_are_refused(config, tmp_path):
    train(replace(config, optimiser=replace(config.optimiser, steps=1)), tmp_path)
    other = replace(config, model=replace(config.model, rank=2, start=""), family="intrinsic")
    path = max((tmp_path / "checkpoints").iterdir())
    state = load_file(path)
    save_file({key: value for key, value in state.items() if "albedo" not in key}, path)
    with pytest.raises(ValueError, match="are of another model: begin anew"):
        train(config, tmp_path)
    assert other.model.rank == 2


# ---- configs ----


RECIPES = sorted((Path(training.__file__).parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_whole_config_and_survives_being_saved(path, tmp_path):
    config = read_config(path)
    assert Path(config.model.vae).parent == path.parent  # paths count from the file, not from where one stands
    (tmp_path / "saved.toml").write_text(config_text(config), encoding="utf-8")
    assert read_config(tmp_path / "saved.toml") == config


# ---- what can go wrong ----


def test_a_full_disk_loses_nothing(config, tmp_path, whole, monkeypatch, capsys):
    real, full = run_folder.save_state, OSError(28, "No space left on device")

    def refuse(folder, state, keep):
        if state.step == 4:
            raise full
        real(folder, state, keep)

    monkeypatch.setattr(run_folder, "save_state", refuse)
    train(config, tmp_path)
    assert "No space left on device The newest checkpoint is that of step 2." in capsys.readouterr().err
    assert same(result(tmp_path), whole)

    def always(folder, state, keep):
        raise full

    monkeypatch.setattr(run_folder, "save_state", always)
    with pytest.raises(OSError, match="The last checkpoint of this run is that of step 0: free some space"):
        train(config, tmp_path / "other")


def test_a_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(config, tmp_path):
    config = replace(config, optimiser=replace(config.optimiser, learning_rate=1e30, steps=50),
                     run=replace(config.run, save_every=1))
    with pytest.raises(ValueError, match="The loss is not finite in step .* lower the learning rate"):
        train(config, tmp_path)
    saved = result(tmp_path)
    assert all(torch.isfinite(saved[key]).all() for key in saved if key.startswith("weights/"))


@pytest.mark.parametrize("change, sentence", [
    ("family = 'intrinsik'", "no family 'intrinsik'"),
    ("[model]\nvea = 'x'", r"\[model\] has no 'vea': did you mean vae"),
    ("[model]\nbackbone = 'x'", r"vae is missing in \[model\]"),
    ("[optimiser]\nsteps = 'ten'", "optimiser.steps is 'ten', but int is needed"),
    ("[optimiser]\nsteps = 0", "steps is 0, but at least 1 is needed"),
    ("[optimiser]\nsteps = 1\nlearning_rate = nan", "learning_rate is nan"),
    ("[optimiser]\nsteps = 1\nema = 1.0", "a decay below 1 is needed"),
    ("[variant]\ngating = 'never'", "gating is one of targets, always, not 'never'"),
    ("[variant]\njoint = 'channel_concat'", "channel_concat"),
    ("[tasks]\nR2X = 1", "'R2X' is no task of the intrinsic family"),
    ("[tasks]\nR2AIN = 0", "weights are above 0"),
    ("[data]\nsynthetic = 0", r"either \[data\] clips, a folder or CSV, or \[data\] synthetic"),
    ("[new_backbone]\ndim = 128", r"either \[model\] backbone"),
    ("steps 5", "is no TOML file"),
    ("run = 3", r"run is 3, but a table \[run\] is needed"),
])
def test_a_wrong_config_gets_one_sentence(config, tmp_path, change, sentence, capsys):
    path = tmp_path / "run.toml"
    first = change.splitlines()[0]
    tables = config_text(config).split("\n[")  # the changed table stands in for its own
    name = first.strip("[]").split(" = ")[0]
    tables = [table for table in tables if not table.startswith(f"{name}]")]
    if not first.startswith("["):
        tables[0] = (change if name == "family" else f"{tables[0]}{change}") + "\n"
        change = ""
    text = "\n[".join(tables) + "\n" + change
    path.write_text(text)
    assert main(["train", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert re.search(sentence, said), said
    assert not (tmp_path / "out").exists()

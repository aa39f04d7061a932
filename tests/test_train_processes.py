"""`strata train` in two processes: one run, which learns from the mean of what both see, and ends for both at once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from comfyui_strata.joint.families import INTRINSIC
from comfyui_strata.tests.tiny_files import write_tiny_umt5, write_tiny_vae
from comfyui_strata.tests.tiny_wan import TINY, write_tiny_backbone
from comfyui_strata.training.batches import Batches
from comfyui_strata.training.config import Data, Model, Optimiser, Run, TrainConfig, config_text
from comfyui_strata.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run in two processes, of which only the second is told to stop: its config, its folder, exit codes and what
    each process printed and said."""
    folder = tmp_path_factory.mktemp("two")
    write_tiny_vae(folder / "vae.safetensors", base_dim=2)
    write_tiny_backbone(folder / "wan.safetensors")
    write_tiny_umt5(folder / "umt5.safetensors", d_model=TINY.text_dim)
    config = TrainConfig(
        "intrinsic",
        Model(vae=str(folder / "vae.safetensors"), backbone=str(folder / "wan.safetensors"),
              text_encoder=str(folder / "umt5.safetensors"), rank=4),
        Data(synthetic=3, frames=1, height=32, width=32, cache=str(folder / "cache")),
        Optimiser(steps=500, accumulation=2, learning_rate=1e-3, ema=0.9),
        Run(log_every=1, save_every=1, keep=500, pictures_every=2, picture_steps=1))
    (folder / "run.toml").write_text(config_text(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = folder / "out"
    command = [sys.executable, "-m", "comfyui_strata.cli", "train", str(folder / "run.toml"), "--out", str(out),
               "--cpu"]
    processes = []
    for rank in range(2):
        # What torchrun tells its processes.
        about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                          env={**os.environ, **{name: str(value) for name, value in about.items()}}))
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and all(process.poll() is None for process in processes):
            if (out / "log.jsonl").is_file() and len((out / "log.jsonl").read_text().splitlines()) > 2:
                processes[1].send_signal(signal.SIGINT)
                break
            time.sleep(0.1)
        said = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return config, out, [process.returncode for process in processes], said


def test_both_end_at_the_same_step_when_one_is_told_to(ran):
    _, out, codes, said = ran
    assert codes == [130, 130], said
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == list(range(1, len(log) + 1)) and 3 <= len(log) < 500
    assert f"Stopped after step {len(log)} of 500; go on with --resume." in said[0][1]
    assert (out / "checkpoints" / f"step_{len(log):07}.safetensors").is_file()


def test_one_set_of_files_is_left(ran):
    _, out, _, said = ran
    assert said[0][0] == said[1][0] == ""  # a stopped run names no results
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoints", "config.toml", "intrinsic.empty_prompt.safetensors", "intrinsic.safetensors", "log.jsonl",
        "pictures"]
    cache = out.parent / "cache"
    assert len(list(cache.iterdir())) == 3 + 4  # latents; and texts, that of the empty prompt among them
    assert not list(out.parent.rglob("*.tmp"))


def test_each_process_sees_its_own_clips_and_the_gradient_is_the_mean(ran):
    config, out, _, _ = ran
    try:
        run = Trainer(config, out.parent / "one", cpu=True)
        run.lessons.batches = Batches([INTRINSIC.layers] * 3, 2, config.run.seed)
        examples = {}
        for rank in range(2):
            run.lessons.rank = rank
            examples[rank] = [run._example(number) for number in range(2)]
        for (drawn, lesson), (other_drawn, other) in zip(*examples.values()):
            assert drawn == other_drawn
            assert not torch.equal(lesson.clean, other.clean) and not torch.equal(lesson.noise, other.noise)
        loss = sum(run.trainee(*example) for shown in examples.values() for example in shown) / 4
        loss.backward()
        for group in run.optimiser.param_groups:
            group["lr"] = run._rate(1)
        run.optimiser.step()
        moments = {name: run.optimiser.state[value]["exp_avg"] for name, value in run.learned.items()}
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    first = load_file(out / "checkpoints" / "step_0000001.safetensors")
    assert json.loads((out / "log.jsonl").read_text().splitlines()[0])["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, value in run.learned.items():
        torch.testing.assert_close(first[f"first/{name}"], moments[name], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(first[f"weights/{name}"], value.detach(), rtol=0, atol=1e-6)

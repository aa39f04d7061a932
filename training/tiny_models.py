"""The bundled models, made again: each with all that it needs and that is not there yet.

    python -m comfyui_strata.training.tiny_models small intrinsic
    python -m comfyui_strata.training.tiny_models small all --processes 2

The folder holds everything that is made on the way, and `bundle` in it what is bundled. Given again, the command goes
on where it was cut off. The settings are `recipes/tiny_*.toml` and `small_vae.Recipe`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ..model_loaders.adapters import NOTE
from ..model_loaders.layer_files import prompts_path
from ..model_loaders.safetensors_file import load_tensors, read_header, replace_tensors
from ..model_loaders.word_encoder import save_word_encoder
from .config import CONFIG, TrainConfig, config_text, read_config
from .shots import FIRST_TRAINING_SEED
from .small_vae import Recipe, train_vae
from .word_codes import known_words

RECIPES = Path(__file__).parent / "recipes"
TRAINED = ("backbone", "intrinsic", "alpha", "unity", "vigu")
MODELS = ("vae", "words", *TRAINED)
PREFIX = "strata_tiny"  # of the bundled files: in ComfyUI they stand among those of its user
_NOTE = "This tiny model has seen nothing but synthetic shots of 64x64 pixels: it is lost on other footage."
_MATRIX = 64  # rows and columns of what is worth it
_DONE = "done"  # a file in the folder of a run that ended
_HALVES = ("stills", "clips")  # each training, the second going on from the first


def make(folder: Path, model: str, processes: int = 1, *, cpu: bool = False) -> None:
    """Make a model of `MODELS`, and first what it needs; what is there stays. Raises as `train` and `train_vae`, and
    subprocess.CalledProcessError when a training in several processes fails."""
    if model == "words":
        if not (folder / "words.safetensors").is_file():
            save_word_encoder(folder / "words.safetensors", known_words())
    elif model == "vae":
        if not (folder / "vae.safetensors").is_file():
            recipe = Recipe()
            for frames, shots in ((1, recipe.stills), (recipe.frames, recipe.clips)):
                seeds = range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + shots)
                recipe.folder(folder / "shots", frames).fill(seeds, processes)
            train_vae(recipe, folder / "vae.safetensors", folder / "shots", compiled=shutil.which("c++") is not None)
    else:
        for need in ("vae", "words") if model == "backbone" else ("backbone",):
            make(folder, need, processes, cpu=cpu)
        for half in _HALVES:
            config = read_config(RECIPES / f"tiny_{model}_{half}.toml", folder)
            train_apart(config, folder / f"{model}_{half}", processes, cpu=cpu)
    _bundle(folder, model)


def train_apart(config: TrainConfig, run: Path, processes: int = 1, *, cpu: bool = False) -> None:
    """`strata train` into the folder `run`, in processes of its own, which share the batch and (unless OMP_NUM_THREADS
    says otherwise) the cores; on from where it was cut off, and nothing where it has come to its end. Raises
    subprocess.CalledProcessError when it fails."""
    if (run / _DONE).is_file():
        return
    what = ["--resume"]
    if not (run / CONFIG).is_file():
        shared = replace(config.optimiser, batch=config.optimiser.batch // processes)
        start = run.with_name(f"{run.name}.toml")
        start.parent.mkdir(parents=True, exist_ok=True)
        start.write_text(config_text(replace(config, optimiser=shared)), encoding="utf-8")
        what = [str(start)]
    command = ["-m", "comfyui_strata.cli", "train", *what, "--out", str(run), *["--cpu"] * cpu]
    several = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    subprocess.run([sys.executable, *several, *command], check=True, env=threads | os.environ)
    (run / _DONE).touch()


def _bundle(folder: Path, model: str) -> None:
    """Write what is used of a model to where it lies in the bundle, which is laid out as ComfyUI's `models`."""
    bundle, kinds = folder / "bundle", {"vae": "vae", "words": "text_encoders"}
    if model in kinds:
        files = {f"{kinds[model]}/{PREFIX}_{model}.safetensors": (shutil.copy, folder / f"{model}.safetensors")}
    else:
        run = folder / f"{model}_clips"
        backbone, layers = run / "wan.safetensors", run / f"{model}.safetensors"
        name = PREFIX if model == "backbone" else f"{PREFIX}_{model}"
        # The two halves of what was trained whole go by one name, as `strata convert` writes them.
        whole = model != "backbone" and backbone.is_file()
        bundled = f"loras/{name}{'.layers' if whole else ''}.safetensors"
        files = {f"diffusion_models/{name}.wan.safetensors": (_lighten, backbone), bundled: (_lighten_layers, layers),
                 str(prompts_path(bundled)): (shutil.copy, prompts_path(layers))}
    for name, (write, path) in files.items():
        if path.is_file():
            (bundle / name).parent.mkdir(parents=True, exist_ok=True)
            write(path, bundle / name)


def _lighten_layers(source: Path, target: Path) -> None:
    _lighten(source, target, {NOTE: _NOTE})


def _lighten(source: Path, target: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Copy weights with their matrices as fp8 (e4m3, unscaled), half as large: values are rounded by 2.6 % of their
    spread, of which nothing is seen, and all families have to fit into a small package."""
    tensors = {name: value.to(torch.float8_e4m3fn) if value.ndim == 2 and min(value.shape) >= _MATRIX else value
               for name, value in load_tensors(source).items()}
    replace_tensors(target, tensors, read_header(source).metadata | (metadata or {}))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where all is made; 10 GB")
    parser.add_argument("models", nargs="+", choices=[*MODELS, "all"])
    parser.add_argument("--processes", type=int, default=1, help="for rendering and training (default: 1)")
    parser.add_argument("--cpu", action="store_true", help="leave the GPU alone")
    args = parser.parse_args()
    for model in MODELS if "all" in args.models else args.models:
        make(args.folder.resolve(), model, args.processes, cpu=args.cpu)


if __name__ == "__main__":
    main()

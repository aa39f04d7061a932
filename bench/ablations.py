"""The choices of the published systems, each against its other, in small: the same data, steps and batch for both.

    python bench/ablations.py small --seeds 1 2
    python bench/ablations.py small --only gating conditions --seeds 1 2 3

`small` is the folder in which `python -m comfyui_strata.training.tiny_models` made the bundled models. Every arm is
trained with every seed on single frames and measured on held-out ones; what is there already is not made again.
Prints, and writes to `small/ablations/ablations.md`, a table a question: the mean over the training seeds, and half the
distance between the best and the worst of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from comfyui_strata.joint.families import parse_task
from comfyui_strata.joint.variants import Variant
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.standalone.evaluation import Trial, measure
from comfyui_strata.training.config import Stage, TrainConfig, read_config
from comfyui_strata.training.evaluate import Plan
from comfyui_strata.training.report import Report
from comfyui_strata.training.tiny_models import RECIPES, train_apart

STEPS, TEXT_STEPS = 4, 20  # of the sampler: captions come out better with more
Keys = tuple[tuple[str, str, str], ...]  # task, layer, metric

INTRINSIC: Keys = (
    ("R2AIN", "albedo", "PSNR"), ("R2AIN", "irradiance", "si-RMSE"), ("R2AIN", "normal", "mean angle"),
    ("RA2IN", "normal", "mean angle"), ("AIN2R", "rgb", "PSNR"), ("N2RAI", "rgb", "PSNR"),
)  # fmt: skip
ALPHA: Keys = (
    ("R2PFB", "alpha", "MAD"), ("R2PFB", "fg", "PSNR"), ("R2PFB", "bg", "PSNR"), ("RB2PF", "alpha", "MAD"),
    ("PFB2R", "rgb", "PSNR"), ("t2RPFB", "over(fg, alpha, bg) = rgb", "composite error"),
)  # fmt: skip
UNITY: Keys = (
    ("R2D", "depth", "AbsRel"), ("R2S", "segmentation", "mIoU"), ("R2K", "skeleton", "PCK@0.2"),
    ("R2P", "densepose", "part accuracy"), ("D2R", "rgb", "PSNR"),
)  # fmt: skip
VIGU: Keys = (
    ("R2C", "caption", "fact F1"), ("R2C", "caption", "object kind precision"),
    ("R2C", "caption", "object colour precision"), ("R2C", "caption", "ground precision"),
    ("R2C", "caption", "word edits"),
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """Two arms, each by what it changes in `base`, a config in training/recipes, and what is measured of both."""

    base: str
    arms: Mapping[str, Mapping]
    measured: Keys


QUESTIONS = {
    "gating": Question("ablation_intrinsic", {
        "gated": {}, "always": {"variant": Variant(gating="always")}}, INTRINSIC),
    "adapters": Question("ablation_intrinsic", {
        "one a stream": {}, "shared": {"variant": Variant(adapters="shared")}}, INTRINSIC),
    "joint": Question("ablation_scratch", {
        # With shared adapters nothing would tell the streams apart but their place in the picture's channels.
        "attention": {"variant": Variant(gating="always")},
        "channel concatenation": {"variant": Variant(gating="always", adapters="shared", joint="channel_concat")}},
        INTRINSIC),
    "ffn": Question("ablation_intrinsic", {
        "last": {}, "per stream": {"variant": Variant(ffn="per_stream")}}, INTRINSIC),
    "conditions": Question("ablation_intrinsic", {
        "see all": {}, "see conditions": {"variant": Variant(condition_attention="conditions")}}, INTRINSIC),
    "tasks": Question("ablation_intrinsic", {
        "all 15": {}, "R2AIN alone": {"tasks": {"R2AIN": 1.0}}}, INTRINSIC[:3]),
    "plate": Question("ablation_alpha", {
        "bare": {}, "an adapter of its own": {"variant": Variant(plate="own")}}, ALPHA),
    "rows": Question("ablation_unity", {
        "shared": {"variant": Variant(latents="wan2.1")},
        "a vector a stream": {"variant": Variant(latents="wan2.1", modulation="per_stream")}}, UNITY),
    "sentences": Question("ablation_unity", {
        "a sentence a layer": {"variant": Variant(latents="wan2.1")},
        "none": {"variant": Variant(latents="wan2.1", sentences="none")}}, UNITY),
    "recall": Question("ablation_vigu", {
        "prompt, then caption": {},
        "caption alone": {"stages": (Stage(1200, {"R2C": 0.8, "t2RC": 0.2}, "caption", 0.9),)}}, VIGU),
}  # fmt: skip


def arm_config(folder: Path, question: Question, arm: str, seed: int) -> TrainConfig:
    """The config of one training."""
    config = read_config(RECIPES / f"{question.base}.toml", folder)
    config = replace(config, run=replace(config.run, seed=seed), **question.arms[arm])
    config.check()
    return config


def arm_name(question: Question, config: TrainConfig) -> str:
    """A folder's name: arms of several questions that are the same training share it."""
    parts = [question.base, *(f"{name}-{value}" for name, value in config.variant.changes().items())]
    parts += ["tasks-" + "-".join(config.tasks)] if len(config.tasks) == 1 else []
    parts += [f"stages-{len(config.stages)}"] if config.stages else []
    return "_".join([*parts, f"seed-{config.run.seed}"])


def numbers_of(folder: Path, question: Question, arm: str, seed: int, args: argparse.Namespace) -> dict[tuple, float]:
    """Train and measure one arm, or read what was measured."""
    config = arm_config(folder, question, arm, seed)
    run = folder / "ablations" / arm_name(question, config)
    measured = run / f"eval-{args.shots}.json"
    if not measured.is_file():
        train_apart(config, run, args.processes, cpu=True)
        family = config.resolve_family()
        tasks = tuple(parse_task(family, name) for name in dict.fromkeys(task for task, _, _ in question.measured))
        plan = Plan(tasks, range(args.shots), config.data.frames, config.data.height, config.data.width,
                    TEXT_STEPS if family.texts else STEPS, framing=config.data.framing)
        frozen = config.model.backbone if config.model.train == "adapters" else None  # what learned lies in the run
        models = find_models(str(run), family, backbone=frozen, vae=config.model.vae,
                             text_encoder=config.model.text_encoder)
        partial = measured.with_suffix(".part")  # it is written anew after each task of each shot
        measure(Trial(plan, partial, guidance=1.0), models, Report())
        partial.replace(measured)
    rows = json.loads(measured.read_text(encoding="utf-8"))["rows"]
    return {(row["task"], row["layer"], row["metric"]): row["model"]["mean"] for row in rows}


def table(name: str, question: Question, results: Mapping[str, list[dict[tuple, float]]]) -> str:
    """Markdown: a row a metric, a column an arm."""
    seeds = len(next(iter(results.values())))
    lines = [f"### {name}", "", f"{seeds} training seeds each.", "", "| task | layer | metric | "
             + " | ".join(results) + " |", "|---" * (3 + len(results)) + "|"]
    for key in question.measured:
        cells = []
        for runs in results.values():
            values = [numbers[key] for numbers in runs]
            cells.append(f"{fmean(values):.4g} ± {(max(values) - min(values)) / 2:.2g}")
        lines.append("| " + " | ".join([*key, *cells]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the bundled models were made")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="of the trainings")
    parser.add_argument("--shots", type=int, default=32, help="held-out shots to measure on")
    parser.add_argument("--processes", type=int, default=1, help="for training")
    args = parser.parse_args()
    tables = []
    for name in args.only:
        question = QUESTIONS[name]
        results = {arm: [numbers_of(args.folder, question, arm, seed, args) for seed in args.seeds]
                   for arm in question.arms}
        tables.append(table(name, question, results))
        print(tables[-1], flush=True)
    (args.folder / "ablations" / "ablations.md").write_text("\n".join(tables), encoding="utf-8")


if __name__ == "__main__":
    main()

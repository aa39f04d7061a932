"""The host of an evaluation: model files in, numbers and pictures out, with no ComfyUI about."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from ..imaging.atomic import replace_file
from ..imaging.viewing.contact_sheet import contact_sheet
from ..joint.attention import get_attention
from ..joint.transformer import Host
from ..model_loaders.device import check_device
from ..model_loaders.model_set import ModelSet
from ..training.evaluate import Plan, Result, Texts, evaluate
from ..training.report import Report
from ..training.shots import synthetic_example
from .loading import embed_prompts, load_engine, load_layer_file, no_context, say


@dataclass(frozen=True)
class Trial:
    """A plan, and how to go about it. `json` (a file) and `pictures` (a folder) None write none. `guidance` None takes
    the family's; it counts for tasks that read a caption."""

    plan: Plan
    json: Path | None = None
    pictures: Path | None = None
    guidance: float | None = None
    device: str = "cpu"
    attention: str = "sdpa"

    def check(self) -> None:
        """Raise ValueError when the plan or a setting cannot be."""
        self.plan.check()
        check_device(self.device)
        get_attention(self.attention)


def measure(trial: Trial, models: ModelSet, report: Report) -> None:
    """Fill `report`, task by task of each shot; the JSON on disk always holds all of it.

    The model is loaded once. Raises ValueError, OSError or ImportError with one sentence for what is wrong with a file
    or the machine."""
    loaded = load_layer_file(models, trial.plan.family, trial.device)
    trial = replace(trial, plan=trial.plan.on(loaded.family))  # the file may hold a variant
    plan = trial.plan
    texts = _texts(trial, models)  # before the backbone: the encoder needs the room
    engine, vae = load_engine(models, loaded, trial.device, Host(get_attention(trial.attention)))
    if texts is None:
        texts = Texts(no_context(engine, trial.device))
    report.about.update(_about(trial, models, texts))
    _write(trial, report)  # now, so that a place that cannot be written to costs no sampling
    steps = len(plan.seeds) * len(plan.tasks) * plan.steps
    with tqdm(total=steps, desc="eval", unit="step", disable=None) as bar:
        for result in evaluate(engine, vae, plan, texts, bar.update, loaded.vocabulary):
            report.add(result)
            _write(trial, report)
            if trial.pictures and set(result.task.targets) & set(plan.family.pictures):
                _draw(result, trial.pictures / f"{result.task}_{result.seed:05d}.png")


def _texts(trial: Trial, models: ModelSet) -> Texts | None:
    """The prompts' embeddings where a task reads text and there is an encoder, else what stands for no prompt; None
    where that is zeros, as wide as the backbone's texts."""
    plan = trial.plan
    family, zeros = plan.family, plan.family.no_prompt == "zeros"
    readers = [str(task) for task in plan.tasks if task.uses_text]
    if readers and models.text_encoder is None:
        nothing = "no prompt" if zeros else "the empty prompt"
        say(f"Warning: without a text encoder {nothing} stands in for captions ({', '.join(readers)}).")
    prompts = []
    if readers and models.text_encoder is not None:
        # Each shot is rendered now for its prompt and later for its layers: all of them at once could fill the memory.
        prompts = [synthetic_example(family, seed, plan.frames, plan.height, plan.width, plan.framing).prompt
                   for seed in plan.seeds]
    if zeros and not prompts:
        return None
    streams = {layer for task in plan.tasks for layer in task.conditions + task.targets}
    rows, own = embed_prompts(models, family, trial.device, ["", *prompts, *[family.negative_prompt] * bool(prompts)],
                              [layer for layer in family.layers if layer in streams])
    empty = torch.zeros_like(rows[:1, :1]) if zeros else rows[:1]
    if not prompts:
        return Texts(empty, own=own)
    guidance = family.guidance if trial.guidance is None else trial.guidance
    # Where nothing is guided, nothing is steered away from.
    away = rows[-1:] if guidance != 1.0 else None
    return Texts(empty, dict(zip(plan.seeds, rows[1:-1].split(1))), away, guidance, own)


def _about(trial: Trial, models: ModelSet, texts: Texts) -> dict:
    """Everything that decides the numbers."""
    plan = trial.plan
    prompts = {str(task): "caption" if task.uses_text and texts.captions else "empty" for task in plan.tasks}
    return {"family": plan.family.name, "variant": plan.family.variant.changes(), "prompts": prompts,
            "shots": list(plan.seeds), "framing": plan.framing, "size": [plan.frames, plan.height, plan.width],
            "steps": plan.steps, "guidance": texts.guidance, "seed": plan.seed, "device": trial.device,
            "attention": trial.attention,
            "models": {part: str(path) for part, path in asdict(models).items() if path is not None}}


def _write(trial: Trial, report: Report) -> None:
    if trial.json:
        replace_file(trial.json, report.json())


def _draw(result: Result, path: Path) -> None:
    """A contact sheet of the task's layers, in which each made one is followed by the true one."""
    rows = {}
    for layer in (name for name in result.layers if name in {*result.task.conditions, *result.task.targets}):
        rows[layer] = result.layers[layer]
        if layer in result.task.targets:
            rows[f"{layer} (truth)"] = result.truth[layer]
    contact_sheet(rows, path, given=result.task.conditions, exact=rows.keys() - result.layers.keys())

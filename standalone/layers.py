"""The second host: one shot through the joint engine with no ComfyUI about, from files to files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..imaging.atomic import replace_file
from ..imaging.encodings.layers import decode, encode
from ..imaging.files.clips import read_clip, write_clip
from ..imaging.sizes.fit import Fit, common_fit, still_to_clip
from ..imaging.viewing.contact_sheet import contact_sheet
from ..joint.attention import get_attention
from ..joint.sampling import Engine, Texts, effective_guidance, initial_noise, sample, sample_with_text
from ..joint.streams import Role, Task
from ..joint.text_flow import joint_solver, random_tokens
from ..joint.transformer import Host
from ..model_loaders.device import check_device
from ..model_loaders.model_set import ModelSet
from ..model_loaders.vocabulary import Vocabulary
from .captions import TextDraw, forward_bar
from .loading import embed_prompts, load_engine, load_layer_file, no_context, say, working_dtype


@dataclass(frozen=True)
class Job:
    """What to make of a shot. `size` (height, width) and `frames` are for tasks with nothing given, where None takes
    the family's own; `frames` also cuts what is given. `steps` and `guidance` None take the family's own."""

    task: Task
    inputs: dict[str, Path]
    out: Path
    prompt: str = ""
    negative: str | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 1
    frames: int | None = None
    size: tuple[int, int] | None = None
    format: str = "png"
    device: str = "cpu"
    attention: str = "sdpa"

    def check(self) -> None:
        """Raise ValueError when the given layers are not those of the task, or a setting cannot be."""
        family, given = self.task.family, self.task.conditions
        wanted, got = {name for name in given if name in family.pictures}, set(self.inputs)
        missing, extra = sorted(wanted - got), sorted(got - wanted)
        if missing:
            raise ValueError(f"{self.task} needs {', '.join(missing)} given: add --input {missing[0]}=PATH.")
        if written := [name for name in family.texts if name in got]:
            raise ValueError(f"The {written[0]} is text: give it by --prompt, not by --input.")
        if extra:
            raise ValueError(f"{self.task} is not given {', '.join(extra)} (given: {', '.join(given) or 'nothing'}; "
                             f"made: {', '.join(self.task.targets)}): leave that --input out, or choose another task.")
        if (texts := [name for name in given if name in family.texts]) and not self.prompt.strip():
            raise ValueError(f"{self.task} needs the {texts[0]} given: add --prompt TEXT.")
        if self.inputs and self.size:
            raise ValueError("--size is for tasks with nothing given; a given clip keeps its own size.")
        check_device(self.device)
        get_attention(self.attention)


def run(job: Job, models: ModelSet) -> dict[str, Path]:
    """Make the targets of a job, and a contact sheet of all layers: name -> where it lies.

    Raises ValueError, OSError or ImportError with one sentence for what is wrong with the job, a file or the machine;
    nothing half-written is left.
    """
    job.check()
    images, rate = _read_inputs(job)
    loaded = load_layer_file(models, job.task.family, job.device)
    job = replace(job, task=replace(job.task, family=loaded.family))  # the file may hold a variant
    task, family = job.task, loaded.family
    fit = common_fit(images, family.latents.cell) if images else _free_size(job)
    images = {layer: still_to_clip(image, fit.frames) for layer, image in images.items()}
    ids = _given_text(job, loaded.vocabulary)
    prompts, own, guidance = _embed(job, models)  # before the backbone: the encoder needs the room
    engine, vae = load_engine(models, loaded, job.device, Host(get_attention(job.attention)))
    texts = Texts(no_context(engine, job.device) if prompts is None else prompts, own)
    clean = torch.zeros(1, len(family.pictures), family.latents.channels, *fit.latent)
    for layer, image in images.items():
        pixels = fit.pad(encode(family.stream(layer).encoding, image))
        clean[0, family.pictures.index(layer)] = vae.encode(pixels, normalised=family.latents.normalised).cpu()
    result, ids, steps = _sample(job, task, engine, clean, ids, texts, guidance)
    layers = dict(images)
    for layer in _pictures(task):
        latents = result[0, family.pictures.index(layer)].float()
        pixels = fit.crop(vae.decode(latents, normalised=family.latents.normalised).cpu())
        layers[layer] = decode(family.stream(layer).encoding, pixels)
    captions = {layer: loaded.vocabulary.decode(ids[0].tolist()) for layer in task.targets if layer in family.texts}
    return _write(job, models, layers, captions, rate, steps, guidance)


def _pictures(task: Task) -> tuple[str, ...]:
    """The pictures that a task makes."""
    return tuple(layer for layer in task.targets if layer in task.family.pictures)


def _free_size(job: Job) -> Fit:
    """The size of a clip of which nothing is given."""
    family = job.task.family
    return Fit(job.frames or family.frames, *(job.size or (family.height, family.width)), family.latents.cell)


def _read_inputs(job: Job) -> tuple[dict[str, Tensor], Fraction]:
    """The given layers as [F, H, W, 3] in 0..1, and the frame rate of the first clip."""
    family, images, rates = job.task.family, {}, []
    for layer, path in job.inputs.items():
        data = family.stream(layer).encoding != "colour"
        clip = read_clip(path, job.frames, data=data)
        if (clip.images > 1).any() or (clip.images < 0).any():
            say(f"Warning: {layer} has values outside 0..1, which the model cannot see; they are clipped.")
        images[layer] = clip.images.clamp(0, 1)
        rates.append(clip.rate)
    return images, rates[0] if rates else Fraction(family.rate)


def _given_text(job: Job, vocabulary: Vocabulary | None) -> Tensor | None:
    """The ids [1, S] of the prompt where it is a given stream, too. Padding is left out: no other token would see it.

    Raises ValueError as `Vocabulary.encode`."""
    for layer in job.task.family.texts:
        if layer in job.task.conditions:
            length = job.task.family.stream(layer).tokens.length
            return torch.tensor([vocabulary.encode(job.prompt, length)], device=job.device)
    return None


def _embed(job: Job, models: ModelSet) -> tuple[Tensor | None, dict[str, Tensor], float]:
    """The embeddings [B, W, E] of the prompt and, where guidance needs it, the negative one, None where nothing is
    read; those of the layers' fixed prompts; and that guidance."""
    family, task, empty = job.task.family, job.task, not job.prompt.strip()
    present = [layer for layer, role in zip(family.layers, task.roles) if role is not Role.ABSENT]
    asked = family.guidance if job.guidance is None else job.guidance
    guidance = effective_guidance(asked, empty)
    if not _pictures(task):
        guidance = 1.0  # only pictures are guided
    elif guidance != asked:
        say(f"The prompt is empty, so CFG {asked:g} becomes 1.")
    if not empty and not task.uses_text and _pictures(task):
        say(f"Warning: {task} was trained with an empty prompt; yours may do harm.")
    if empty and family.no_prompt == "zeros":
        return None, {}, guidance
    away = family.negative_prompt if job.negative is None else job.negative
    prompts = [text if text.strip() else "" for text in (job.prompt, away)[:1 if guidance == 1.0 else 2]]
    return *embed_prompts(models, family, job.device, prompts, present), guidance


def _sample(job: Job, task: Task, engine: Engine, clean: Tensor, ids: Tensor | None, texts: Texts,
            guidance: float) -> tuple[Tensor, Tensor | None, int]:
    """The pictures [1, P, C, T, h, w] and, where there is one, the text [1, S] of a job, and in how many steps."""
    family, device, dtype = task.family, job.device, working_dtype(job.device)
    noise = initial_noise(task, tuple(clean.shape[3:]), clean.shape[2], job.seed).to(device, dtype)
    clean = clean.to(device, dtype)
    written = [family.stream(layer).tokens for layer in task.targets if layer in family.texts]
    generator = torch.Generator(device).manual_seed(job.seed)
    steps = job.steps or (family.flow.steps if _pictures(task) else written[0].steps)
    if not _pictures(task):
        draw = TextDraw.caption("jump", steps, written[0].length, engine.experts.vocabulary, generator)
        with forward_bar(draw.forwards, str(task)) as bar:
            return clean, draw.sample(engine, task, clean, texts, bar), steps
    with tqdm(total=steps, desc=str(task), unit="step", disable=None) as bar:
        settings = {"guidance": guidance, "callback": lambda i, x: bar.update()}
        if not written:
            return sample(engine, task, clean, noise, texts, ids=ids, steps=steps, **settings), ids, steps
        ids = random_tokens(1, written[0].length, engine.experts.vocabulary, generator)
        solver = joint_solver(steps, ids.shape[1], generator)
        return *sample_with_text(engine, task, clean, noise, texts, ids, solver, **settings), steps


def _write(job: Job, models: ModelSet, layers: dict[str, Tensor], captions: dict[str, str], rate: Fraction, steps: int,
           guidance: float) -> dict[str, Path]:
    """Write the targets, a contact sheet of all pictures, and `run.json` with everything that decides the result."""
    family, written = job.task.family, {}
    job.out.mkdir(parents=True, exist_ok=True)
    for layer in _pictures(job.task):
        written[layer] = write_clip(layers[layer], job.out / layer, rate, job.format, family.stream(layer).encoding)
    for layer, caption in captions.items():
        written[layer] = job.out / f"{layer}.txt"
        replace_file(written[layer], f"{caption}\n".encode())
    ordered = {layer: layers[layer] for layer in family.pictures if layer in layers}
    written["contact sheet"] = contact_sheet(ordered, job.out / "contact_sheet.png", given=job.task.conditions)
    about = {"family": family.name, "task": str(job.task), "inputs": {k: str(v) for k, v in job.inputs.items()},
             "prompt": job.prompt, "negative": job.negative, **captions,
             "size": list(next(iter(ordered.values())).shape[:3]), "steps": steps, "guidance": guidance,
             "seed": job.seed, "rate": str(rate), "format": job.format, "device": job.device,
             "attention": job.attention,
             "models": {k: str(v) for k, v in asdict(models).items() if v is not None}}
    written["settings"] = job.out / "run.json"
    replace_file(written["settings"], json.dumps(about, indent=1, ensure_ascii=False).encode())
    return written

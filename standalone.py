"""The second host: one shot through the joint engine with no ComfyUI about, from files to files."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from .imaging.atomic import replace_file
from .imaging.clips import read_clip, write_clip
from .imaging.contact_sheet import contact_sheet
from .imaging.fit import Fit, common_fit, still_to_clip
from .imaging.layers import decode, encode
from .joint.adapters import AdapterSettings
from .joint.attention import get_attention
from .joint.channels import check_channels
from .joint.sampling import Engine, Texts, effective_guidance, initial_noise, sample
from .joint.streams import Family, Task
from .joint.transformer import Host
from .model_loaders.backbone import load_backbone
from .model_loaders.device import check_device
from .model_loaders.layer_files import LoadedLayers, check_fits, load_layers, save_prompts, stored_prompts
from .model_loaders.model_set import ModelSet
from .model_loaders.text import encode_prompts
from .model_loaders.vae import LATENT_CHANNELS, WanVae, load_vae


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
        wanted, got = set(self.task.conditions), set(self.inputs)
        missing, extra = sorted(wanted - got), sorted(got - wanted)
        if missing:
            raise ValueError(f"{self.task} needs {', '.join(missing)} given: add --input {missing[0]}=PATH.")
        if extra:
            raise ValueError(f"{self.task} is not given {', '.join(extra)} (given: "
                             f"{', '.join(self.task.conditions) or 'nothing'}; made: {', '.join(self.task.targets)}): "
                             "leave that --input out, or choose another task.")
        if self.inputs and self.size:
            raise ValueError("--size is for tasks with nothing given; a given clip keeps its own size.")
        check_device(self.device)
        get_attention(self.attention)


def say(text: str) -> None:
    """Talk goes to stderr; stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def run(job: Job, models: ModelSet) -> dict[str, Path]:
    """Make the targets of a job, and a contact sheet of all layers: name -> where it lies.

    Raises ValueError, OSError or ImportError with one sentence for what is wrong with the job, a file or the machine;
    nothing half-written is left.
    """
    family = job.task.family
    job.check()
    host = Host(get_attention(job.attention))
    images, rate = _read_inputs(job)
    fit = common_fit(images) if images else _free_size(job)
    images = {layer: still_to_clip(image, fit.frames) for layer, image in images.items()}

    loaded = load_layer_file(models, family, job.device)
    task, family = replace(job.task, family=loaded.family), loaded.family  # the file may hold a variant
    texts, guidance = _texts(job, models)  # before the backbone: the encoder needs the room
    engine, vae = load_engine(models, loaded, job.device, host)
    dtype = working_dtype(job.device)
    clean = torch.zeros(1, len(family.streams), LATENT_CHANNELS, *fit.latent)
    for layer, image in images.items():
        row = family.index(layer)
        clean[0, row] = vae.encode(fit.pad(encode(family.streams[row].encoding, image))).cpu()
    noise = initial_noise(task, fit.latent, clean.shape[2], job.seed)
    steps = job.steps or family.flow.steps
    with tqdm(total=steps, desc=str(job.task), unit="step", disable=None) as bar:
        result = sample(engine, task, clean.to(job.device, dtype), noise.to(job.device, dtype), texts,
                        guidance=guidance, steps=steps, callback=lambda i, x: bar.update())
    layers = dict(images)
    for layer in job.task.targets:
        row = family.index(layer)
        pixels = fit.crop(vae.decode(result[0, row].float()).cpu())
        layers[layer] = decode(family.streams[row].encoding, pixels)
    return _write(job, models, layers, rate, steps, guidance)


def working_dtype(device: str) -> torch.dtype:
    """A checkpoint trained in bf16 runs in it where the hardware does; CPUs are slower and no smaller with it."""
    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def load_layer_file(models: ModelSet, family: Family, device: str) -> LoadedLayers:
    """The layers of a family, with what is odd about them said; `family` of the result is the variant that the file
    holds. Raises as `load_layers`."""
    loaded = load_layers(models.adapters, family=family, dtype=working_dtype(device), device=device)
    for warning in loaded.warnings:
        say(f"Warning: {warning}")
    return loaded


def load_engine(models: ModelSet, loaded: LoadedLayers, device: str, host: Host) -> tuple[Engine, WanVae]:
    """The backbone joined with its layers, and the VAE. Texts are embedded before: the encoder needs the room.

    Raises as `load_backbone`, `check_fits`, `check_channels` and `load_vae`."""
    backbone = load_backbone(models.backbone, device=device, dtype=working_dtype(device))
    config = backbone.config
    check_fits(loaded, config.num_layers, config.dim, config.ffn_dim)
    check_channels(loaded.family, LATENT_CHANNELS, config.in_dim, config.out_dim)
    engine = Engine(backbone, loaded.bank, AdapterSettings.published(loaded.family), host, loaded.experts)
    return engine, load_vae(models.vae, device=device)


def empty_context(models: ModelSet, device: str) -> Tensor:
    """The embedding [1, W, E] of the empty prompt: what lies beside the adapters, or else what the text encoder gives,
    which is then stored there. Raises ValueError where there is neither."""
    dtype = working_dtype(device)
    stored = stored_prompts(models.adapters).get("")
    if stored is not None:
        return stored.to(device, dtype)
    if models.text_encoder is None:
        raise ValueError("This model has no text encoder and no embedding of the empty prompt is stored beside its "
                         "adapters: add --text-encoder PATH (umt5_xxl).")
    context = encode_prompts(models.text_encoder, [""], device=device, dtype=dtype)
    try:
        save_prompts(models.adapters, {"": context[0]})
    except OSError as error:  # a model folder may be shared and read-only; the result does not need it
        say(f"The empty prompt's embedding could not be stored for the next run ({error.strerror or error}).")
    return context


def _free_size(job: Job) -> Fit:
    """The size of a clip of which nothing is given."""
    family = job.task.family
    return Fit(job.frames or family.frames, *(job.size or (family.height, family.width)))


def _read_inputs(job: Job) -> tuple[dict[str, Tensor], Fraction]:
    """The given layers as [F, H, W, 3] in 0..1, and the frame rate of the first clip."""
    family, images, rates = job.task.family, {}, []
    for layer, path in job.inputs.items():
        data = family.streams[family.index(layer)].encoding != "colour"
        clip = read_clip(path, job.frames, data=data)
        if (clip.images > 1).any() or (clip.images < 0).any():
            say(f"Warning: {layer} has values outside 0..1, which the model cannot see; they are clipped.")
        images[layer] = clip.images.clamp(0, 1)
        rates.append(clip.rate)
    return images, rates[0] if rates else Fraction(family.rate)


def _texts(job: Job, models: ModelSet) -> tuple[Texts, float]:
    """The prompt's embedding and, where guidance needs it, the negative one's; and that guidance."""
    family, empty = job.task.family, not job.prompt.strip()
    asked = family.guidance if job.guidance is None else job.guidance
    guidance = effective_guidance(asked, empty)
    if guidance != asked:
        say(f"The prompt is empty, so CFG {asked:g} becomes 1.")
    if not empty and not job.task.uses_text:
        say(f"Warning: {job.task} was trained with an empty prompt; yours may do harm.")
    if empty:
        return Texts(empty_context(models, job.device)), guidance
    if models.text_encoder is None:
        raise ValueError("This model has no text encoder and the prompt needs one: add --text-encoder PATH (umt5_xxl).")
    away = family.negative_prompt if job.negative is None else job.negative
    prompts = [job.prompt] + ([away] if guidance != 1.0 else [])
    rows = encode_prompts(models.text_encoder, prompts, device=job.device, dtype=working_dtype(job.device))
    return Texts(rows), guidance


def _write(job: Job, models: ModelSet, layers: dict[str, Tensor], rate: Fraction, steps: int,
           guidance: float) -> dict[str, Path]:
    """Write the targets, a contact sheet of all layers, and `run.json` with everything that decides the result."""
    family, written = job.task.family, {}
    job.out.mkdir(parents=True, exist_ok=True)
    for layer in job.task.targets:
        encoding = family.streams[family.index(layer)].encoding
        written[layer] = write_clip(layers[layer], job.out / layer, rate, job.format, encoding)
    ordered = {layer: layers[layer] for layer in family.layers}
    written["contact sheet"] = contact_sheet(ordered, job.out / "contact_sheet.png", given=job.task.conditions)
    about = {"family": family.name, "task": str(job.task), "inputs": {k: str(v) for k, v in job.inputs.items()},
             "prompt": job.prompt, "negative": job.negative, "size": list(layers[job.task.targets[0]].shape[:3]),
             "steps": steps, "guidance": guidance, "seed": job.seed, "rate": str(rate), "format": job.format,
             "device": job.device, "attention": job.attention,
             "models": {k: str(v) for k, v in asdict(models).items() if v is not None}}
    written["settings"] = job.out / "run.json"
    replace_file(written["settings"], json.dumps(about, indent=1, ensure_ascii=False).encode())
    return written

"""Files into an engine that is ready to sample, and prompts into embeddings: what the hosts without ComfyUI share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from ..joint.adapters import AdapterSettings
from ..joint.channels import check_channels
from ..joint.sampling import Engine
from ..joint.streams import Family
from ..joint.transformer import Host
from ..model_loaders.backbone import load_backbone
from ..model_loaders.layer_files import LoadedLayers, check_fits, load_layers, save_prompts, stored_prompts
from ..model_loaders.model_set import ModelSet
from ..model_loaders.text import encode_prompts
from ..model_loaders.vae import WanVae, load_vae


def say(text: str) -> None:
    """Talk goes to stderr; stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def working_dtype(device: str) -> torch.dtype:
    """A checkpoint trained in bf16 runs in it where the hardware does; CPUs are slower and no smaller with it."""
    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def load_layer_file(models: ModelSet, family: Family, device: str) -> LoadedLayers:
    """The layers of a family, with what is odd about them said; `.family` is the variant that the file holds.
    Raises as `load_layers`."""
    loaded = load_layers(models.adapters, family=family, dtype=working_dtype(device), device=device)
    for warning in loaded.warnings:
        say(f"Warning: {warning}")
    return loaded


def load_engine(models: ModelSet, layers: LoadedLayers, device: str, host: Host) -> tuple[Engine, WanVae]:
    """The backbone joined with its layers, and the VAE. Texts are embedded before: the encoder needs the room.

    Raises as `load_backbone`, `check_fits`, `check_channels` and `load_vae`."""
    backbone = load_backbone(models.backbone, device=device, dtype=working_dtype(device))
    config, family = backbone.config, layers.family
    check_fits(layers, config.num_layers, config.dim, config.ffn_dim)
    check_channels(family, family.latents.channels, config.in_dim, config.out_dim)
    engine = Engine(backbone, layers.bank, AdapterSettings.published(family), host, layers.experts)
    return engine, load_vae(models.vae, device=device, channels=family.latents.channels)


def embed_prompts(models: ModelSet, family: Family, device: str, prompts: Sequence[str],
                  streams: Sequence[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings [n, W, E] of prompts, and [1, W, E] by name of the fixed prompts of streams that have one.

    The empty prompt and fixed ones never change, so they are taken from beside the layer file, or else from the text
    encoder and then stored there. Raises ValueError where something needs an encoder and there is none, or another
    one than gave the stored prompts.
    """
    dtype, known = working_dtype(device), stored_prompts(models.adapters)
    fixed = {name: family.stream(name).prompt for name in streams if family.stream(name).prompt}
    lacking = {name: text for name, text in fixed.items() if name not in known}
    if "" in prompts and "" not in known:
        lacking[""] = ""
    free = [prompt for prompt in dict.fromkeys(prompts) if prompt]
    embedded = {}
    if free or lacking:
        if models.text_encoder is None:
            names = " or ".join(f"the fixed prompt of {name}" if name else "the empty prompt" for name in lacking)
            why = "the prompt needs one" if free else f"no embedding of {names} is stored beside its layers"
            raise ValueError(f"This model has no text encoder and {why}: add --text-encoder PATH (umt5_xxl).")
        rows = encode_prompts(models.text_encoder, [*lacking.values(), *free], device=device, dtype=dtype,
                              **asdict(family.text))
        made = dict(zip(lacking, rows.split(1)))
        embedded = dict(zip(free, rows[len(made):].split(1)))
        known |= made
        if made:
            _store(models, made)
    rows = [embedded[prompt] if prompt else known[""] for prompt in prompts]
    own = {name: known[name].to(device, dtype) for name in fixed}
    if len(lengths := sorted({row.shape[1] for row in (*rows, *own.values())})) > 1:
        raise ValueError(f"The prompts are of {lengths[0]} and of {lengths[1]} tokens, because some lie stored beside "
                         f"'{models.adapters.name}' and are not this text encoder's: take that of the training.")
    return torch.cat([row.to(device, dtype) for row in rows]), own


def no_context(engine: Engine, device: str) -> Tensor:
    """[1, 1, E] of zeros: equal rows, however many, are one to an attention. See `Family.no_prompt`."""
    return torch.zeros(1, 1, engine.model.config.text_dim, device=device, dtype=working_dtype(device))


def _store(models: ModelSet, made: dict[str, Tensor]) -> None:
    try:
        save_prompts(models.adapters, {name: row[0] for name, row in made.items()})
    except OSError as error:  # a model folder may be shared and read-only; the result does not need it
        say(f"What the text encoder gave could not be stored for the next run ({error.strerror or error}).")

"""What the in-process checks share: tiny random Wan models of ComfyUI's own classes, adapters, texts, latents, and the
stock way to sample. Random but tame (every layer keeps its input's scale); the same seed gives the same thing.

M streams, T h w latent sizes, N clips. Errors are relative: max|ours - reference| / max|reference|.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

import comfy.conds
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sample
import comfy.samplers
import comfy.supported_models
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

import nodes

from ....comfy_host.attach import attach_layers, joint_model
from ....comfy_host.forward import KEY, Plan
from ....comfy_host.sampling import absent_rows
from ....joint.experts import Experts
from ....joint.families import INTRINSIC, parse_task
from ....joint.streams import Family, Role, Task
from ....joint.wan import WanConfig
from ....model_loaders.adapter_names import ATTENTION, FEED_FORWARD, AdapterKey, is_dead
from ....model_loaders.adapters import read_adapters
from ....model_loaders.layer_files import LoadedLayers
from ....model_loaders.layer_metadata import layer_metadata
from ....model_loaders.vocabulary import Vocabulary, make_word_vocabulary

DIM, FFN, HEADS, LAYERS, TEXT_DIM = 96, 128, 4, 2, 32
WORDS = ("a", "red", "green", "ball", "cube", "on", "the", "table", "moves", "slowly")
GRID = (2, 4, 6)  # T, h, w of most latents here
CPU = torch.device("cpu")


def within(what: str, ours: Tensor, reference: Tensor, limit: float) -> str:
    """Assert that two tensors agree to `limit`; says how well."""
    assert ours.shape == reference.shape, f"{what}: {tuple(ours.shape)} against {tuple(reference.shape)}"
    error = relative_error(ours, reference)
    assert error <= limit, f"{what} differs by {error:.2e}, limit {limit:g}"
    return f"{what} {error:.1e} (limit {limit:g})"


def differs(what: str, ours: Tensor, reference: Tensor, least: float = 1e-3) -> str:
    """Assert that two tensors differ by `least` or more; says by how much."""
    error = relative_error(ours, reference)
    assert error >= least, f"{what} makes no difference: {error:.2e}, at least {least:g} was expected"
    return f"{what} changes {error:.1e}"


def equal(what: str, ours: Tensor, reference: Tensor) -> str:
    """Assert that two tensors are equal to the bit."""
    assert torch.equal(ours, reference), f"{what} is not bit-equal (differs by {relative_error(ours, reference):.2e})"
    return f"{what} bit-equal"


def raises(kind: type[Exception], *words: str, call) -> str:
    """Assert that `call()` raises `kind` with one sentence that holds all `words`; returns the sentence."""
    try:
        call()
    except kind as error:
        sentence = str(error)
        missing = [word for word in words if word not in sentence]
        assert not missing, f"the message lacks {missing}: {sentence}"
        whole = re.fullmatch(r"(?!.*[.!?] [A-Z])[^\n]+\.", sentence)
        assert whole, f"not one sentence: {sentence!r}"
        return sentence
    raise AssertionError(f"no {kind.__name__} was raised ({', '.join(words)})")


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """max|ours - reference| / max|reference|; infinite where either is not finite."""
    if not (torch.isfinite(ours).all() and torch.isfinite(reference).all()):
        return float("inf")
    return float((ours.double() - reference.double()).abs().max() / reference.double().abs().max())


def random_state(shapes: dict[str, torch.Size], seed: int) -> dict[str, Tensor]:
    """Weights that keep the scale of what they are given, by parameter name."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=draw)
        if "norm" in name and name.endswith("weight"):
            value = 1 + 0.1 * value
        elif name.endswith("modulation"):
            value = 0.3 * value
        elif name.endswith("bias"):
            value = 0.02 * value
        else:
            value = value * shape[1:].numel() ** -0.5
        state[name] = value
    return state


def wan_model(seed: int = 0, state: dict[str, Tensor] | None = None, family: Family = INTRINSIC, **changes):
    """A stock MODEL: ComfyUI's WAN21, or WAN22 for its latents, with its WanModel, float32, from `state` or random."""
    channels = family.latents.channels
    config = {"image_model": "wan2.1", "model_type": "t2v", "dim": DIM, "ffn_dim": FFN, "num_heads": HEADS,
              "num_layers": LAYERS, "text_dim": TEXT_DIM, "freq_dim": 32, "in_dim": channels, "out_dim": channels,
              **changes}
    kind = comfy.supported_models.WAN22_T2V if family.latents.cell == 16 else comfy.supported_models.WAN21_T2V
    about = kind(config)
    about.set_inference_dtype(torch.float32, None)
    model = about.get_model({}, device=CPU)
    wan = model.diffusion_model
    wan.load_state_dict(state or random_state({k: v.shape for k, v in wan.state_dict().items()}, seed))
    return comfy.model_patcher.CoreModelPatcher(model, load_device=CPU, offload_device=CPU)


def layers(family: Family = INTRINSIC, seed: int = 0, **sizes: int) -> LoadedLayers:
    """What a loader makes of a family's file: the adapters of `adapter_tensors`, or random parts of its streams' own,
    with a vocabulary of a few words."""
    if family.file_adapters:
        loaded = read_adapters(adapter_tensors(family, seed, **sizes), "tiny", layer_metadata(family))
        return LoadedLayers(loaded.family, loaded.bank, None, None, loaded.rank, loaded.warnings)
    channels, vocabulary = family.latents.channels, Vocabulary(make_word_vocabulary(WORDS), "tiny")
    config = WanConfig(dim=DIM, ffn_dim=FFN, num_heads=HEADS, num_layers=sizes.get("layers", LAYERS),
                       text_dim=TEXT_DIM, freq_dim=32, in_dim=channels, out_dim=channels)
    experts = Experts(family, config, vocabulary.size if family.texts else 0, comfy.ops.manual_cast)
    experts.load_state_dict(random_state({k: v.shape for k, v in experts.state_dict().items()}, 300 + seed))
    return LoadedLayers(family, None, experts.requires_grad_(False), vocabulary if family.texts else None, None, ())


def prompts(family: Family, tokens: int = 8, seed: int = 50) -> dict[str, Tensor]:
    """Random embeddings of a family's fixed prompts."""
    draw = torch.Generator().manual_seed(seed)
    return {stream.name: torch.randn(1, tokens, TEXT_DIM, generator=draw) for stream in family.streams if stream.prompt}


def adapter_tensors(family: Family = INTRINSIC, seed: int = 0, dim: int = DIM, ffn: int = FFN, layers: int = LAYERS,
                    rank: int = 4) -> dict[str, Tensor]:
    """Random adapters of a family under published keys, as loud as the weights they sit on; the dead ones zero."""
    draw = torch.Generator().manual_seed(100 + seed)
    tensors = {}
    for block, site, matrix, adapter in product(range(layers), ATTENTION + FEED_FORWARD, "AB", family.file_adapters):
        key = AdapterKey(block, site, matrix, adapter)
        n_in, n_out = (ffn if site == "ffn.2" else dim), (ffn if site == "ffn.0" else dim)
        shape = (rank, n_in) if matrix == "A" else (n_out, rank)
        value = torch.randn(shape, generator=draw) * shape[1] ** -0.5
        tensors[str(key)] = torch.zeros(shape) if matrix == "B" and is_dead(key, family) else value
    return tensors


def layered(family: Family = INTRINSIC, model=None, seed: int = 0):
    """A MODEL with layers, on `model` or a fresh one."""
    model = wan_model(family=family) if model is None else model
    blocks = len(model.model.diffusion_model.blocks)
    return attach_layers(model, layers(family, seed, layers=blocks), family, prompts(family))


def text(seed: int = 1, tokens: int = 8, texts: int = 1, dim: int = TEXT_DIM) -> list:
    """A CONDITIONING of random embeddings [texts, tokens, E]."""
    return [[torch.randn(texts, tokens, dim, generator=torch.Generator().manual_seed(seed)), {}]]


def latent(task: str = "R2AIN", family: Family = INTRINSIC, grid: tuple[int, int, int] = GRID, seed: int = 0) -> dict:
    """A LATENT of one clip: random pictures at given layers, zeros at others, a noise_mask of whole rows."""
    mask = row_mask(parse_task(family, task), grid)
    clean = torch.randn(len(mask), family.latents.channels, *grid, generator=torch.Generator().manual_seed(seed))
    return {"samples": clean * (mask == 0), "noise_mask": mask}


def row_mask(task: Task, grid: Sequence[int]) -> Tensor:
    """The noise_mask [M, 1, T, h, w] of a task whose layers are generated, given or absent as a whole."""
    kept = {Role.TARGET: 1.0, Role.CONDITION: 0.0, Role.ABSENT: -1.0}
    return torch.tensor([kept[role] for role in task.roles]).view(-1, 1, 1, 1, 1).repeat(1, 1, *grid)


def join(*latents: dict) -> dict:
    """Several clips in one LATENT, clip-major."""
    return {key: torch.cat([part[key] for part in latents]) for key in ("samples", "noise_mask")}


def ksampler(model, latent: dict, positive=None, negative=None, *, steps: int = 4, cfg: float = 1.0, seed: int = 1,
             sampler: str = "euler", scheduler: str = "simple") -> Tensor:
    """The stock KSampler node's samples."""
    positive = positive or text()
    return nodes.KSampler().sample(model, seed, steps, cfg, sampler, scheduler, positive, negative or text(2),
                                   latent)[0]["samples"]


def sample_noise(model, latent: dict, noise: Tensor, positive=None, negative=None, *, steps: int = 4, cfg: float = 1.0,
                 seed: int = 1, callback=None) -> Tensor:
    """What the stock KSampler does, from a noise of our own (so that clips can be compared one by one)."""
    return comfy.sample.sample(model, noise, steps, cfg, "euler", "simple", positive or text(), negative or text(2),
                               latent["samples"], noise_mask=latent.get("noise_mask"), seed=seed, disable_pbar=True,
                               callback=callback)


def keeps_given(what: str, result: Tensor, latent: dict) -> str:
    """Assert that a sampling's result is finite, holds what was given or absent bit by bit, and generated something
    elsewhere."""
    given = (latent["noise_mask"] <= 0).expand_as(result)
    assert torch.isfinite(result).all(), f"{what}: not finite"
    assert torch.equal(result[given], latent["samples"][given]), f"{what}: what was given has changed"
    assert (result[~given] != latent["samples"][~given]).float().mean() > 0.99, f"{what}: nothing was generated"
    return f"{what} given exact"


class Spy:
    """A stock DIFFUSION_MODEL wrapper that keeps what the network was called with, call by call."""

    def __init__(self, model):
        self.model = model.clone()
        self.model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spy", self)
        self.calls: list[dict] = []

    def __call__(self, executor, x, timestep, context, *args, **kwargs):
        out = executor(x, timestep, context, *args, **kwargs)
        self.calls.append({"x": x.clone(), "timestep": timestep.clone(), "context": context.clone(),
                           "mask": kwargs.get("denoise_mask"), "out": out.clone()})
        return out

    def __getitem__(self, key: str) -> list[Tensor]:
        return [call[key] for call in self.calls]


def network(model, x: Tensor, sigma: Tensor, context: Tensor, mask: Tensor | None, plan: Plan | None = None) -> dict:
    """One call of the network through BaseModel.apply_model, as a sampler makes it: what the Spy saw of it."""
    spy = Spy(model)
    comfy.model_management.load_models_gpu([spy.model, *spy.model.get_nested_additional_models()])
    extra = {} if mask is None else {"denoise_mask": mask}
    options = {**spy.model.model_options["transformer_options"], "wrappers": spy.model.wrappers,
               KEY: plan or Plan(absent_rows(mask, joint_model(model).family))}
    spy.model.model.apply_model(x, sigma.expand(x.shape[0]), c_crossattn=context, transformer_options=options, **extra)
    return spy.calls[0]


def separate_calls(model):
    """A clone that runs every prompt in a call of its own, as ComfyUI does when memory is short."""
    model = model.clone()
    model.add_object_patch("memory_required", lambda *args, **kwargs: 1e30)
    return model

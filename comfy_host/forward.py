"""`joint_forward` in the place of `WanModel._forward`: rows of a LATENT in, rows of velocity out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import comfy.ldm.common_dit
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ..joint.adapters import ActiveAdapters, AdapterBank, AdapterSettings
from ..joint.experts import Experts
from ..joint.flow import rounded_time
from ..joint.layout import make_layout
from ..joint.rope import GridOptions
from ..joint.sampling import with_own_texts
from ..joint.streams import Family, Role
from ..joint.transformer import Host, joint_forward
from ..model_loaders.vocabulary import Vocabulary

KEY = "strata"


@dataclass(frozen=True)
class JointModel:
    """What a MODEL with layers carries, under `model.get_attachment("strata")`.

    `bank` and `experts`: its adapters and its streams' own parts, where it has any. `vocabulary`: that of its text.
    `prompts` [1, W, E]: the embeddings of the empty prompt ("") and of streams' fixed prompts, those that are known.
    `injection`: the key of the injection in force."""

    family: Family
    bank: AdapterBank | None
    experts: Experts | None
    vocabulary: Vocabulary | None
    settings: AdapterSettings
    prompts: Mapping[str, Tensor]
    injection: str = ""


@dataclass
class TextStep:
    """One look of the network at the text of a sampling: its tokens `ids` [clips, S], their role and time 0..1000, and
    which logits are `wanted` [clips, S], None for all. The forward leaves the `logits` of the prompt's branch."""

    ids: Tensor
    role: Role
    time: float = 0.0
    wanted: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class Plan:
    """What a sampling tells the forward through `transformer_options["strata"]` besides the mask: the picture rows
    that are absent, of each clip, and the text where there is one."""

    absent: tuple[tuple[bool, ...], ...] = ()
    text: TextStep | None = None

    def is_absent(self, request: int, row: int) -> bool:
        """Whether a request, branch-major over clips, goes without a picture row."""
        return bool(self.absent) and self.absent[request % len(self.absent)][row]


class ComfyHost(Host):
    """ComfyUI around the forward: its attention (with any override a user installed) and its additive patches.

    Patches see the packed sequence [N, T, D] of all layers where stock Wan would show one row a layer."""

    def __init__(self, transformer_options: dict, latents: Tensor, blocks: int):
        super().__init__(self._attend)
        self.options, self.latents = transformer_options, latents
        self.patches = transformer_options.get("patches", {})
        self.options.update(total_blocks=blocks, block_type="double")

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return optimized_attention(q, k, v, heads=heads, transformer_options=self.options)

    def start_block(self, index: int) -> None:
        self.options["block_index"] = index

    def after_self_attention(self, x: Tensor, q: Tensor, k: Tensor) -> Tensor:
        for patch in self.patches.get("attn1_patch", ()):
            x = patch({"x": x, "q": q, "k": k, "transformer_options": self.options})
        return x

    def after_cross_attention(self, x: Tensor) -> Tensor:
        for patch in self.patches.get("attn2_patch", ()):
            x = patch({"x": x, "transformer_options": self.options})
        return x

    def after_block(self, x: Tensor, index: int) -> Tensor:
        for patch in self.patches.get("double_block", ()):
            x = patch({"img": x, "x": self.latents, "block_index": index, "img_offset": 0,
                       "transformer_options": self.options})["img"]
        return x


HONOURED_PATCHES = {"attn1_patch", "attn2_patch", "double_block"}
FOREIGN_INPUTS = ("clip_fea", "time_dim_concat", "reference_latent", "context_latents", "control")


def injected_forward(module, joint: JointModel) -> Callable:
    """A `_forward` for this Wan transformer. `x` [rows, C, T, h, w] with rows = branches * clips * P pictures,
    `timestep` [rows] or [rows, P'], `context` [branches, W, E] or one text a row; returns the velocity of x's shape, 0
    in rows that are given or absent. A text comes and leaves through the `Plan`."""
    family, pictures = joint.family, len(joint.family.pictures)
    own = {stream.name: joint.prompts[stream.name] for stream in family.streams if stream.prompt}
    warned: set[str] = set()

    def forward(x, timestep, context, clip_fea=None, time_dim_concat=None, transformer_options=None, denoise_mask=None,
                **kwargs):
        transformer_options = {} if transformer_options is None else transformer_options
        warn_once(warned, transformer_options, {"clip_fea": clip_fea, "time_dim_concat": time_dim_concat, **kwargs})
        plan = transformer_options.get(KEY) or Plan()
        height, width = x.shape[-2:]
        x = comfy.ldm.common_dit.pad_to_patch_size(x, module.patch_size)
        pt, ph, pw = module.patch_size
        grid = (x.shape[2] // pt, x.shape[3] // ph, x.shape[4] // pw)
        transformer_options["grid_sizes"] = torch.Size(grid)
        latents = x.unflatten(0, (-1, pictures))  # [rows, ...] -> [N, P, ...]
        times = timestep.reshape(len(latents), pictures, -1)
        branches = transformer_options.get("cond_or_uncond", [0])
        context, own_texts = of_one_length(context, own)
        texts = text_rows(len(latents), len(family.streams), len(context), len(branches))
        rope = rope_options(transformer_options.get("rope_options") or {})
        out = torch.zeros_like(latents)
        for roles, clips in by_roles(family, denoise_mask, plan, len(latents)).items():
            adapted = joint.settings.active(family, roles) if joint.bank else (False,) * len(roles)
            layout = make_layout(family, roles, adapted, grid, module.dim // module.num_heads, options=rope,
                                 text_length=plan.text.ids.shape[1] if plan.text else 0, device=x.device)
            text = token_inputs(plan.text, clips, branches, len(latents), x.device)
            every, index = with_own_texts(family, roles, context, [texts[n] for n in clips], own_texts)
            made = joint_forward(
                module, in_rows(family, latents[clips].unbind(1), text.ids if text else None),
                in_rows(family, times[clips].unbind(1), token_times(text, family)), every, layout=layout,
                context_index=index, experts=joint.experts,
                adapters=ActiveAdapters(joint.bank, joint.settings, layout) if joint.bank else None,
                host=ComfyHost(transformer_options, x, len(module.blocks)), wanted=text.wanted if text else None)
            for stream, part in zip(layout.outputs, made):
                if family.streams[stream].tokens is None:
                    out[clips, family.pictures.index(family.layers[stream])] = part
                elif 0 in branches:
                    asked = of_prompt(clips, branches, len(latents))
                    plan.text.logits = part[asked] if text.wanted is None else part
        return out.flatten(0, 1)[..., :height, :width]

    return forward


def in_rows(family: Family, pictures: Sequence[Tensor], text: Tensor | None) -> list[Tensor | None]:
    """A value for every stream, in row order, of those of the pictures and that of the text."""
    pictures = iter(pictures)
    return [text if stream.tokens else next(pictures) for stream in family.streams]


def of_prompt(requests: Sequence[int], branches: Sequence[int], total: int) -> list[bool]:
    """Which of these requests, of `total` branch-major ones, are of the prompt's branch (ComfyUI's 0)."""
    return [branches[n * len(branches) // total] == 0 for n in requests]


def token_inputs(text: TextStep | None, requests: Sequence[int], branches: Sequence[int], total: int,
                 device) -> TextStep | None:
    """The text as these requests have it: ids and wanted [requests, S]. Only the prompt's branch is asked for logits,
    since guidance is for pictures."""
    if text is None:
        return None
    clips = [n % len(text.ids) for n in requests]
    wanted = text.wanted
    if wanted is not None:
        asked = torch.tensor(of_prompt(requests, branches, total), device=wanted.device)
        wanted = (wanted[clips] & asked.view(-1, 1)).to(device)
    return replace(text, ids=text.ids[clips].to(device), wanted=wanted)


def token_times(text: TextStep | None, family: Family) -> Tensor | None:
    """The time of a text [requests, 1], 0..1000 as its family rounds it."""
    if text is None:
        return None
    time = torch.full((len(text.ids), 1), text.time, dtype=torch.float32, device=text.ids.device)
    return rounded_time(time, family.flow)


def by_roles(family: Family, mask: Tensor | None, plan: Plan, requests: int) -> dict[tuple[Role, ...], list[int]]:
    """Requests grouped by their task. A picture with anything to generate is a target; with no mask all are."""
    pictures = len(family.pictures)
    if mask is None:
        generated = [[True] * pictures] * requests
    else:
        generated = (mask > 0).flatten(1).any(dim=1).view(requests, pictures).tolist()
    text = plan.text.role if plan.text else Role.ABSENT
    groups: dict[tuple[Role, ...], list[int]] = {}
    for n, request in enumerate(generated):
        rows = (Role.ABSENT if plan.is_absent(n, row) else Role.TARGET if made else Role.CONDITION
                for row, made in enumerate(request))
        roles = tuple(text if stream.tokens else next(rows) for stream in family.streams)
        groups.setdefault(roles, []).append(n)
    # In a context window every row of a clip may be given: such a request has nothing to compute.
    return {roles: clips for roles, clips in groups.items() if Role.TARGET in roles}


def text_rows(requests: int, streams: int, texts: int, branches: int) -> list[list[int]]:
    """Which text each stream of each request reads: a branch brings one text, or a list that its rows go through."""
    each, rows = texts // branches, requests * streams // branches
    branch_and_row = ([divmod(n * streams + m, rows) for m in range(streams)] for n in range(requests))
    return [[branch * each + row % each for branch, row in request] for request in branch_and_row]


def of_one_length(context: Tensor, own: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The prompts and streams' own texts, [.., W, E], with one W: a text repeats its tokens to fit, which changes no
    attention to it (ComfyUI does the same with prompts of a guidance). Raises ValueError where that would be far."""
    lengths = {context.shape[1], *(text.shape[1] for text in own.values())} if own else {context.shape[1]}
    length = math.lcm(*lengths)
    if length > 4 * max(lengths):
        most = max(text.shape[1] for text in own.values())
        raise ValueError(f"The prompt's embedding has {context.shape[1]} tokens, which does not go with the layers' "
                         f"own texts of {most} tokens: shorten the prompt.")
    return (context.repeat(1, length // context.shape[1], 1),
            {name: text.repeat(1, length // text.shape[1], 1) for name, text in own.items()})


def rope_options(options: dict) -> GridOptions:
    """ComfyUI's rope options in our order."""
    return GridOptions(tuple(options.get(f"scale_{axis}", 1.0) for axis in "tyx"),
                       tuple(options.get(f"shift_{axis}", 0.0) for axis in "tyx"))


def warn_once(warned: set[str], options: dict, inputs: dict) -> None:
    """Name, in one warning, what other nodes ask for and a joint model cannot do."""
    unknown = {f"the '{name}' patch" for name in options.get("patches", {}) if name not in HONOURED_PATCHES}
    if options.get("patches_replace", {}).get("dit"):
        unknown.add("replaced transformer blocks")
    unknown |= {name for name in FOREIGN_INPUTS if inputs.get(name) is not None}
    if new := sorted(unknown - warned):
        logging.warning("Strata: a model with layers cannot use %s; it is left out.", ", ".join(new))
        warned |= unknown

"""Toy models for the maths tests: random weights, small enough for a forward in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from comfyui_strata.joint.adapters import ActiveAdapters, AdapterBank, AdapterSettings
from comfyui_strata.joint.experts import Experts, empty_experts
from comfyui_strata.joint.families import INTRINSIC
from comfyui_strata.joint.flow import stream_times
from comfyui_strata.joint.layout import make_layout
from comfyui_strata.joint.sampling import row_states
from comfyui_strata.joint.streams import Family, Own, Role, StreamSpec, Task, TokenSpec
from comfyui_strata.joint.transformer import Host, joint_forward
from comfyui_strata.joint.wan import WanConfig, WanModel, empty_wan

CONFIG = WanConfig(dim=48, ffn_dim=64, num_layers=2, num_heads=2, in_dim=4, out_dim=4, text_dim=12, freq_dim=16)
GRID = (2, 2, 3)  # tokens: frames, rows, columns
LATENT = (CONFIG.in_dim, 2, 4, 6)
T, C, A = Role.TARGET, Role.CONDITION, Role.ABSENT
VOCABULARY = 11
# No published system: everything that a stream may have, side by side in one request.
MIXED = replace(
    INTRINSIC,
    name="mixed",
    streams=(
        StreamSpec("rgb", "R", "rgb"),
        StreamSpec("albedo", "A", "albedo", own=Own(modulation="albedo")),
        StreamSpec("depth", "D", columns=1, own=Own("layer", "depth", ffn="layer", head="layer")),
        StreamSpec("caption", "C", tokens=TokenSpec(), own=Own("text", "caption", "text", "caption", "text", "text")),
        StreamSpec("flow", "F", "flow", columns=2, own=Own("layer", "flow", "flow", "flow", "layer", "layer")),
    ),
    file_adapters=("rgb", "albedo", "flow"),
    ffn_adapter="flow",
)


def toy_model(seed: int = 0, config: WanConfig = CONFIG) -> WanModel:
    """A backbone with random weights; float64, so that equal maths shows as equal numbers."""
    torch.manual_seed(seed)
    model = empty_wan(config, dtype=torch.float64)
    for parameter in model.parameters():
        parameter.data.normal_(std=1.0 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return model


def toy_bank(family: Family = INTRINSIC, seed: int = 1) -> AdapterBank:
    """Adapters of rank 3 with random weights, none of them zero."""
    torch.manual_seed(seed)
    bank = AdapterBank(family, CONFIG.num_layers, CONFIG.dim, CONFIG.ffn_dim, rank=3, dtype=torch.float64)
    bank.requires_grad_(False)
    for parameter in bank.parameters():
        parameter.data.normal_(std=parameter.shape[-1] ** -0.5)
    return bank


def toy_experts(family: Family, seed: int = 4, config: WanConfig = CONFIG) -> Experts:
    """The own parts of a family's streams with random weights, none of them zero."""
    torch.manual_seed(seed)
    vocabulary = VOCABULARY if family.texts else 0
    experts = empty_experts(family, config, vocabulary, dtype=torch.float64)
    for parameter in experts.parameters():
        parameter.data.normal_(std=1.0 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return experts


def toy_ids(requests: int = 1, length: int = 7, seed: int = 5) -> torch.Tensor:
    """Random token ids [N, S]."""
    return torch.randint(VOCABULARY, (requests, length), generator=torch.Generator().manual_seed(seed))


def toy_latents(requests: int = 1, streams: int = 4, seed: int = 2) -> torch.Tensor:
    """Random latents [N, M, C, F, Y, X]."""
    return torch.randn(requests, streams, *LATENT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def toy_context(texts: int = 1, seed: int = 3, words: int = 5) -> torch.Tensor:
    """Random text embeddings [R, W, E]."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(texts, words, CONFIG.text_dim, generator=draw, dtype=torch.float64)


def forward(model: WanModel, bank: AdapterBank | None, latents: torch.Tensor, roles: tuple[Role, ...], *,
            context: torch.Tensor | None = None, index=None, times: Sequence[torch.Tensor] | torch.Tensor | None = None,
            settings: AdapterSettings | None = None, all_outputs: bool = False, family: Family = INTRINSIC,
            host: Host | None = None, experts: Experts | None = None, ids: torch.Tensor | None = None,
            wanted: torch.Tensor | None = None) -> dict[int, torch.Tensor]:
    """`joint_forward` of toy requests: stream row -> velocity [N, C, F, Y, X] or logits [N, S, V].

    `times` [N, M, P], or a tensor [N, P] for each stream."""
    settings = settings or AdapterSettings.published(family)
    adapted = settings.active(family, roles) if bank else (False,) * len(roles)
    layout = make_layout(family, roles, adapted, GRID, CONFIG.dim // CONFIG.num_heads, all_outputs=all_outputs,
                         text_length=0 if ids is None else ids.shape[1])
    task = Task(family, roles)
    if times is None:
        times = [time.expand(len(latents), -1) for time in stream_times(task, 0.7, 300.0)]
    elif isinstance(times, torch.Tensor):
        times = times.unbind(1)
    out = joint_forward(
        model, row_states(task, latents, ids), times, toy_context() if context is None else context, layout=layout,
        context_index=index or [[0] * len(roles)] * len(latents), experts=experts, wanted=wanted,
        adapters=ActiveAdapters(bank, settings, layout) if bank else None, host=host)
    return dict(zip(layout.outputs, out))


def written(value) -> str:
    """A test's parameter in its id: a family by its name, anything else as it is written."""
    return value.name if isinstance(value, Family) else str(value)

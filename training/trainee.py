"""The network that learns: a backbone with its adapters or its streams' own parts, as one module that `accelerate` can
wrap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..joint.adapters import AdapterSettings
from ..joint.experts import Experts
from ..joint.sampling import Engine
from ..joint.streams import Family
from ..joint.transformer import Host
from ..joint.wan import WanModel
from ..model_loaders.expert_names import published_names
from .lora import TrainableAdapters
from .objective import Draw, Lesson, Levels, training_loss


class CheckpointedHost(Host):
    """Keeps only what goes into a block and computes the block again on the way back."""

    def run_block(self, block: Callable[..., Tensor], *args) -> Tensor:
        if not torch.is_grad_enabled():
            return block(*args)
        return checkpoint(block, *args, use_reentrant=False)


class Trainee(nn.Module):
    """A backbone, what a family adds to it (adapters, or own parts of its streams), and the loss of a step. The
    backbone learns, too, with `all_weights`."""

    def __init__(self, family: Family, backbone: WanModel, added: TrainableAdapters | Experts, levels: Levels, *,
                 all_weights: bool, host: Host):
        super().__init__()
        self.family, self.backbone, self.levels, self.host = family, backbone, levels, host
        self.adapters = added if isinstance(added, TrainableAdapters) else None
        self.experts = added if isinstance(added, Experts) else None
        backbone.requires_grad_(all_weights)
        if self.experts is not None:
            self.experts.requires_grad_(True)
            names = [name for name, _ in self.experts.named_parameters()]
            self._published = published_names(names, family.name) if names else {}

    def engine(self) -> Engine:
        """The joint engine on the weights as they are now."""
        bank = self.adapters.stack() if self.adapters is not None else None
        return Engine(self.backbone, bank, AdapterSettings.published(self.family), self.host, self.experts)

    def forward(self, drawn: Draw, lesson: Lesson) -> Tensor:
        """`training_loss` of a step, which reaches all that is learned."""
        loss = training_loss(self.engine(), drawn, lesson, self.levels)
        if self.adapters is not None and any(
                self.family.stream(layer).adapter for layer in drawn.task.targets):
            return loss  # the adapters are stacked, so that one which acts reaches all
        # alpha's plate has no adapter, and a step with one layer beside rgb knows nothing of the others. Their gradient
        # is then 0, not none: AdamW would not count the step for them, and several processes would wait for gradients
        # that never come.
        idle = self.parameters() if self.experts is not None else self.adapters.values
        return loss + 0 * sum(value.sum() for value in idle if value.requires_grad)

    def learned(self) -> dict[str, nn.Parameter]:
        """What is trained, by name: "adapters/" or "own/" and the published key, "backbone/" and Wan's."""
        named = self._parameters_by_name()
        return {name: value for name, value in named.items() if value.requires_grad}

    def weights(self, learned: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Every tensor of the family's "layers" by its published key and of the "backbone" by Wan's, but those that are
        in `learned`, which names them as the method does, from there."""
        files: dict[str, dict[str, Tensor]] = {"layers": {}, "backbone": {}}
        for name, value in self._parameters_by_name().items():
            part, _, key = name.partition("/")
            files["backbone" if part == "backbone" else "layers"][key] = learned.get(name, value)
        return files

    def _parameters_by_name(self) -> dict[str, nn.Parameter]:
        named = {}
        if self.adapters is not None:
            named |= {f"adapters/{name}": value for name, value in self.adapters.tensors()}
        if self.experts is not None:
            named |= {f"own/{self._published[name]}": value for name, value in self.experts.named_parameters()}
        return named | {f"backbone/{name}": value for name, value in self.backbone.named_parameters()}


class RunningMean:
    """The exponential mean of the learned weights, in float32, beside them on their device."""

    def __init__(self, learned: Mapping[str, nn.Parameter], decay: float):
        self.decay = decay
        self.values = {name: value.detach().clone().float() for name, value in learned.items()}

    @torch.no_grad()
    def update(self, learned: Mapping[str, nn.Parameter], step: int) -> None:
        """Take in the weights after step number `step`, from 1. The first steps count more, or the mean would long
        remember the weights from which it began."""
        decay = min(self.decay, step / (step + 9))
        for name, value in learned.items():
            self.values[name].lerp_(value.float(), 1 - decay)

    @contextmanager
    def in_place(self, learned: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """The mean stands in the weights' place inside the `with`; after it they are back, bit for bit."""
        kept = {name: value.detach().clone() for name, value in learned.items()}
        try:
            for name, value in learned.items():
                value.data.copy_(self.values[name])
            yield
        finally:
            for name, value in learned.items():
                value.data.copy_(kept[name])

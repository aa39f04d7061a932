"""The network that learns: a backbone with its adapters, as one module that `accelerate` can wrap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..joint.adapters import AdapterSettings
from ..joint.sampling import Engine
from ..joint.streams import Family
from ..joint.transformer import Host
from ..joint.wan import WanModel
from .lora import TrainableAdapters
from .objective import Draw, Levels, training_loss


class CheckpointedHost(Host):
    """Keeps only what goes into a block and computes the block again on the way back."""

    def run_block(self, block: Callable[..., Tensor], *args) -> Tensor:
        if not torch.is_grad_enabled():
            return block(*args)
        return checkpoint(block, *args, use_reentrant=False)


class Trainee(nn.Module):
    """A backbone, its adapters and the loss of a step. The backbone learns, too, with `all_weights`."""

    def __init__(self, backbone: WanModel, adapters: TrainableAdapters, levels: Levels, *, all_weights: bool,
                 host: Host):
        super().__init__()
        self.backbone, self.adapters, self.levels, self.host = backbone, adapters, levels, host
        backbone.requires_grad_(all_weights)

    @property
    def family(self) -> Family:
        """What the adapters are for."""
        return self.adapters.family

    def engine(self) -> Engine:
        """The joint engine on the weights as they are now."""
        return Engine(self.backbone, self.adapters.stack(), AdapterSettings.published(self.family), self.host)

    def forward(self, drawn: Draw, clean: Tensor, noise: Tensor, context: Tensor) -> Tensor:
        """`training_loss` of a step, which reaches all that is learned."""
        loss = training_loss(self.engine(), drawn, clean, noise, context, self.levels)
        if any(self.family.streams[self.family.index(layer)].adapter for layer in drawn.task.targets):
            return loss  # the adapters are stacked, so that one which acts reaches all
        # alpha's plate has no adapter. The others' gradient is then 0, not none: AdamW would not count the step for
        # them, and several processes would wait for gradients that never come.
        return loss + 0 * sum(value.sum() for value in self.adapters.values if value.requires_grad)

    def learned(self) -> dict[str, nn.Parameter]:
        """What is trained, by name: "adapters/" and the published key, "backbone/" and Wan's."""
        named = {f"adapters/{name}": value for name, value in self.adapters.tensors()}
        named |= {f"backbone/{name}": value for name, value in self.backbone.named_parameters()}
        return {name: value for name, value in named.items() if value.requires_grad}

    def weights(self, learned: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Every tensor of the "adapters" by its published key and of the "backbone" by Wan's, but those that are in
        `learned`, which names them as the method does, from there."""
        tensors = {"adapters": dict(self.adapters.tensors()), "backbone": self.backbone.state_dict()}
        return {part: {name: learned.get(f"{part}/{name}", value) for name, value in named.items()}
                for part, named in tensors.items()}


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

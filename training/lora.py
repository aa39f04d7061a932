"""Gated LoRA to be trained: made and named by peft, as the published training makes them, read by the joint engine.

peft's modules hold the parameters under the published keys; the engine sees them stacked (`stack`), so that one batched
product serves all streams in training as in use, and gradients flow back into peft's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..joint.streams import Family
from ..joint.wan import WanConfig, WanModel
from ..model_loaders.adapter_names import ATTENTION, FEED_FORWARD, is_dead, parse_key
from ..model_loaders.adapter_stack import AdapterStack, stack_adapters


class TrainableAdapters(nn.Module):
    """The adapters of a family in float32, A random (Kaiming) and B zero: at first they change nothing.

    Those that the published model never uses are there, since its files hold them, but stay as they are.
    Raises ImportError without peft.
    """

    def __init__(self, family: Family, config: WanConfig, rank: int, seed: int):
        super().__init__()
        try:
            from peft import LoraConfig, inject_adapter_in_model
            from peft.tuners.lora import LoraLayer
        except ImportError as error:
            raise ImportError("Training needs peft: pip install 'comfyui-strata[train]'.") from error
        self.family = family
        with torch.device("meta"):  # the backbone's own weights stay with their host; here only its names are needed
            tree = WanModel(config)
        # A scale of alpha / rank = 1, as published: the files carry no scale, so the product must be the whole of it.
        lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=[*ATTENTION, *FEED_FORWARD])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are the point
            for adapter in family.file_adapters:
                inject_adapter_in_model(lora, tree, adapter_name=adapter, low_cpu_mem_usage=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer in tree.modules():
                if isinstance(layer, LoraLayer):
                    for adapter in family.file_adapters:
                        for part in (layer.lora_A[adapter], layer.lora_B[adapter]):
                            part.to_empty(device="cpu")
                        layer.reset_lora_parameters(adapter, True)
        # Only peft's parameters are kept, in a list that `parameters()` finds; the tree was there to name them.
        named = {name: value for name, value in tree.named_parameters() if parse_key(name)}
        self.names = tuple(named)
        self.values = nn.ParameterList(value.requires_grad_(not is_dead(parse_key(name), family))
                                       for name, value in named.items())

    def tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every adapter tensor under its published key."""
        return zip(self.names, self.values)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over values under the published keys, with or without a prefix. Raises ValueError when a tensor is
        missing or of another shape."""
        given = {str(key): value for name, value in tensors.items() if (key := parse_key(name))}
        for name, value in self.tensors():
            if name not in given or given[name].shape != value.shape:
                has = f"of shape {tuple(given[name].shape)}" if name in given else "missing"
                raise ValueError(f"The adapters to start from do not fit: {name} is {has}, and {tuple(value.shape)} is "
                                 "needed; give the same backbone, family, variant and rank.")
            value.data.copy_(given[name])

    def stack(self) -> AdapterStack:
        """The adapters as the engine reads them, made from the parameters as they are now: part of one step's graph."""
        keyed = {parse_key(name): value for name, value in self.tensors()}
        return stack_adapters(keyed.__getitem__, self.family, blocks=1 + max(key.block for key in keyed))

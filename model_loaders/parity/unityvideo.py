"""Replay UnityVideo fixtures: a folder with a `meta.json`, of any size, that holds single forwards and a Euler loop."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...joint.adapters import AdapterSettings
from ...joint.experts import empty_experts
from ...joint.families import UNITY
from ...joint.sampling import Engine, Texts, predict, sample
from ...joint.streams import Family
from ...joint.transformer import Host
from ...joint.wan import empty_wan
from ..detect import wan_config
from ..expert_names import split_names
from ..safetensors_file import load_tensors
from .result import FORWARD_LIMITS, Result, relative_error

_LAYERS = {"raft": "flow", "None": "depth"}  # its names where they are not ours; without a modality any layer will do
_FORWARD = re.compile(r"^(\w+)\.t([\d.]+)\.v_rgb$")
_LOOP = re.compile(r"^loop\.video2flow\.(\w+)\.(\d+)steps\.aux$")


def replay_unityvideo(folder: Path, device: str) -> Iterator[Result]:
    """Every forward, of every modality and of none, and every loop of a folder."""
    fixture = UnityVideoFixture(folder, device)
    yield from fixture.forwards()
    yield from fixture.loops()


class UnityVideoFixture:
    """A folder's weights and tensors."""

    def __init__(self, folder: Path, device: str):
        about = json.loads((folder / "meta.json").read_text())
        self.weights = load_tensors(folder / "tiny_weights.safetensors", device=device)
        self.io = load_tensors(folder / "tiny_io.safetensors", device=device)
        names, parts = split_names(self.weights, "unity")
        shapes = {name: tuple(self.weights[key].shape) for key, name in names.items()}
        config = wan_config(shapes, about["num_heads"])
        model = empty_wan(config, device)
        model.load_state_dict({name: self.weights[key] for key, name in names.items()})
        experts = empty_experts(UNITY, config, device=device)
        experts.load_state_dict({name: self.weights[key] for key, name in parts.items()})
        self.engine = Engine(model, None, AdapterSettings.published(UNITY), Host(), experts)

    def forwards(self) -> Iterator[Result]:
        """Both velocities of each case."""
        for key in self.io:
            if match := _FORWARD.match(key):
                layer = _LAYERS.get(match[1], match[1])
                task = _family(match[1]).task(("rgb", layer), ())
                with torch.inference_mode():
                    out, _ = predict(self.engine, task, self._pair(task.family, layer), float(match[2]) / 1000,
                                     self._texts(layer))
                for row, name in enumerate(("rgb", layer)):
                    case = key.replace("v_rgb", ("v_rgb", "v_aux")[row])
                    error = relative_error(out[:, task.family.index(name)], self.io[case])
                    yield Result("unity", case, "fp32", error, FORWARD_LIMITS["fp32"])

    def loops(self) -> Iterator[Result]:
        """The layer that a loop estimates from rgb, from the noise that stands at its place."""
        for key, reference in self.io.items():
            if match := _LOOP.match(key):
                layer = _LAYERS.get(match[1], match[1])
                family = _family(match[1])
                both = self._pair(family, layer)
                out = sample(self.engine, family.task((layer,), ("rgb",)), both, both, self._texts(layer),
                             steps=int(match[2]))
                error = relative_error(out[:, family.index(layer)], reference)
                yield Result("unity", key, "fp32", error, FORWARD_LIMITS["fp32"])

    def _pair(self, family: Family, layer: str) -> Tensor:
        x = self.io["in.rgb"].new_zeros(1, len(family.streams), *self.io["in.rgb"].shape[1:])
        x[:, 0], x[:, family.index(layer)] = self.io["in.rgb"], self.io["in.aux"]
        return x

    def _texts(self, layer: str) -> Texts:
        return Texts(self.io["in.ctx_rgb"], {layer: self.io["in.ctx_aux"]})


def _family(modality: str) -> Family:
    """The published one; the reference leaves the identity out where it is given no modality."""
    if modality != "None":
        return UNITY
    return replace(UNITY, streams=tuple(replace(s, own=replace(s.own, identity=None)) for s in UNITY.streams))

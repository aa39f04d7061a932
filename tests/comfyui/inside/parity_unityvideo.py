"""UnityVideo's numbers through ComfyUI's own WanModel, model patcher and KSampler."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import comfy.ops
import torch
from safetensors.torch import load_file

from ....comfy_host.attach import attach_layers
from ....joint.experts import Experts
from ....joint.families import UNITY
from ....joint.streams import Family, LatentSpec
from ....joint.wan import WanConfig
from ....model_loaders.expert_names import split_names
from ....model_loaders.layer_files import LoadedLayers
from . import tiny

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "unityvideo"
FORWARD_LIMIT, SAMPLE_LIMIT = 1e-5, 1e-4
LAYERS = {"raft": "flow", "None": "depth"}  # its names where they are not ours
SIZES = ("dim", "ffn_dim", "num_heads", "num_layers", "text_dim", "freq_dim", "in_dim", "out_dim")


class Fixture:
    """The tiny checkpoint in ComfyUI's classes, and its tensors."""

    def __init__(self):
        about = json.loads((FIXTURE / "meta.json").read_text())
        weights = load_file(FIXTURE / "tiny_weights.safetensors")
        self.io = load_file(FIXTURE / "tiny_io.safetensors")
        names, parts = split_names(weights, "unity")
        self.sizes = {name: about[name] for name in SIZES}
        self.state = {name: weights[key] for key, name in names.items()}
        self.parts = {name: weights[key] for key, name in parts.items()}

    def model(self, modality: str):
        """The MODEL for one of its modalities, and the family: of as few channels as the fixture has, whose latents no
        table normalises; without a modality the reference leaves the identity out."""
        family = replace(UNITY, latents=LatentSpec(self.sizes["in_dim"], cell=16, normalised=False))
        if modality == "None":
            family = replace(family, streams=tuple(
                replace(s, own=replace(s.own, identity=None)) for s in family.streams))
        experts = Experts(family, WanConfig(**self.sizes), ops=comfy.ops.manual_cast).requires_grad_(False)
        experts.load_state_dict({name: value for name, value in self.parts.items() if name in experts.state_dict()})
        base = tiny.wan_model(state=self.state, family=family, **self.sizes)
        own = {stream.name: self.io["in.ctx_aux"] for stream in family.streams if stream.prompt}
        return attach_layers(base, LoadedLayers(family, None, experts, None, None, ()), family, own), family

    def rows(self, family: Family, layer: str) -> torch.Tensor:
        """Both latents of the fixture in a LATENT's rows, [6, C, T, h, w]."""
        rows = torch.zeros(len(family.streams), *self.io["in.rgb"].shape[1:])
        rows[0], rows[family.index(layer)] = self.io["in.rgb"][0], self.io["in.aux"][0]
        return rows


def check_forwards():
    """Every forward, of every modality and of none: both velocities, to 1e-5."""
    fixture, worst, cases = Fixture(), 0.0, 0
    for key in fixture.io:
        if match := re.match(r"^(\w+)\.t([\d.]+)\.v_rgb$", key):
            model, family = fixture.model(match[1])
            layer = LAYERS.get(match[1], match[1])
            x = fixture.rows(family, layer)
            mask = tiny.row_mask(family.task(("rgb", layer), ()), x.shape[2:])
            out = tiny.network(model, x, torch.tensor(float(match[2]) / 1000), fixture.io["in.ctx_rgb"], mask)["out"]
            for row, name in ((0, "v_rgb"), (family.index(layer), "v_aux")):
                reference = fixture.io[key.replace("v_rgb", name)][0]
                tiny.within(f"{key} {name}", out[row], reference, FORWARD_LIMIT)
                worst = max(worst, tiny.relative_error(out[row], reference))
            assert not out[mask[:, 0, 0, 0, 0] < 0].any(), "an absent row has a velocity"
            cases += 1
    assert cases > 5, cases
    return f"{cases} forwards, worst {worst:.1e} (limit {FORWARD_LIMIT:g})"


def check_loops():
    """The stock KSampler (euler, simple, the shift that attach_layers sets) replays every loop, to 1e-4."""
    fixture, said = Fixture(), []
    for key, reference in fixture.io.items():
        if match := re.match(r"^loop\.video2flow\.(\w+)\.(\d+)steps\.aux$", key):
            model, family = fixture.model(match[1])
            layer = LAYERS.get(match[1], match[1])
            rows = fixture.rows(family, layer)
            mask = tiny.row_mask(family.task((layer,), ("rgb",)), rows.shape[2:])
            latent = {"samples": rows * (mask == 0), "noise_mask": mask}
            out = tiny.sample_noise(model, latent, rows, [[fixture.io["in.ctx_rgb"], {}]], steps=int(match[2]))
            said.append(tiny.within(key, out[family.index(layer)], reference[0], SAMPLE_LIMIT))
            tiny.keeps_given(key, out, latent)
    assert said, "the fixture holds no loop"
    return "; ".join(said)

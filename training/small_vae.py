"""A small Wan 2.1 VAE from nothing, in the published layout, for small models of one's own.

    python -m comfyui_strata.training.small_vae --out vae.safetensors --shots FOLDER

Single frames first: the codec of a picture is most of the work, and a frame costs a twentieth of a clip. Then clips, in
which the encoder's path for a first frame is held fixed, so that latents of stills stay what they were, and what looks
back in time is learned. The latents are at last scaled to the statistics that Wan's own have.
"""

from __future__ import annotations

import argparse
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..model_loaders.safetensors_file import load_tensors, replace_tensors
from ..model_loaders.vae import LATENT_CHANNELS, original_names
from .batches import seed_of
from .shot_folder import ShotFolder
from .shots import FIRST_TRAINING_SEED
from .vae_network import reconstruct

_SAVE_EVERY = 250  # steps
# Drawings are black but for a few pixels, on which all depends.
_COUNTS = {"skeleton": 3.0, "densepose": 3.0, "segmentation": 1.5}


@dataclass(frozen=True)
class Recipe:
    """What decides the result; the defaults made the bundled one.

    width: channels of the first layer, 96 in Wan's. stills, clips: how many shots of each, of the same first seeds, of
    `size` x `size` pixels, the clips of so many `frames`.
    steps and rates: of the two stages, the rates falling from their first value by a cosine. The posterior is a
    Gaussian of the fixed width `spread` about its mean: noise that the decoder must bear, which is what keeps the
    latents from shrinking to nothing; `pull` draws them towards 0 against it. edges: what differences of neighbouring
    pixels count beside the pixels themselves.
    """

    width: int = 16
    stills: int = 12000
    clips: int = 1090
    still_steps: int = 16000
    clip_steps: int = 3500
    still_batch: int = 16
    clip_batch: int = 4
    still_rate: float = 2e-3
    clip_rate: float = 6e-4
    warmup: tuple[int, int] = (300, 50)
    spread: float = 0.15
    pull: float = 1e-4
    edges: float = 0.5
    framing: str = "close"
    frames: int = 9
    size: int = 64
    seed: int = 0

    def folder(self, path: Path, frames: int) -> ShotFolder:
        """The renderings of so many frames that lie in `path`."""
        return ShotFolder(path, frames, self.size, self.size, self.framing)


class Pictures:
    """The layers of the first `shots` of a folder, held in memory once they were read."""

    def __init__(self, folder: ShotFolder, shots: int):
        self.folder, self.shots = folder, shots
        self._known: dict[int, list[tuple[str, Tensor]]] = {}

    def batch(self, count: int, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
        """[count, 3, F, H, W] in -1..1, mirrored at random, for the codec need not know left from right; and what each
        counts, [count]. Raises OSError when the disk refuses."""
        clips, counts = [], []
        for _ in range(count):
            layers = self._shot(int(draw.integers(self.shots)))
            name, clip = layers[draw.integers(len(layers))]
            clips.append(clip)
            counts.append(_COUNTS.get(name, 1.0))
        x = torch.stack(clips).float().permute(0, 4, 1, 2, 3) / 127.5 - 1
        mirrored = [axis for axis, share in ((-1, 0.5), (-2, 0.3)) if draw.random() < share]
        return x.flip(mirrored) if mirrored else x, torch.tensor(counts)

    def _shot(self, i: int) -> list[tuple[str, Tensor]]:
        if i not in self._known:
            self._known[i] = list(self.folder.shot(FIRST_TRAINING_SEED + i)[0].items())
        return self._known[i]


def make_vae(width: int, seed: int) -> nn.Module:
    """diffusers' AutoencoderKLWan, so that at first every frame passes as a still: kernels see only the present, the
    two that halve time take a mean of it, and those that double it repeat."""
    from diffusers import AutoencoderKLWan

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(base_dim=width)
        for name, conv in _in_time(vae):
            if not name.endswith("time_conv"):
                conv.weight[:, :, -1] *= math.sqrt(3)  # alone, it must keep the scale that three had
                conv.weight[:, :, :-1] = 0
                continue
            conv.weight.zero_()
            conv.bias.zero_()
            same = torch.eye(conv.in_channels)
            if conv.out_channels == conv.in_channels:
                conv.weight[:, :, :, 0, 0] = same[:, :, None] / 3
            else:  # both of the two frames that it makes
                conv.weight[:, :, -1, 0, 0] = same.repeat(2, 1)
    return vae


def hold_stills(vae: nn.Module) -> None:
    """Let only that part of the encoder learn that a first frame never passes through."""
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    for name, conv in _in_time(vae.encoder):
        conv.weight.requires_grad_(True)
        if name.endswith("time_conv"):
            conv.bias.requires_grad_(True)
        else:
            past = torch.ones_like(conv.weight)
            past[:, :, -1] = 0
            conv.weight.register_hook(lambda gradient, past=past: gradient * past)


def loss(vae: nn.Module, x: Tensor, counts: Tensor, recipe: Recipe, noise: Tensor, network=reconstruct) -> Tensor:
    """Mean distance of pixels and of their edges, each clip as much as it counts, and the pull on the latents; x [N, 3,
    F, H, W] in -1..1, counts [N], noise of the latents' shape. network: `vae_network.reconstruct`, or that compiled."""
    y, mean = network(vae, x, recipe.spread * noise)
    y, mean, counts = y.float(), mean.float(), counts.view(-1, 1, 1, 1, 1)
    edges = sum(((y.diff(dim=axis) - x.diff(dim=axis)).abs() * counts).mean() for axis in (-1, -2))
    return ((y - x).abs() * counts).mean() + recipe.edges * edges + recipe.pull * mean.square().mean()


def latent_shape(x: Tensor) -> tuple[int, ...]:
    """Of the latents of x [N, 3, F, H, W]."""
    count, _, frames, height, width = x.shape
    return count, LATENT_CHANNELS, (frames - 1) // 4 + 1, height // 8, width // 8


@torch.no_grad()
def normalise(vae: nn.Module, stills: Tensor) -> None:
    """Scale the latents, in the two 1x1x1 convolutions, so that those of `stills` [N, 3, 1, H, W] have the mean and
    deviation of Wan's own in every channel: what normalises those makes N(0, 1) of these."""
    z = vae.encode(stills).latent_dist.mean.transpose(0, 1).flatten(1).double()
    wanted_mean, wanted_std = (torch.tensor(values).double()
                               for values in (vae.config.latents_mean, vae.config.latents_std))
    scale = wanted_std / z.std(dim=1)
    shift = wanted_mean - z.mean(dim=1) * scale
    out, back = vae.quant_conv, vae.post_quant_conv
    weight, bias = out.weight.double(), out.bias.double()
    weight[:LATENT_CHANNELS] *= scale.view(-1, 1, 1, 1, 1)
    bias[:LATENT_CHANNELS] = bias[:LATENT_CHANNELS] * scale + shift
    out.weight.copy_(weight)
    out.bias.copy_(bias)
    weight = back.weight.double() / scale.view(1, -1, 1, 1, 1)
    back.bias.copy_(back.bias.double() - weight.flatten(1) @ shift)  # [16, 16] @ [16]
    back.weight.copy_(weight)


def train_vae(recipe: Recipe, out: Path, shots: Path, *, compiled: bool = False) -> Path:
    """Make the VAE and write it to `out`, in Wan's own names, float16. A run that was cut off goes on from its last
    checkpoint, beside `out`. shots: the folder of the renderings. compiled: about twice as fast, after minutes; needs a
    C++ compiler. Raises OSError when the disk refuses."""
    state_path = out.with_suffix(".training.safetensors")
    state = load_tensors(state_path) if state_path.is_file() else {}
    vae = make_vae(recipe.width, recipe.seed)
    stills = Pictures(recipe.folder(shots, 1), recipe.stills)
    clips = Pictures(recipe.folder(shots, recipe.frames), recipe.clips)
    start = int(state.pop("step", torch.tensor(0)))
    total = recipe.still_steps + recipe.clip_steps
    optimiser, network = None, reconstruct
    if state:
        vae.load_state_dict({key[7:]: value for key, value in state.items() if key.startswith("weight/")})
    for step in tqdm(range(start, total), initial=start, total=total, desc="VAE", unit="step", disable=None):
        moving = step >= recipe.still_steps
        if optimiser is None or step == recipe.still_steps:
            if moving:
                hold_stills(vae)
            optimiser = _optimiser(vae, state, step - moving * recipe.still_steps)
            network = torch.compile(reconstruct, dynamic=False) if compiled else reconstruct
        draw = np.random.default_rng(seed_of(recipe.seed, "vae", step))
        x, counts = clips.batch(recipe.clip_batch, draw) if moving else stills.batch(recipe.still_batch, draw)
        for group in optimiser.param_groups:
            group["lr"] = _rate(recipe, step)
        noise = torch.randn(latent_shape(x), generator=torch.Generator().manual_seed(seed_of(recipe.seed, "z", step)))
        vae.zero_grad(set_to_none=True)  # all of it: what the second stage freezes has gradients of the first
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(vae, x, counts, recipe, noise, network)
        value.backward()
        nn.utils.clip_grad_norm_([p for p in vae.parameters() if p.grad is not None], 1.0)
        optimiser.step()
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == total:
            tqdm.write(f"step {step + 1}: loss {float(value.detach()):.4f}")
            replace_tensors(state_path, _state(vae, optimiser, step + 1))
    normalise(vae, stills.batch(512, np.random.default_rng(seed_of(recipe.seed, "statistics")))[0])
    names = original_names()
    replace_tensors(out, {names[name]: value.half() for name, value in vae.state_dict().items()})
    return out


def _in_time(module: nn.Module):
    """The convolutions that see several frames, by name."""
    return [(name, conv) for name, conv in module.named_modules()
            if isinstance(conv, nn.Conv3d) and conv.kernel_size[0] == 3]


def _rate(recipe: Recipe, step: int) -> float:
    clips = step >= recipe.still_steps
    number = step - clips * recipe.still_steps
    total = recipe.clip_steps if clips else recipe.still_steps
    top = recipe.clip_rate if clips else recipe.still_rate
    fall = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * number / total))
    return top * min(1, (number + 1) / recipe.warmup[clips]) * fall


def _optimiser(vae: nn.Module, state: dict[str, Tensor], steps: int) -> torch.optim.AdamW:
    """AdamW after `steps` steps of its stage, its moments from a checkpoint."""
    optimiser = torch.optim.AdamW([p for p in vae.parameters() if p.requires_grad], betas=(0.9, 0.98), weight_decay=0)
    for name, value in vae.named_parameters():
        if steps and f"first/{name}" in state:
            optimiser.state[value] = {"step": torch.tensor(float(steps)), "exp_avg": state[f"first/{name}"],
                                      "exp_avg_sq": state[f"second/{name}"]}
    return optimiser


def _state(vae: nn.Module, optimiser: torch.optim.AdamW, step: int) -> dict[str, Tensor]:
    state = {f"weight/{name}": value for name, value in vae.state_dict().items()}
    for name, value in vae.named_parameters():
        if value in optimiser.state:
            state[f"first/{name}"] = optimiser.state[value]["exp_avg"]
            state[f"second/{name}"] = optimiser.state[value]["exp_avg_sq"]
    return state | {"step": torch.tensor(step)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", required=True, type=Path, help="the file to write")
    parser.add_argument("--shots", required=True, type=Path, help="a folder for the rendered shots, 5 GB")
    args = parser.parse_args()
    print(train_vae(Recipe(), args.out, args.shots, compiled=shutil.which("c++") is not None))


if __name__ == "__main__":
    main()

"""The VAEs of Wan 2.1 and 2.2 outside ComfyUI: pictures to latents and back, through diffusers' AutoencoderKLWan.

F picture frames of H x W pixels, T = (F-1)/4 + 1 latent frames of h x w = H/cell x W/cell cells of C channels. Wan 2.1:
C 16, cell 8. Wan 2.2, of TI2V-5B alone (the 14B models have 2.1's): C 48, cell 16, four of them from joining 2x2 pixels
before the first layer. Inside ComfyUI its own VAE nodes do this.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .safetensors_file import check_finite, load_tensors, read_header

LATENT_CHANNELS = 16  # Wan 2.1's

# One key of the encoder and one of the decoder that both VAEs have, in each of the two namings; then one that only Wan
# 2.2's has, whose every stage has a shortcut and so is a module of its own.
_ORIGINAL_KEYS = ("encoder.conv1.weight", "decoder.middle.0.residual.0.gamma")
_DIFFUSERS_KEYS = ("encoder.conv_in.weight", "decoder.mid_block.resnets.0.norm1.gamma")
_STAGED_KEYS = {"encoder.downsamples.0.downsamples.0.residual.0.gamma", "encoder.down_blocks.0.resnets.0.norm1.gamma"}


@dataclass(frozen=True)
class _Kind:
    """One of the two VAEs. `config` is what diffusers' defaults, which are Wan 2.1's, do not say of it."""

    version: str
    channels: int
    file: str
    config: dict = field(default_factory=dict)

    def __str__(self):
        return f"the Wan {self.version} VAE, {self.file}"


_KINDS = (
    _Kind("2.1", LATENT_CHANNELS, "wan_2.1_vae.safetensors"),
    # vae/config.json of Wan-AI/Wan2.2-TI2V-5B-Diffusers
    _Kind("2.2", 48, "wan2.2_vae.safetensors", {
        "z_dim": 48, "is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2,
        "scale_factor_spatial": 16,
        "latents_mean": [
            -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
            0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
            -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
            -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
        ],
        "latents_std": [
            0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
            0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
            0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
            0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
        ],
    }),
)  # fmt: skip
VAE_CHANNELS = {kind.version: kind.channels for kind in _KINDS}


def looks_like_vae(keys: Iterable[str]) -> str | None:
    """Which Wan VAE's tensor names these are, in the original or in diffusers' naming: "2.1", "2.2" or None."""
    keys = set(keys)
    if not (keys.issuperset(_ORIGINAL_KEYS) or keys.issuperset(_DIFFUSERS_KEYS)):
        return None
    return "2.1" if keys.isdisjoint(_STAGED_KEYS) else "2.2"


class WanVae:
    """The VAE on one device, in one dtype. Latents outside of it are float32.

    They are normalised as Wan's transformers want them, each channel to a mean of 0 and a deviation of 1, or, with
    `normalised=False`, as the VAE makes them, which is what Uni-ViGU works on (specs/univigu.md §9).
    """

    def __init__(self, model, device: torch.device | str, dtype: torch.dtype):
        self.model = model
        self.device = torch.device(device)
        self.dtype = dtype
        # [C] -> [C, 1, 1, 1]; Wan 2.1's numbers (specs/unividx.md §6) are the defaults of diffusers' config
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(-1, 1, 1, 1)
            for values in (model.config.latents_mean, model.config.latents_std)
        )

    @property
    def channels(self) -> int:
        """C, of the latents: 16 of Wan 2.1, 48 of Wan 2.2."""
        return self.model.config.z_dim

    @property
    def cell(self) -> int:
        """Height and width in pixels of a latent cell: 8 of Wan 2.1, 16 of Wan 2.2."""
        return self.model.config.scale_factor_spatial

    @torch.no_grad()
    def encode(self, images: torch.Tensor, *, normalised: bool = True) -> torch.Tensor:
        """Pictures [F, H, W, 3], 0..1 and display-referred, to latents [C, T, h, w]: (mu - mean) / std, or mu.

        mu is the posterior's mean, so nothing is random. Latents are float32 and on the VAE's device. F must be 4n+1, H
        and W multiples of two cells (of which the transformer's patches are made). Raises ValueError.
        Source: specs/unividx.md §6.
        """
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"The VAE was given pictures of shape {list(images.shape)} and needs [F, H, W, 3].")
        frames, height, width, _ = images.shape
        step = 2 * self.cell
        if frames % 4 != 1:
            raise ValueError(f"The VAE was given {frames} frames and needs 4n+1 (1, 5, 21): trim or repeat the last.")
        if not height or not width or height % step or width % step:
            raise ValueError(
                f"The VAE was given {width}x{height} pictures and needs multiples of {step}: resize or crop."
            )
        x = images.to(self.device, self.dtype) * 2 - 1
        x = x.permute(3, 0, 1, 2)[None]  # [F, H, W, 3] -> [1, 3, F, H, W]
        self.model.use_tiling = False  # as the reference, which tiles the decoder only
        mu = self.model.encode(x).latent_dist.mode()[0]
        return self.scaled(mu, normalised)

    def scaled(self, mu: torch.Tensor, normalised: bool) -> torch.Tensor:
        """Means of the posterior [..., C, T, h, w] as the transformers want them, float32: see the class."""
        return (mu.float() - self._mean) / self._std if normalised else mu.float()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, *, normalised: bool = True, tiled: bool = False) -> torch.Tensor:
        """Latents [C, T, h, w], normalised or as the VAE makes them, to pictures [F, H, W, 3].

        Pictures are float32, clamped to 0..1, on the VAE's device. `tiled` decodes overlapping tiles of 30 x 52
        latents, the reference's size, in a fraction of the memory, and blends them diffusers' way, a little unlike the
        reference. Raises ValueError for another shape.
        """
        if latents.ndim != 4 or latents.shape[0] != self.channels or 0 in latents.shape:
            raise ValueError(
                f"The VAE was given latents of shape {list(latents.shape)} and needs [{self.channels}, T, h, w]."
            )
        self.model.use_tiling = tiled
        z = latents.to(self.device).float()
        if normalised:
            z = z * self._std + self._mean
        x = self.model.decode(z[None].to(self.dtype)).sample[0]  # [3, F, H, W], -1..1
        return (x.float() * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)  # [3, F, H, W] -> [F, H, W, 3]


def load_vae(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    channels: int | None = None,
) -> WanVae:
    """Read a Wan VAE of any base width, 2.1 (such as ComfyUI's `wan_2.1_vae.safetensors`) or 2.2, in either naming.

    channels: of the latents that are needed; None takes either VAE.

    Raises ImportError without diffusers, FileNotFoundError, and ValueError for a file that is truncated, not a Wan VAE,
    of other channels, incomplete, or holding NaN or inf.
    """
    try:
        from diffusers import AutoencoderKLWan
        from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
    except ImportError as error:
        sentence = "The VAE needs diffusers outside ComfyUI: pip install 'comfyui-strata[standalone]'."
        raise ImportError(sentence) from error

    path = Path(path)
    wanted = [kind for kind in _KINDS if channels in (None, kind.channels)]
    give = f"give {' or '.join(map(str, wanted or _KINDS))}"
    version = looks_like_vae(read_header(path).shapes)
    if version is None:
        raise ValueError(f"{path.name} is not a Wan VAE: {give}.")
    kind = next(kind for kind in _KINDS if kind.version == version)
    if kind not in wanted:
        raise ValueError(f"{path.name} is a Wan {version} VAE, of {kind.channels} latent channels, and {channels} are "
                         f"needed: {give}.")  # fmt: skip

    state = load_tensors(path)
    if _ORIGINAL_KEYS[0] in state:
        state = convert_wan_vae_to_diffusers({_stage_name(name): tensor for name, tensor in state.items()})
    with torch.device("meta"):  # no memory and no random initialisation for weights that are about to be replaced
        model = AutoencoderKLWan(
            base_dim=state["encoder.conv_in.weight"].shape[0],
            decoder_base_dim=state["decoder.mid_block.resnets.0.norm1.gamma"].shape[0] // 4,  # it starts at 4x its base
            **kind.config,
        )
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    _check_shapes(path, state, shapes, kind)
    check_finite(path.name, state)
    model.load_state_dict({name: state[name].to(device, dtype) for name in shapes}, assign=True)
    vae = WanVae(model.eval().requires_grad_(False), device, dtype)
    # In pixels: tiles of 30 x 52 latents with a stride of 15 x 26; `decode` says when.
    model.enable_tiling(30 * vae.cell, 52 * vae.cell, 15 * vae.cell, 26 * vae.cell)
    return vae


def original_names() -> dict[str, str]:
    """From diffusers' name of every tensor of a Wan 2.1 VAE to Wan's own, which ComfyUI reads."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    # The names of the bundled file stand for every VAE's: only sizes differ.
    names = read_header(Path(__file__).parent / "tiny" / "vae" / "strata_tiny_vae.safetensors").shapes
    return convert_wan_vae_to_diffusers({name: name for name in names})


# A part of a stage of Wan 2.2's VAE by its number: residual blocks, two down and three up, then what resamples.
_STAGE = re.compile(r"(encoder\.down|decoder\.up)samples\.(\d)\.(?:down|up)samples\.(\d)\.(.+)")
_RESIDUAL = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2",
             "shortcut": "conv_shortcut"}  # fmt: skip


def _stage_name(name: str) -> str:
    """Diffusers' name of a tensor in a stage of Wan 2.2's VAE, from Wan's own; other names as they are, for diffusers
    itself converts those of Wan 2.1's, and those that both VAEs have."""
    match = _STAGE.fullmatch(name)
    if not match:
        return name
    side, stage, part, rest = match.groups()
    module, _, parameter = rest.rpartition(".")
    if module in _RESIDUAL:
        return f"{side}_blocks.{stage}.resnets.{part}.{_RESIDUAL[module]}.{parameter}"
    return f"{side}_blocks.{stage}.{side.partition('.')[2]}sampler.{rest}"


def _check_shapes(path: Path, state: dict[str, torch.Tensor], shapes: dict[str, torch.Size], kind: _Kind) -> None:
    """Raise one sentence about the first tensor that is missing or of another shape; further tensors do no harm."""
    missing = sorted(shapes.keys() - state.keys())
    if missing:
        raise ValueError(f"{path.name} lacks {len(missing)} tensors, first {missing[0]}: download it again.")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(
                f"{path.name} has {name} of shape {list(state[name].shape)}, not {list(shape)}: give {kind}."
            )

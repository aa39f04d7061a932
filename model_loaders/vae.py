"""The Wan 2.1 VAE outside ComfyUI: pictures to normalised latents and back, through diffusers' AutoencoderKLWan.

F picture frames of H x W pixels, T = (F-1)/4 + 1 latent frames of h x w = H/8 x W/8. Inside ComfyUI its own VAE nodes
do this.
"""

from collections.abc import Iterable
from pathlib import Path

import torch

from .safetensors_file import check_finite, load_tensors, read_header

LATENT_CHANNELS = 16

# One key of the encoder and one of the decoder, in each of the two namings. Wan 2.2's VAE has them too: it is a VAE,
# and `load_vae` is the one to refuse its 48 channels.
_ORIGINAL_KEYS = ("encoder.conv1.weight", "decoder.middle.0.residual.0.gamma")
_DIFFUSERS_KEYS = ("encoder.conv_in.weight", "decoder.mid_block.resnets.0.norm1.gamma")
_WANTED = "give the Wan 2.1 VAE, wan_2.1_vae.safetensors"


def looks_like_vae(keys: Iterable[str]) -> bool:
    """Whether these tensor names are those of a Wan VAE (2.1 or 2.2), in the original or in diffusers' naming."""
    keys = set(keys)
    return keys.issuperset(_ORIGINAL_KEYS) or keys.issuperset(_DIFFUSERS_KEYS)


class WanVae:
    """The VAE on one device, in one dtype. Latents outside of it are float32, normalised as the transformer wants."""

    def __init__(self, model, device: torch.device | str, dtype: torch.dtype):
        self.model = model
        self.device = torch.device(device)
        self.dtype = dtype
        # [16] -> [16, 1, 1, 1]; the numbers of specs/unividx.md §6, which are the defaults of diffusers' config
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(-1, 1, 1, 1)
            for values in (model.config.latents_mean, model.config.latents_std)
        )

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures [F, H, W, 3], 0..1 and display-referred, to latents [16, T, h, w]: (mu - mean) / std.

        mu is the posterior's mean, so nothing is random. Latents are float32 and on the VAE's device. F must be 4n+1, H
        and W multiples of 16 (8 for the VAE, 2 for the transformer's patches). Raises ValueError.
        Source: specs/unividx.md §6.
        """
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"The VAE was given pictures of shape {list(images.shape)} and needs [F, H, W, 3].")
        frames, height, width, _ = images.shape
        if frames % 4 != 1:
            raise ValueError(f"The VAE was given {frames} frames and needs 4n+1 (1, 5, 21): trim or repeat the last.")
        if not height or not width or height % 16 or width % 16:
            raise ValueError(f"The VAE was given {width}x{height} pictures and needs multiples of 16: resize or crop.")
        x = images.to(self.device, self.dtype) * 2 - 1
        x = x.permute(3, 0, 1, 2)[None]  # [F, H, W, 3] -> [1, 3, F, H, W]
        self.model.use_tiling = False  # as the reference, which tiles the decoder only
        mu = self.model.encode(x).latent_dist.mode()[0].float()
        return (mu - self._mean) / self._std

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, *, tiled: bool = False) -> torch.Tensor:
        """Normalised latents [16, T, h, w] to pictures [F, H, W, 3], float32, clamped to 0..1, on the VAE's device.

        `tiled` decodes overlapping tiles of 30 x 52 latents, the reference's size, in a fraction of the memory, and
        blends them diffusers' way, a little unlike the reference. Raises ValueError for another shape.
        """
        if latents.ndim != 4 or latents.shape[0] != LATENT_CHANNELS or 0 in latents.shape:
            raise ValueError(f"The VAE was given latents of shape {list(latents.shape)} and needs [16, T, h, w].")
        self.model.use_tiling = tiled
        z = latents.to(self.device).float() * self._std + self._mean
        x = self.model.decode(z[None].to(self.dtype)).sample[0]  # [3, F, H, W], -1..1
        return (x.float() * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)  # [3, F, H, W] -> [F, H, W, 3]


def load_vae(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> WanVae:
    """Read a Wan 2.1 VAE of any base width, such as ComfyUI's `wan_2.1_vae.safetensors`, in either naming.

    Raises ImportError without diffusers, FileNotFoundError, and ValueError for a file that is truncated, not a Wan VAE,
    of other channels (Wan 2.2's 48), incomplete, or holding NaN or inf.
    """
    try:
        from diffusers import AutoencoderKLWan
        from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
    except ImportError as error:
        sentence = "The VAE needs diffusers outside ComfyUI: pip install 'comfyui-strata[standalone]'."
        raise ImportError(sentence) from error

    path = Path(path)
    state = load_tensors(path)
    if not looks_like_vae(state):
        raise ValueError(f"{path.name} is not a Wan VAE: {_WANTED}.")
    # In both generations and both namings, latents enter the decoder through a 1x1x1 convolution of their own width.
    bridge = state.get("conv2.weight", state.get("post_quant_conv.weight"))
    if bridge is not None and bridge.shape[0] != LATENT_CHANNELS:
        raise ValueError(
            f"{path.name} makes {bridge.shape[0]} latent channels (Wan 2.2's makes 48) and 16 are needed: {_WANTED}."
        )
    if _ORIGINAL_KEYS[0] in state:
        state = convert_wan_vae_to_diffusers(state)

    with torch.device("meta"):  # no memory and no random initialisation for weights that are about to be replaced
        model = AutoencoderKLWan(
            base_dim=state["encoder.conv_in.weight"].shape[0],
            decoder_base_dim=state["decoder.mid_block.resnets.0.norm1.gamma"].shape[0] // 4,  # it starts at 4x its base
        )
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    _check_shapes(path, state, shapes)
    check_finite(path.name, state)
    model.load_state_dict({name: state[name].to(device, dtype) for name in shapes}, assign=True)
    model.enable_tiling(240, 416, 120, 208)  # in pixels: 30 x 52 latents with a stride of 15 x 26; `decode` says when
    return WanVae(model.eval().requires_grad_(False), device, dtype)


def original_names() -> dict[str, str]:
    """From diffusers' name of every tensor of a Wan 2.1 VAE to Wan's own, which ComfyUI reads."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    # The names of the bundled file stand for every VAE's: only sizes differ.
    names = read_header(Path(__file__).parent / "tiny" / "vae.safetensors").shapes
    return convert_wan_vae_to_diffusers({name: name for name in names})


def _check_shapes(path: Path, state: dict[str, torch.Tensor], shapes: dict[str, torch.Size]) -> None:
    """Raise one sentence about the first tensor that is missing or of another shape; further tensors do no harm."""
    missing = sorted(shapes.keys() - state.keys())
    if missing:
        raise ValueError(f"{path.name} lacks {len(missing)} tensors, first {missing[0]}: download it again.")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(
                f"{path.name} has {name} of shape {list(state[name].shape)}, not {list(shape)}: {_WANTED}."
            )

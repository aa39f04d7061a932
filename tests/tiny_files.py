"""Makers of tiny weight files in the layouts users have, so that tests download nothing.

Random but tame: every layer keeps its input's scale, so outputs are finite and of moderate contrast. The same seed
gives the same file.
"""

import io
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from comfyui_strata.joint.streams import Family
from comfyui_strata.model_loaders.layer_files import prompts_path
from comfyui_strata.model_loaders.model_set import find_models

# Wan 2.1's latent statistics (specs/unividx.md §6), written out again so that tests do not trust the code they test.
MEAN = torch.tensor([-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
                     0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921])  # fmt: skip
STD = torch.tensor([2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160])  # fmt: skip
# Wan 2.2's, from comfy/latent_formats.py
MEAN_22 = torch.tensor([-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
                        -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
                        -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
                        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
                        -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
                        0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667])  # fmt: skip
STD_22 = torch.tensor([0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
                       0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
                       0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
                       0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
                       0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
                       0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744])  # fmt: skip

_CORPUS = """
a slow camera move through a sunlit room with a wooden table, a green chair and a red vase of flowers
a woman in a blue coat walks along the beach while the wind moves her hair and the waves come in
the foreground is a man playing the guitar, the background is a city street at night in the rain
albedo, irradiance, normals, alpha, depth, flow, pose and segmentation of the same shot
soft light from the window falls on the white wall and the shadow of the plant moves slowly
a dog runs over the grass, a child laughs, a bird flies over the lake in the morning
close up of two hands holding a cup of coffee on a table, steam rises, warm colours, film grain
overexposed, static, blurry details, worst quality, low quality, deformed hands, walking backwards
"""


class _VaeWeights:
    """The parts that Wan's VAEs are made of, drawn at random under Wan's own names."""

    def __init__(self, seed: int):
        self.draw = torch.Generator().manual_seed(seed)
        self.state: dict[str, torch.Tensor] = {}

    def conv(self, name: str, n_in: int, n_out: int, *kernel: int, gain: float = 1.0) -> None:
        fan_in = n_in * torch.Size(kernel).numel()
        self.state[f"{name}.weight"] = torch.randn(n_out, n_in, *kernel, generator=self.draw) * gain * fan_in**-0.5
        self.state[f"{name}.bias"] = torch.randn(n_out, generator=self.draw) * 0.02

    def norm(self, name: str, n: int, *ones: int) -> None:
        self.state[f"{name}.gamma"] = 1 + 0.1 * torch.randn(n, *ones, generator=self.draw)

    def residual(self, name: str, n_in: int, n_out: int) -> None:
        self.norm(f"{name}.residual.0", n_in, 1, 1, 1)
        self.conv(f"{name}.residual.2", n_in, n_out, 3, 3, 3, gain=1.7)  # SiLU of a unit normal has an RMS of 1/1.7
        self.norm(f"{name}.residual.3", n_out, 1, 1, 1)
        self.conv(f"{name}.residual.6", n_out, n_out, 3, 3, 3, gain=0.5)
        if n_in != n_out:
            self.conv(f"{name}.shortcut", n_in, n_out, 1, 1, 1)

    def middle(self, name: str, n: int) -> None:
        self.residual(f"{name}.0", n, n)
        self.norm(f"{name}.1.norm", n, 1, 1)
        self.conv(f"{name}.1.to_qkv", n, 3 * n, 1, 1)
        self.conv(f"{name}.1.proj", n, n, 1, 1, gain=0.5)
        self.residual(f"{name}.2", n, n)

    def head(self, name: str, n: int, n_out: int) -> None:
        self.norm(f"{name}.0", n, 1, 1, 1)
        self.conv(f"{name}.2", n, n_out, 3, 3, 3, gain=1.7)

    def bridge(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """The two 1x1x1 convolutions carry Wan's latent statistics: normalised latents come out near N(0, 1)."""
        n, state = len(mean), self.state
        self.conv("conv1", 2 * n, 2 * n, 1, 1, 1)
        state["conv1.weight"][:n] *= std.view(n, 1, 1, 1, 1)
        state["conv1.bias"][:n] = mean
        self.conv("conv2", n, n, 1, 1, 1)
        state["conv2.weight"] /= std.view(1, n, 1, 1, 1)
        state["conv2.bias"] -= state["conv2.weight"].flatten(1) @ mean  # [n, n] @ [n]

    def save(self, path: str | Path, dtype: torch.dtype, rename=str) -> Path:
        save_file({rename(name): tensor.to(dtype).contiguous() for name, tensor in self.state.items()}, path)
        return Path(path)


def write_tiny_vae(path: str | Path, base_dim: int = 4, seed: int = 0, dtype: torch.dtype = torch.float16) -> Path:
    """Write a random VAE in the layout and names of wan_2.1_vae.safetensors (z 16, mult 1-2-4-4, strides 4x8x8).

    Read by ComfyUI's stock VAELoader and by `model_loaders.vae.load_vae`. Normalised latents of a picture are roughly
    N(0, 1), pictures of such latents use most of 0..1. The real base_dim is 96; 4 makes 0.5 MB. Loaders take any, but
    an RMS norm over few channels nears a sign function: at 1 rounding flips whole pixels, at 2 hosts agree to 4e-5.
    """
    vae, d = _VaeWeights(seed), base_dim
    vae.conv("encoder.conv1", 3, d, 3, 3, 3, gain=2.0)  # pictures vary by about half of -1..1
    index, width = 0, d
    for level, mult in enumerate((1, 2, 4, 4)):
        for n_in in (width, mult * d):
            vae.residual(f"encoder.downsamples.{index}", n_in, mult * d)
            index += 1
        width = mult * d
        if level < 3:
            vae.conv(f"encoder.downsamples.{index}.resample.1", width, width, 3, 3)
            if level > 0:
                vae.conv(f"encoder.downsamples.{index}.time_conv", width, width, 3, 1, 1)
            index += 1
    vae.middle("encoder.middle", 4 * d)
    vae.head("encoder.head", 4 * d, 32)

    vae.conv("decoder.conv1", 16, 4 * d, 3, 3, 3)
    vae.middle("decoder.middle", 4 * d)
    index = 0
    # Each level starts at half the width before it: the 2x upsampling's convolution halves it.
    for level, (n_in, n_out) in enumerate(((4, 4), (2, 4), (2, 2), (1, 1))):
        for start in (n_in, n_out, n_out):
            vae.residual(f"decoder.upsamples.{index}", start * d, n_out * d)
            index += 1
        if level < 3:
            vae.conv(f"decoder.upsamples.{index}.resample.1", n_out * d, n_out * d // 2, 3, 3)
            if level < 2:
                vae.conv(f"decoder.upsamples.{index}.time_conv", n_out * d, 2 * n_out * d, 3, 1, 1)
            index += 1
    vae.head("decoder.head", d, 3)
    vae.state["decoder.head.2.weight"] *= 0.4  # pictures of -1..1, mostly unclamped
    vae.bridge(MEAN, STD)
    return vae.save(path, dtype)


def write_tiny_wan22_vae(path: str | Path, base_dim: int = 4, decoder_dim: int = 6, seed: int = 0,
                         dtype: torch.dtype = torch.float16, diffusers_names: bool = False) -> Path:
    """Write a random VAE in the layout of wan2.2_vae.safetensors (z 48, 2x2 pixels joined, mult 1-2-4-4, strides
    4x16x16), in its own names or in those of Wan2.2-TI2V-5B-Diffusers.

    Read by `model_loaders.vae.load_vae`; ComfyUI's VAELoader takes only the real base_dim, 160, and decoder_dim, 256.
    Otherwise as `write_tiny_vae`.
    """
    vae, d, e = _VaeWeights(seed), base_dim, decoder_dim
    vae.conv("encoder.conv1", 12, d, 3, 3, 3, gain=2.0)
    for level, (n_in, n_out) in enumerate(((d, d), (d, 2 * d), (2 * d, 4 * d), (4 * d, 4 * d))):
        stage = f"encoder.downsamples.{level}.downsamples"
        vae.residual(f"{stage}.0", n_in, n_out)
        vae.residual(f"{stage}.1", n_out, n_out)
        if level < 3:
            vae.conv(f"{stage}.2.resample.1", n_out, n_out, 3, 3)
        if level in (1, 2):
            vae.conv(f"{stage}.2.time_conv", n_out, n_out, 3, 1, 1)
    vae.middle("encoder.middle", 4 * d)
    vae.head("encoder.head", 4 * d, 96)

    vae.conv("decoder.conv1", 48, 4 * e, 3, 3, 3)
    vae.middle("decoder.middle", 4 * e)
    for level, (n_in, n_out) in enumerate(((4 * e, 4 * e), (4 * e, 4 * e), (4 * e, 2 * e), (2 * e, e))):
        stage = f"decoder.upsamples.{level}.upsamples"
        for part in range(3):
            vae.residual(f"{stage}.{part}", n_out if part else n_in, n_out)
        if level < 3:
            vae.conv(f"{stage}.3.resample.1", n_out, n_out, 3, 3)
        if level < 2:
            vae.conv(f"{stage}.3.time_conv", n_out, 2 * n_out, 3, 1, 1)
    vae.head("decoder.head", e, 12)
    vae.state["decoder.head.2.weight"] *= 0.4
    vae.bridge(MEAN_22, STD_22)
    return vae.save(path, dtype, _wan22_in_diffusers if diffusers_names else str)


def _wan22_in_diffusers(name: str) -> str:
    for old, new in (
        ("encoder.conv1", "encoder.conv_in"), ("decoder.conv1", "decoder.conv_in"), ("head.0", "norm_out"),
        ("head.2", "conv_out"), ("middle.0", "mid_block.resnets.0"), ("middle.1", "mid_block.attentions.0"),
        ("middle.2", "mid_block.resnets.1"), ("encoder.downsamples", "encoder.down_blocks"),
        ("decoder.upsamples", "decoder.up_blocks"), ("downsamples.2", "downsampler"), ("upsamples.3", "upsampler"),
        ("downsamples", "resnets"), ("upsamples", "resnets"), ("residual.0", "norm1"), ("residual.2", "conv1"),
        ("residual.3", "norm2"), ("residual.6", "conv2"), ("shortcut", "conv_shortcut"),
    ):  # fmt: skip
        name = name.replace(old, new)
    if name.startswith(("conv1.", "conv2.")):
        name = name.replace("conv1.", "quant_conv.").replace("conv2.", "post_quant_conv.")
    return name


def tiny_sentencepiece(byte_fallback: bool = True) -> bytes:
    """A sentencepiece unigram model (pad 0, eos 1, unk 2) trained on a few built-in lines. With byte_fallback, which
    UMT5's has, it knows every character; without, only those of these lines."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_CORPUS.strip().splitlines()), model_writer=model, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, vocab_size=480, byte_fallback=byte_fallback, hard_vocab_limit=False,
        num_threads=1, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def umt5_config(d_model: int = 64) -> dict[str, int]:
    """The sizes of `write_tiny_umt5`'s encoder, as ComfyUI takes them: model_options={"umt5xxl_model_config": ...}."""
    return {"vocab_size": 512, "d_model": d_model, "num_layers": 2, "num_heads": 4, "d_kv": 16, "d_ff": 96}


def write_tiny_umt5(path: str | Path, seed: int = 0, d_model: int = 64, dtype: torch.dtype = torch.float16) -> Path:
    """Write a random UMT5 encoder with a real tokenizer in ComfyUI's single-file format, as umt5_xxl_fp16.safetensors.

    d_model is the width of the embeddings, 4096 for a real Wan backbone. ComfyUI knows only umt5-xxl's sizes:
    `umt5_config` is what to tell it.
    """
    draw = torch.Generator().manual_seed(seed)
    tokenizer = torch.frombuffer(bytearray(tiny_sentencepiece()), dtype=torch.uint8)
    size = umt5_config(d_model)
    heads, d_kv, d_ff = size["num_heads"], size["d_kv"], size["d_ff"]
    inner = heads * d_kv
    state = {}

    def matrix(name: str, n_out: int, n_in: int, std: float) -> None:
        state[f"{name}.weight"] = torch.randn(n_out, n_in, generator=draw) * std

    def norm(name: str) -> None:
        state[f"{name}.weight"] = 1 + 0.1 * torch.randn(d_model, generator=draw)

    matrix("shared", size["vocab_size"], d_model, 1.0)  # more rows than pieces, as in the real one
    for i in range(size["num_layers"]):
        attention, ffn = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        # T5's own initialisation: the query's scale makes up for the attention's missing 1/sqrt(d_kv)
        matrix(f"{attention}.SelfAttention.q", inner, d_model, (d_model * d_kv) ** -0.5)
        matrix(f"{attention}.SelfAttention.k", inner, d_model, d_model**-0.5)
        matrix(f"{attention}.SelfAttention.v", inner, d_model, d_model**-0.5)
        matrix(f"{attention}.SelfAttention.o", d_model, inner, inner**-0.5)
        matrix(f"{attention}.SelfAttention.relative_attention_bias", 32, heads, 0.5)
        norm(f"{attention}.layer_norm")
        matrix(f"{ffn}.DenseReluDense.wi_0", d_ff, d_model, d_model**-0.5)
        matrix(f"{ffn}.DenseReluDense.wi_1", d_ff, d_model, d_model**-0.5)
        matrix(f"{ffn}.DenseReluDense.wo", d_model, d_ff, d_ff**-0.5)
        norm(f"{ffn}.layer_norm")
    norm("encoder.final_layer_norm")

    save_file({**{name: tensor.to(dtype) for name, tensor in state.items()}, "spiece_model": tokenizer}, path)
    return Path(path)


def copy_bundled(folder: Path, family: Family) -> Path:
    """The bundled model of one family in a folder of its own, without a text encoder; returns the folder."""
    models = find_models("tiny", family)
    folder.mkdir()
    for path in (models.backbone, models.adapters, prompts_path(models.adapters), models.vae):
        shutil.copy(path, folder)
    return folder

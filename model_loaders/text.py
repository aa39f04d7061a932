"""Prompts to text embeddings outside ComfyUI, through transformers' UMT5 encoder. Source: specs/unividx.md §1.

n prompts, 512 text positions, D = the encoder's width (4096 for umt5-xxl). Inside ComfyUI its own CLIP node does this,
for the families that want plain UMT5.
"""

import gc
import html
import json
import re
from pathlib import Path

import torch

from .safetensors_file import load_tensors, read_header
from .vocabulary import Vocabulary, find_vocabulary
from .word_encoder import encode_words, is_word_encoder

TEXT_LENGTH = 512

_FIRST_BLOCK = "encoder.block.0.layer.0.SelfAttention."
_BIAS = "relative_attention_bias.weight"
# What ComfyUI's scaled fp8 files (old and new) put beside each weight; without them the weights mean nothing.
_SCALES = ("scale_weight", "scale_input", "weight_scale", "input_scale", "scaled_fp8", "comfy_quant")
_WANTED = "give a folder in diffusers' layout or ComfyUI's umt5_xxl_fp16.safetensors"


def clean_prompt(text: str) -> str:
    """A prompt as Wan's own tokenizer cleans it: ftfy, html unescaped twice, runs of white space made one space."""
    try:
        import ftfy
    except ImportError as error:
        raise _needs("ftfy") from error
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()


@torch.no_grad()
def encode_prompts(
    path: str | Path,
    prompts: list[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    *,
    share_first_bias: bool = False,
    zero_padding: bool = True,
    clean: bool = True,
) -> torch.Tensor:
    """Encode each prompt to a row of [n, 512, D], on `device` in `dtype`, and free the encoder before returning.

    `path` is a folder in the transformers or diffusers layout (text_encoder/ + tokenizer/, or both flat in one),
    ComfyUI's single file with the tokenizer inside (`umt5_xxl_fp16.safetensors`), or that of a `word_encoder`, of which
    what follows does not hold. Each prompt is cleaned, ends in EOS,
    is cut to 512 tokens, and is zero from its own length on: an empty one is a single row for EOS and 511 of zeros.

    Uni-ViGU's release conditions otherwise (specs/univigu.md §6.5), all three of these at once:
    share_first_bias: every block takes the first one's bias of relative positions, as T5 does, and UMT5 does not.
    zero_padding: False keeps what the encoder makes of the padding, which sees the prompt as the prompt's tokens do.
    clean: False takes each prompt as it is written.

    Raises ImportError without the `standalone` extra, FileNotFoundError, and ValueError for no prompt and for files
    that are truncated, no UMT5, scaled fp8, or give NaN or inf.
    """
    if not prompts:
        raise ValueError("No prompt was given and at least one is needed: an empty string is a prompt.")
    path = Path(path)
    if path.is_file() and is_word_encoder(read_header(path).shapes):
        return encode_words(path, prompts).to(device, dtype)
    weights, vocabulary = _find(path)
    texts = [clean_prompt(prompt) for prompt in prompts] if clean else prompts
    # Truncation keeps the EOS, as the reference's tokenizer does.
    tokens = [vocabulary.tokens(text)[: TEXT_LENGTH - 1] + [vocabulary.eos_id] for text in texts]
    lengths = torch.tensor([len(row) for row in tokens], device=device)
    # Padding is masked, so positions nobody uses need not be computed.
    longest = max(len(row) for row in tokens) if zero_padding else TEXT_LENGTH
    ids = torch.tensor([vocabulary.pad(row, longest) for row in tokens], device=device)
    mask = torch.arange(longest, device=device) < lengths[:, None]  # [n, longest]

    model = _load(path, weights, device, dtype, share_first_bias)
    hidden = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.to(dtype)  # [n, longest, D]
    del model
    gc.collect()  # transformers' modules hold reference cycles
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()

    # Per row: the reference zeroes all rows from the shortest one's length on, a bug (specs/unividx.md §8) not to copy.
    out = hidden.new_zeros(len(tokens), TEXT_LENGTH, hidden.shape[-1])
    out[:, :longest] = hidden.masked_fill(~mask[..., None], 0) if zero_padding else hidden
    if not torch.isfinite(out).all():
        raise ValueError(f"The text encoder {path.name} gave NaN or inf in {dtype}: use another dtype or another file.")
    return out


def _needs(package: str) -> ImportError:
    return ImportError(f"Prompts need {package} outside ComfyUI: pip install 'comfyui-strata[standalone]'.")


def _find(path: Path) -> tuple[list[Path], Vocabulary]:
    """The weight files of either layout, and the vocabulary."""
    if path.is_file():
        return [path], _embedded_vocabulary(path)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no text encoder at {path}: {_WANTED}.")

    encoder = path / "text_encoder" if (path / "text_encoder").is_dir() else path
    index = next(encoder.glob("*.safetensors.index.json"), None)
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index else None
    weights = [encoder / name for name in sorted(names)] if names else sorted(encoder.glob("*.safetensors"))
    lost = [file.name for file in weights if not file.is_file()]
    if lost or not weights:
        raise FileNotFoundError(f"{encoder} lacks {lost[0] if lost else 'a .safetensors file'}: {_WANTED}.")

    for folder in (path / "tokenizer", path):
        # tokenizer.json first: it is what the reference's AutoTokenizer reads. Both are read without transformers'
        # tokenizer classes, whose conversions differ between versions and need protobuf.
        for name in ("tokenizer.json", "spiece.model"):
            if (folder / name).is_file():
                return weights, find_vocabulary(folder / name)
    raise FileNotFoundError(f"{path} holds no tokenizer.json or spiece.model: {_WANTED}.")


def _embedded_vocabulary(file: Path) -> Vocabulary:
    names = read_header(file).shapes
    if f"{_FIRST_BLOCK}q.weight" not in names:
        raise ValueError(f"{file.name} is not a UMT5 text encoder: {_WANTED}.")
    if "spiece_model" not in names:
        raise ValueError(f"{file.name} carries no tokenizer (no tensor spiece_model): {_WANTED}.")
    return find_vocabulary(file)


def _load(path: Path, files: list[Path], device: torch.device | str, dtype: torch.dtype, share_first_bias: bool):
    """The UMT5 encoder with these weights, its sizes deduced from their shapes."""
    try:
        from transformers import UMT5Config, UMT5EncoderModel
    except ImportError as error:
        raise _needs("transformers") from error

    state = {}
    for file in files:
        names = read_header(file).shapes
        if any(name.rpartition(".")[2] in _SCALES for name in names):
            raise ValueError(f"{file.name} is a scaled fp8 file, which only ComfyUI reads: {_WANTED}.")
        tensors = load_tensors(file, [name for name in names if name.startswith(("shared.", "encoder."))])
        while tensors:  # one leaves as its copy comes: the encoder is 11 GB, and the device never holds another dtype
            name, tensor = tensors.popitem()
            # UMT5's feed-forward output overflows float16, so, as transformers does, its weight stays float32.
            wide = dtype == torch.float16 and name.endswith(".wo.weight")
            state[name] = tensor.to(device, torch.float32 if wide else dtype)
    if "encoder.embed_tokens.weight" in state:  # the same table, which some savers store under this name only
        state["shared.weight"] = state.pop("encoder.embed_tokens.weight")

    try:
        # Unlike T5, every layer of UMT5 has its own relative bias: [buckets, heads]
        bias = state[f"{_FIRST_BLOCK}{_BIAS}"]
        buckets, heads = bias.shape
        vocab, width = state["shared.weight"].shape
        config = UMT5Config(
            vocab_size=vocab,
            d_model=width,
            d_kv=state[f"{_FIRST_BLOCK}q.weight"].shape[0] // heads,
            d_ff=state["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"].shape[0],
            num_layers=1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.block.")),
            num_heads=heads,
            relative_attention_num_buckets=buckets,
        )
    except KeyError as error:
        raise ValueError(f"{path.name} is not a UMT5 text encoder (it lacks {error.args[0]}): {_WANTED}.") from error
    with torch.device("meta"):  # no memory and no random initialisation for weights that are about to be replaced
        model = UMT5EncoderModel(config)
    model.set_input_embeddings(model.shared)  # one module under both names, so that one table is assigned, not two
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    for name, tensor in model.state_dict().items():
        if name not in state or state[name].shape != tensor.shape:
            found = f"has {name} of shape {list(state[name].shape)}" if name in state else f"lacks {name}"
            raise ValueError(f"{path.name} is not a whole UMT5 text encoder (it {found}): {_WANTED}.")
    if share_first_bias:
        state.update({name: bias for name in state if name.endswith(_BIAS)})
    model.load_state_dict(state, strict=False, assign=True)
    return model.eval()

"""UMT5 embeddings outside ComfyUI: `model_loaders.text` on a tiny random encoder with a real tokenizer."""

import json
import math
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfyui_strata.model_loaders.text import clean_prompt, encode_prompts
from comfyui_strata.tests.tiny_files import tiny_sentencepiece, umt5_config, write_tiny_umt5

for package in ("transformers", "sentencepiece", "ftfy"):
    pytest.importorskip(package, reason=f"prompts outside ComfyUI need {package}")

SIZES = umt5_config()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_tiny_umt5(tmp_path_factory.mktemp("umt5") / "umt5_xxl_fp16.safetensors")


def encode(path, *prompts, dtype=torch.float32):
    return encode_prompts(path, list(prompts), "cpu", dtype)


def rows(embedding):
    """How many leading rows of [512, D] are not zero; fails if a non-zero row follows a zero one."""
    used = embedding.abs().sum(-1) > 0
    count = int(used.sum())
    assert used[:count].all()
    return count


# ---- a slow, plain UMT5 for one unpadded prompt, written from specs/unividx.md §1 ----


def rms(x, weight):
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight


def bucket(distance):
    """Of 32 buckets the upper 16 are for keys after the query; in each, 8 are exact and 8 logarithmic up to 128."""
    side, distance = 16 * (distance > 0), abs(distance)
    if distance < 8:
        return side + distance
    return side + min(15, 8 + int(math.log(distance / 8) / math.log(16) * 8))


def plain_umt5(w, ids):
    x = w["shared.weight"][ids]  # [N, D]
    buckets = torch.tensor([[bucket(key - query) for key in range(len(ids))] for query in range(len(ids))])
    for i in range(SIZES["num_layers"]):
        name = f"encoder.block.{i}.layer.0."
        y = rms(x, w[name + "layer_norm.weight"])
        q, k, v = (
            (y @ w[f"{name}SelfAttention.{letter}.weight"].T).unflatten(1, (SIZES["num_heads"], -1)).transpose(0, 1)
            for letter in "qkv"
        )  # [N, D] -> [heads, N, d_kv]
        bias = w[name + "SelfAttention.relative_attention_bias.weight"][buckets].permute(2, 0, 1)  # [heads, N, N]
        mixed = (q @ k.transpose(1, 2) + bias).softmax(-1) @ v
        x = x + mixed.transpose(0, 1).flatten(1) @ w[name + "SelfAttention.o.weight"].T
        name = f"encoder.block.{i}.layer.1."
        y = rms(x, w[name + "layer_norm.weight"])
        gate = torch.nn.functional.gelu(y @ w[name + "DenseReluDense.wi_0.weight"].T, approximate="tanh")
        x = x + (gate * (y @ w[name + "DenseReluDense.wi_1.weight"].T)) @ w[name + "DenseReluDense.wo.weight"].T
    return rms(x, w["encoder.final_layer_norm.weight"])


def token_ids(text):
    import sentencepiece

    return [*sentencepiece.SentencePieceProcessor(model_proto=tiny_sentencepiece()).encode(text), 1]


@pytest.mark.parametrize("prompt", ["", "a dog runs over the grass", "the shadow of the plant moves slowly, " * 20])
def test_equals_a_plain_umt5(file, prompt):
    weights = {name: tensor.float() for name, tensor in load_file(file).items()}
    expected = plain_umt5(weights, token_ids(prompt))
    # beside a longer prompt, so that this one is padded and the mask matters
    out = encode(file, prompt, "a woman walks along the beach " * 40)[0]
    torch.testing.assert_close(out[: len(expected)], expected, atol=2e-5, rtol=0)
    assert rows(out) == len(expected)


def test_empty_prompt_is_one_row(file):
    out = encode(file, "", "  \n ")
    assert out.shape == (2, 512, 64) and rows(out[0]) == 1 and torch.equal(out[0], out[1])


def test_each_row_is_zeroed_at_its_own_length(file):
    """Not at the shortest one's, as in the reference (specs/unividx.md §8): a batch equals its prompts one by one."""
    prompts = ["", "a dog", "soft light from the window falls on the white wall"]
    batch = encode(file, *prompts)
    for row, prompt in zip(batch, prompts):
        torch.testing.assert_close(row, encode(file, prompt)[0], atol=1e-5, rtol=0)
    assert rows(batch[0]) < rows(batch[1]) < rows(batch[2])


def test_600_words_are_cut_to_512_tokens_with_eos(file):
    words = "a slow camera move through a sunlit room " * 75
    assert len(words.split()) == 600
    weights = {name: tensor.float() for name, tensor in load_file(file).items()}
    out = encode(file, words)
    assert out.shape == (1, 512, 64) and rows(out[0]) == 512
    expected = plain_umt5(weights, [*token_ids(clean_prompt(words))[:511], 1])
    torch.testing.assert_close(out[0], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("prompt", ["前景是女人。背景为：海滩", "Дом у моря", "🎬 café naïve", "(a:1.2) [b] {c}"])
def test_unicode(file, prompt):
    out = encode(file, prompt, "")
    assert torch.isfinite(out).all() and rows(out[0]) > 3


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a\tdog \n\n runs ", "a dog runs"),
        ("salt &amp; pepper", "salt & pepper"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("&lt;b&gt;bold&lt;/b&gt;", "<b>bold</b>"),
        ("cafÃ©", "café"),
        ("“curly”", '"curly"'),
        ("背景为：海滩", "背景为:海滩"),
        ("a&nbsp;&#8203;b", "a \u200bb"),
        ("", ""),
    ],
)
def test_cleaning(raw, clean):
    assert clean_prompt(raw) == clean


def test_cleaning_reaches_the_encoder(file):
    out = encode(file, "salt &amp;amp;   pepper", "salt & pepper")
    assert torch.equal(out[0], out[1])


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_low_precision(file, dtype, limit):
    exact, out = encode(file, "a dog runs"), encode(file, "a dog runs", dtype=dtype)
    assert out.dtype == dtype and (out - exact).abs().max() / exact.abs().max() < limit


# ---- as Uni-ViGU conditions: UMT5's weights in a T5 encoder ----


def test_share_first_bias_and_kept_padding_equal_transformers_t5_with_umt5_weights(file):
    """specs/univigu.md §6.5: what the reference does, T5EncoderModel.from_pretrained of a UMT5 checkpoint."""
    from transformers import T5Config, T5EncoderModel

    weights = {name: tensor.float() for name, tensor in load_file(file).items() if name != "spiece_model"}
    config = T5Config(**SIZES, feed_forward_proj="gated-gelu", dropout_rate=0.0)
    t5 = T5EncoderModel(config).eval()
    missing, ignored = t5.load_state_dict({**weights, "encoder.embed_tokens.weight": weights["shared.weight"]}, False)
    assert missing == [] and ignored == ["encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"]

    prompts = ["a dog runs  over the grass &amp; barks", "", "the shadow of the plant moves slowly, " * 20]
    ids = [token_ids(prompt)[:511] for prompt in prompts]
    mask = torch.tensor([[1] * len(row) + [0] * (512 - len(row)) for row in ids])
    ids = torch.tensor([row + [0] * (512 - len(row)) for row in ids])
    with torch.no_grad():
        expected = t5(input_ids=ids, attention_mask=mask).last_hidden_state

    out = encode_prompts(file, prompts, dtype=torch.float32, share_first_bias=True, zero_padding=False, clean=False)
    assert out.shape == (3, 512, 64)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)
    assert (out - encode_prompts(file, prompts, dtype=torch.float32, clean=False))[mask.bool()].abs().max() > 0.5


def test_kept_padding_changes_only_the_padding(file):
    kept = encode_prompts(file, ["a dog", ""], dtype=torch.float32, zero_padding=False)
    zeroed = encode(file, "a dog", "")
    assert rows(kept[0]) == rows(kept[1]) == 512
    for row, other in zip(kept, zeroed):
        torch.testing.assert_close(row[: rows(other)], other[: rows(other)], atol=1e-5, rtol=0)


def test_uncleaned_prompts_are_taken_as_written(file):
    raw = encode_prompts(file, ["salt &amp; pepper"], dtype=torch.float32, clean=False)[0]
    assert rows(raw) == len(token_ids("salt &amp; pepper")) > rows(encode(file, "salt &amp; pepper")[0])


# ---- folders ----


def split(file, folder, shards=1):
    """The single file's encoder as transformers saves it: `shards` files, with an index if there are several."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor for name, tensor in load_file(file).items() if name != "spiece_model"}
    index = {name: f"model-{i % shards}.safetensors" for i, name in enumerate(state)}
    for part in set(index.values()):
        save_file({name: state[name] for name in state if index[name] == part}, folder / part)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize(("encoder", "tokenizer", "shards"), [("text_encoder", "tokenizer", 2), (".", ".", 1)])
def test_folders(file, tmp_path, encoder, tokenizer, shards):
    split(file, tmp_path / encoder, shards)
    (tmp_path / tokenizer).mkdir(exist_ok=True)
    (tmp_path / tokenizer / "spiece.model").write_bytes(tiny_sentencepiece())
    assert torch.equal(encode(tmp_path, "a dog", ""), encode(file, "a dog", ""))


def test_folder_with_tokenizer_json(file, tmp_path):
    """As in the published Wan folders; the truncation and padding such a file may ask for must not add to ours."""
    import sentencepiece
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = sentencepiece.SentencePieceProcessor(model_proto=tiny_sentencepiece())
    vocab = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=2, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(4)
    split(file, tmp_path / "text_encoder")
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    prompts = ["a woman in a blue coat walks along the beach", ""]
    assert torch.equal(encode(tmp_path, *prompts), encode(file, *prompts))


def test_folder_errors(file, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no text encoder at"):
        encode(tmp_path / "none", "")
    with pytest.raises(FileNotFoundError, match="lacks a .safetensors file"):
        encode(tmp_path, "")
    split(file, tmp_path, shards=3)
    with pytest.raises(FileNotFoundError, match="holds no tokenizer.json or spiece.model"):
        encode(tmp_path, "")
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="lacks model-1.safetensors"):
        encode(tmp_path, "")


# ---- wrong files ----


def spoil(file, tmp_path, change):
    state = load_file(file)
    change(state)
    save_file(state, tmp_path / "spoilt.safetensors")
    return tmp_path / "spoilt.safetensors"


ATTENTION = "encoder.block.0.layer.0.SelfAttention."


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop(f"{ATTENTION}q.weight"), "is not a UMT5 text encoder"),
        (lambda state: state.pop("spiece_model"), "carries no tokenizer"),
        (lambda state: state.pop("shared.weight"), "lacks shared.weight"),
        (lambda state: state.pop(f"{ATTENTION}relative_attention_bias.weight"), "it lacks encoder.block.0"),
        (lambda state: state.pop("encoder.block.1.layer.0.SelfAttention.o.weight"), "it lacks encoder.block.1"),
        (lambda state: state.update({f"{ATTENTION}o.weight": torch.zeros(64, 8)}), "o.weight of shape \\[64, 8\\]"),
        (lambda state: state.update({f"{ATTENTION}q.scale_weight": torch.ones(1)}), "fp8 file, which only ComfyUI"),
        (lambda state: state.update({f"{ATTENTION}q.weight_scale": torch.ones(1)}), "scaled fp8 file"),
        (lambda state: state.update(scaled_fp8=torch.ones(1)), "scaled fp8 file"),
        (lambda state: state["shared.weight"].fill_(float("nan")), "gave NaN or inf"),
    ],
)
def test_wrong_files(file, tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        encode(spoil(file, tmp_path, change), "a dog")


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_file(file, tmp_path, keep):
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="'cut.safetensors' is (truncated|no safetensors)"):
        encode(tmp_path / "cut.safetensors", "")


def test_no_prompt(file):
    with pytest.raises(ValueError, match="No prompt was given"):
        encode(file)


@pytest.mark.parametrize("package", ["transformers", "sentencepiece", "ftfy"])
def test_without_a_package(file, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"need {package}( outside ComfyUI)?: pip install"):
        encode(file, "a dog")


def test_same_seed_same_file(file, tmp_path):
    assert write_tiny_umt5(tmp_path / "again.safetensors").read_bytes() == file.read_bytes()

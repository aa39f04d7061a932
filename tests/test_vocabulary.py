"""Text to token ids and back: `model_loaders.vocabulary` on small vocabularies in the formats that models carry."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from comfyui_strata.model_loaders.vocabulary import Vocabulary, find_vocabulary, make_word_vocabulary
from comfyui_strata.tests.tiny_files import tiny_sentencepiece, write_tiny_umt5
from comfyui_strata.training.rendering.captions import VOCABULARY, Facts, LightFact, ObjectFact, caption

sentencepiece = pytest.importorskip("sentencepiece", reason="vocabularies need sentencepiece")
tokenizers = pytest.importorskip("tokenizers", reason="vocabularies need tokenizers")

TEXTS = [
    "a woman in a blue coat walks along the beach",
    "A dog runs, over the 🎬 grass.",
    "  two  spaces , here\nand   there ",
    "前景是女人。背景为:海滩",
    "(a:1.2) [b] {c} café",
]


@pytest.fixture(scope="module")
def model():
    return tiny_sentencepiece()


@pytest.fixture(scope="module")
def pieces(model):
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.fixture(scope="module")
def vocabulary(model):
    return Vocabulary(model, "spiece.model")


@pytest.fixture(scope="module")
def json_of_t5(pieces):
    """The same pieces as a tokenizer.json as T5's: with marks of masked spans, and a truncation and padding that must
    not add to ours."""
    vocab = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    vocab += [(f"<extra_id_{i}>", 0.0) for i in range(100)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(vocab, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    metaspace = tokenizers.decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = tokenizers.decoders.Sequence([tokenizers.decoders.ByteFallback(), metaspace])
    tokenizer.add_special_tokens([f"<extra_id_{i}>" for i in range(100)] + ["<pad>", "</s>", "<unk>"])
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(4)
    return tokenizer.to_str().encode()


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_sentencepieces_with_eos(vocabulary, pieces, text):
    ids = vocabulary.encode(text, 64)
    assert ids == [*pieces.encode(text), 1] and vocabulary.tokens(text) == ids[:-1]
    assert vocabulary.decode(ids) == " ".join(text.split())
    assert vocabulary.decode(torch.tensor(vocabulary.pad(ids, 64))) == vocabulary.decode(ids)


def test_size_and_special_ids_are_the_models_own(vocabulary, pieces):
    assert vocabulary.size == pieces.get_piece_size()
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unknown_id) == (0, 1, 2)
    words = make_word_vocabulary(["b"]).replace(b'"<pad>":0,"</s>":1', b'"<pad>":1,"</s>":0')
    swapped = Vocabulary(words, "tokenizer.json")
    assert swapped.encode("b", 4) == [5, 0] and swapped.pad([5, 0], 4) == [5, 0, 1, 1]


def test_pad(vocabulary):
    assert vocabulary.pad([7, 1], 5) == [7, 1, 0, 0, 0] and vocabulary.pad([7, 1], 2) == [7, 1]


def test_decode_leaves_out_what_is_no_text_and_goes_on_after_an_eos(vocabulary):
    """As batch_decode(skip_special_tokens=True) of the reference (specs/univigu.md §6.2)."""
    dog, cat = vocabulary.tokens("a dog"), vocabulary.tokens("runs")
    assert vocabulary.decode([0, *dog, 1, 2, vocabulary.size, 10**6, -1, *cat, 0, 1]) == "a dog runs"
    assert vocabulary.decode([]) == vocabulary.decode([0, 1, 2]) == ""


def test_a_tokenizer_json_is_the_same_vocabulary(vocabulary, json_of_t5):
    other = Vocabulary(json_of_t5, "tokenizer.json")
    assert (other.size, other.pad_id, other.eos_id, other.unknown_id) == (vocabulary.size, 0, 1, 2)
    for text in TEXTS[:2]:
        ids = vocabulary.encode(text, 64)
        assert other.encode(text, 64) == ids and other.decode([*ids, other.size + 3]) == text


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_empty_text_is_refused(vocabulary, text):
    with pytest.raises(ValueError, match="An empty text was given"):
        vocabulary.encode(text, 64)


def test_a_text_must_fit_with_its_end(vocabulary):
    count = len(vocabulary.tokens(TEXTS[0]))
    assert len(vocabulary.encode(TEXTS[0], count + 1)) == count + 1
    with pytest.raises(ValueError, match=f"of {count + 1} tokens with its end and the stream holds {count}: shorten"):
        vocabulary.encode(TEXTS[0], count)


def test_unknown_characters_are_named():
    vocabulary = Vocabulary(tiny_sentencepiece(byte_fallback=False), "spiece.model")
    assert vocabulary.encode("a dog runs", 64)[-1] == 1
    with pytest.raises(ValueError, match="holds '海', '🎬', which the model's vocabulary does not know"):
        vocabulary.encode("a dog 海 runs 🎬", 64)


# ---- where a vocabulary lies ----


def test_every_place_gives_the_same_vocabulary(vocabulary, model, json_of_t5, tmp_path):
    (tmp_path / "diffusers" / "tokenizer").mkdir(parents=True)
    (tmp_path / "diffusers" / "tokenizer" / "spiece.model").write_bytes(model)
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "tokenizer.json").write_bytes(json_of_t5)
    carrier = {"tokenizer_json": torch.frombuffer(bytearray(json_of_t5), dtype=torch.uint8)}
    save_file({**carrier, "text_head.bias": torch.zeros(3)}, tmp_path / "half.safetensors")
    for place in (
        tmp_path / "diffusers", tmp_path / "diffusers" / "tokenizer", tmp_path / "diffusers" / "tokenizer/spiece.model",
        tmp_path / "json", str(tmp_path / "json" / "tokenizer.json"), tmp_path / "half.safetensors",
        write_tiny_umt5(tmp_path / "umt5_xxl_fp16.safetensors"),
    ):  # fmt: skip
        found = find_vocabulary(place)
        assert found.size == vocabulary.size and found.encode(TEXTS[1], 64) == vocabulary.encode(TEXTS[1], 64)


def test_the_sentencepiece_model_goes_first(vocabulary, model, tmp_path):
    """It is what the reference's T5Tokenizer reads."""
    (tmp_path / "spiece.model").write_bytes(model)
    (tmp_path / "tokenizer.json").write_bytes(make_word_vocabulary(["dog"]))
    assert find_vocabulary(tmp_path).size == vocabulary.size


def test_no_vocabulary_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no vocabulary at"):
        find_vocabulary(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="holds no spiece.model or tokenizer.json"):
        find_vocabulary(tmp_path)
    save_file({"spiece_model": torch.zeros(9)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="a.safetensors carries no vocabulary"):
        find_vocabulary(tmp_path / "a.safetensors")


@pytest.mark.parametrize("data", [b"", b"\x00\x01\x02", b"{}", b'{"a":', b"\x7b\xff"])
def test_what_is_no_vocabulary(data):
    with pytest.raises(ValueError, match="mine cannot be read as a vocabulary: give a spiece.model"):
        Vocabulary(data, "mine")


def test_a_vocabulary_of_another_kind():
    bert = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "a": 1}, unk_token="[PAD]"))
    with pytest.raises(ValueError, match="mine has no <pad> and no </s> and no <unk>: give"):
        Vocabulary(bert.to_str().encode(), "mine")


@pytest.mark.parametrize(("package", "data"), [("sentencepiece", b"\n"), ("tokenizers", b"{}")])
def test_without_a_package(monkeypatch, package, data):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"Texts need {package}: pip install"):
        Vocabulary(data, "mine")


# ---- a closed list of words ----


def test_captions_of_scenes_come_back():
    vocabulary = Vocabulary(make_word_vocabulary(VOCABULARY), "tokenizer.json")
    assert vocabulary.size == len(VOCABULARY) + 5
    objects = (
        ObjectFact(1, "person", "orange", "striped", "walks"), ObjectFact(2, "box", "teal", "plain", "stays still"),
        ObjectFact(3, "ball", "red", "checkered", "rolls to the left"),
    )  # fmt: skip
    lights = (LightFact("sun", "warm", False), LightFact("lamp", "cool", True))
    text = caption(Facts(objects, "studio", "grey", "marbled", "blue", lights, "orbits to the right"))
    ids = vocabulary.encode(text, 64)
    assert len(ids) == len(text.replace(".", " .").replace(",", " ,").split()) + 1 and vocabulary.unknown_id not in ids
    assert vocabulary.decode(vocabulary.pad(ids, 64)) == text.lower()


def test_every_word_has_an_id_of_its_own_and_the_rest_is_named():
    vocabulary = Vocabulary(make_word_vocabulary(["Dog", "cat", "dog"]), "tokenizer.json")
    assert vocabulary.size == 7 and vocabulary.tokens("dog, CAT. bird") == [5, 4, 6, 3, 2]
    with pytest.raises(ValueError, match="holds 'Bird', which the model's vocabulary does not know"):
        vocabulary.encode("dog Bird", 8)


@pytest.mark.parametrize("word", ["two words", "up-close", ""])
def test_word_vocabularies_take_single_words(word):
    with pytest.raises(ValueError, match=f"'{word}' is no single word"):
        make_word_vocabulary(["dog", word])

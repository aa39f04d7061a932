"""The text encoder of small models: what it says of a sentence, and what it refuses."""

import pytest
import torch

from comfyui_strata.joint.families import UNITY, WAN_NEGATIVE_PROMPT
from comfyui_strata.model_loaders.detect import detect
from comfyui_strata.model_loaders.text import encode_prompts
from comfyui_strata.model_loaders.word_encoder import LENGTH, encode_words, save_word_encoder
from comfyui_strata.training.rendering.captions import caption, summary
from comfyui_strata.training.rendering.staging import stage
from comfyui_strata.training.word_codes import known_words


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "words.safetensors"
    save_word_encoder(path, known_words())
    return path


def test_every_caption_is_known_and_fits(file):
    facts = [stage(seed, framing).facts for seed in range(100) for framing in ("wide", "close")]
    rows = encode_words(file, [words for fact in facts for words in (caption(fact), summary(fact))])
    assert rows.shape == (400, LENGTH, 4096) and torch.isfinite(rows).all()
    encode_words(file, [stream.prompt for stream in UNITY.streams if stream.prompt])


def test_a_word_is_told_by_its_neighbours_and_its_place(file):
    red, blue = encode_words(file, ["a red ball and a blue box", "a blue ball and a red box"])
    assert not torch.equal(red[2], blue[2])  # "ball", beside red or blue
    assert torch.equal(red[3, 256:768], blue[3, 256:768])  # "and" itself with "ball" before it
    first, second = encode_words(file, ["ball", "a ball"])
    assert not torch.equal(first[0], second[1])


def test_a_text_ends_where_it_ends(file):
    said, same, nothing, negative = encode_words(file, ["A red ball.", "a RED, ball", "", WAN_NEGATIVE_PROMPT])
    assert torch.equal(said, same) and said.any(1).sum() == 4 and not torch.equal(said[3], nothing[0])
    assert nothing.any(1).tolist() == [True] + [False] * (LENGTH - 1) and torch.equal(nothing, negative)
    long = encode_words(file, ["ball " * 500])[0]
    assert long.any(1).all() and not torch.equal(long[-1], long[-2])  # its end is kept


def test_it_stands_in_for_umt5(file):
    rows = encode_prompts(file, ["a red ball", ""], dtype=torch.bfloat16)
    assert rows.dtype == torch.bfloat16 and rows.shape == (2, LENGTH, 4096)
    found = detect(file)
    assert found.kind == "text encoder" and f"{len(known_words())} words" in found.line


def test_a_strange_word_is_named(file):
    with pytest.raises(ValueError, match="The word 'boll' is not among .* try ball"):
        encode_words(file, ["a red boll"])

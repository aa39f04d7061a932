"""Published checkpoints split into a backbone and its layers, and every checkpoint that is refused."""

import errno
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfyui_strata.cli import main
from comfyui_strata.joint.families import UNITY, VIGU
from comfyui_strata.model_loaders.backbone import load_backbone
from comfyui_strata.model_loaders.convert import convert
from comfyui_strata.model_loaders.detect import detect
from comfyui_strata.model_loaders.layer_files import load_layers, stored_prompts
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.model_loaders.safetensors_file import read_header
from comfyui_strata.model_loaders.text import encode_prompts
from comfyui_strata.model_loaders.vocabulary import make_word_vocabulary
from comfyui_strata.tests.tiny_files import tiny_sentencepiece, write_tiny_umt5
from comfyui_strata.tests.tiny_wan import (
    tiny_config,
    tiny_vocabulary,
    write_tiny_backbone,
    write_tiny_checkpoint,
    write_tiny_layers,
)

SUFFIX = {UNITY: ".safetensors", VIGU: ".pth"}
FAMILY = pytest.mark.parametrize("family", SUFFIX, ids=lambda family: family.name)


def small(family):
    """A backbone whose prompts are as wide as the tiny text encoder's."""
    return replace(tiny_config(family), text_dim=64)


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tiny_vocabulary())
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return lambda family: write_tiny_checkpoint(tmp_path / ("published" + SUFFIX[family]), family, small(family))


def edit_pickle(path: Path, edit) -> Path:
    """Rewrite a .pth after `edit(what it holds)`."""
    held = torch.load(path, weights_only=True)
    edit(held)
    torch.save(held, path)
    return path


def refusal(path: Path, out: Path, **how) -> str:
    """The one sentence with which a checkpoint is refused; nothing is left in `out`."""
    with pytest.raises((ValueError, OSError)) as caught:
        convert(path, out, **how)
    sentence = str(caught.value)
    assert re.fullmatch(r"(?!.*[.!?] [A-Z])[^\n]+\.", sentence), sentence
    assert not out.exists() or not list(out.iterdir())
    return sentence


class TestSplitting:
    @FAMILY
    def test_both_halves_are_the_checkpoints_own_numbers(self, checkpoint, tokenizer, tmp_path, family):
        made = convert(checkpoint(family), tmp_path / "out", tokenizer=tokenizer)
        assert {kind: path.name for kind, path in made.items()} == {
            "backbone": "published.wan.safetensors", "layers": "published.layers.safetensors"}
        # The checkpoint is made of what these two write, under names that are spelled out there.
        backbone = write_tiny_backbone(tmp_path / "b.safetensors", small(family), dtype=torch.float32)
        layers = write_tiny_layers(tmp_path / "l.safetensors", family, small(family), dtype=torch.float32)
        for ours, expected in ((made["backbone"], load_file(backbone)), (made["layers"], load_file(layers))):
            tensors = load_file(ours)
            assert tensors.keys() == expected.keys()
            for key, value in expected.items():
                assert torch.equal(tensors[key], value) and tensors[key].dtype == value.dtype, key
        assert read_header(made["layers"]).metadata == read_header(layers).metadata == {"family": family.name}
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in made.values())

    @FAMILY
    def test_what_is_written_is_a_model(self, checkpoint, tokenizer, tmp_path, family):
        convert(checkpoint(family), tmp_path / "out", tokenizer=tokenizer, name="ours")
        found = find_models(str(tmp_path / "out"), family, vae="any")
        assert load_backbone(found.backbone).config == small(family)
        loaded = load_layers(found.adapters)
        assert loaded.family is family and (loaded.vocabulary is not None) == (family is VIGU)
        assert found.backbone.name == "ours.wan.safetensors"

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_dtype(self, checkpoint, tokenizer, tmp_path, dtype):
        made = convert(checkpoint(VIGU), tmp_path / "out", tokenizer=tokenizer, dtype=dtype)
        kept = convert(checkpoint(VIGU), tmp_path / "kept", tokenizer=tokenizer)
        for kind in ("backbone", "layers"):
            tensors, raw = load_file(made[kind]), load_file(kept[kind])
            for key, value in raw.items():
                expected = value if value.dtype == torch.uint8 else value.to(dtype)
                assert tensors[key].dtype == expected.dtype and torch.equal(tensors[key], expected), key

    def test_a_folder_of_shards(self, checkpoint, tmp_path):
        whole = load_file(checkpoint(UNITY))
        shards = tmp_path / "two shards"
        shards.mkdir()
        for i in range(2):
            save_file({key: whole[key] for key in sorted(whole)[i::2]}, shards / f"model-{i}.safetensors")
        made = convert(shards, tmp_path / "out")
        assert made["backbone"].name == "two shards.wan.safetensors"
        assert len(load_file(made["backbone"])) + len(load_file(made["layers"])) == len(whole)

    def test_what_a_training_left_beside_the_weights(self, checkpoint, tokenizer, tmp_path):
        path = checkpoint(VIGU)
        plain = convert(path, tmp_path / "plain", tokenizer=tokenizer)
        edit_pickle(path, lambda held: held.update(optimizer={"state": {0: {"exp_avg": torch.ones(3)}}}, step=7))
        beside = convert(path, tmp_path / "beside", tokenizer=tokenizer)
        bare = edit_pickle(path, lambda held: [held.update(held.pop("model")), held.pop("optimizer"), held.pop("step")])
        bare = convert(bare, tmp_path / "bare", tokenizer=tokenizer)
        for kind in plain:
            assert plain[kind].read_bytes() == beside[kind].read_bytes() == bare[kind].read_bytes()

    def test_parameters_are_tensors(self, checkpoint, tokenizer, tmp_path):
        path = edit_pickle(checkpoint(VIGU), lambda held: held["model"].update(
            {key: torch.nn.Parameter(value) for key, value in held["model"].items()}))
        assert load_file(convert(path, tmp_path / "out", tokenizer=tokenizer)["layers"])["vocab_embed.weight"].any()

    @pytest.mark.parametrize("family", ["unityvideo", "univigu"])
    def test_what_the_authors_code_saved(self, tmp_path, family):
        weights = Path(__file__).parent / "fixtures" / family / "tiny_weights.safetensors"
        words = tmp_path / "tokenizer.json"
        words.write_bytes(make_word_vocabulary(f"word{i}" for i in range(92)))
        made = convert(weights, tmp_path / "out", tokenizer=words)
        load_backbone(made["backbone"])
        load_layers(made["layers"])
        raw = load_file(weights)
        written = load_file(made["backbone"]) | load_file(made["layers"])
        sums = [sorted(float(value.double().sum()) for key, value in tensors.items()
                       if not key.endswith(("inv_freq", "tokenizer_json"))) for tensors in (raw, written)]
        assert sums[0] == sums[1]

    def test_a_whole_file_as_the_library_writes_it(self, checkpoint, tmp_path):
        made = convert(checkpoint(UNITY), tmp_path / "out", dtype=torch.bfloat16)
        with made["backbone"].open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        assert length % 8 == 0  # so that the tensors start where the widest dtype may
        other = tmp_path / "other"
        other.touch()
        assert made["backbone"].stat().st_mode == other.stat().st_mode


class TestPrompts:
    def test_the_fixed_prompts_are_embedded(self, checkpoint, tmp_path):
        encoder = write_tiny_umt5(tmp_path / "umt5.safetensors")
        made = convert(checkpoint(UNITY), tmp_path / "out", text_encoder=encoder)
        stored = stored_prompts(made["layers"])
        wanted = {"": ""} | {stream.name: stream.prompt for stream in UNITY.streams[1:]}
        rows = encode_prompts(encoder, list(wanted.values())).float()
        assert stored.keys() == wanted.keys() and made["prompts"].parent == made["layers"].parent
        assert all(torch.equal(stored[name][0], row) for name, row in zip(wanted, rows))

    def test_a_family_that_embeds_otherwise(self, tmp_path):
        """Uni-ViGU's padding is not zero, and its tokenizer lies in the text encoder."""
        encoder = write_tiny_umt5(tmp_path / "umt5.safetensors")
        path = write_tiny_checkpoint(tmp_path / "v.pth", VIGU, small(VIGU), vocabulary=tiny_sentencepiece())
        made = convert(path, tmp_path / "out", text_encoder=encoder)
        stored = stored_prompts(made["layers"])
        assert stored.keys() == {""} and stored[""].any(dim=-1).all()
        assert torch.equal(stored[""], encode_prompts(encoder, [""], **asdict(VIGU.text)).float())
        assert "spiece_model" in load_file(made["layers"]) and load_layers(made["layers"]).vocabulary.size > 300

    def test_an_encoder_of_another_width(self, checkpoint, tmp_path):
        encoder = write_tiny_umt5(tmp_path / "umt5.safetensors", d_model=32)
        assert "'umt5.safetensors' gives 32 numbers a token and the backbone takes 64" in refusal(
            checkpoint(UNITY), tmp_path / "out", text_encoder=encoder)


class TestRefusals:
    def test_another_file(self, tmp_path):
        out = tmp_path / "out"
        assert "is no whole checkpoint of UnityVideo or Uni-ViGU: it is Wan backbone" in refusal(
            write_tiny_backbone(tmp_path / "b.safetensors"), out)
        assert "it is layers of the unity family" in refusal(write_tiny_layers(tmp_path / "l.safetensors", UNITY), out)
        torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "x.pth")
        assert "it is no file that Strata knows" in refusal(tmp_path / "x.pth", out)
        torch.save({"model": {"step": 3}}, tmp_path / "y.pth")
        assert "'y.pth' holds no tensors by name" in refusal(tmp_path / "y.pth", out)
        for i, held in enumerate(([torch.zeros(1)], {"model": torch.zeros(1)}, torch.zeros(1))):
            torch.save(held, tmp_path / f"{i}.pth")
            assert f"'{i}.pth' holds no tensors by name" in refusal(tmp_path / f"{i}.pth", out)
        (tmp_path / "empty").mkdir()
        assert "no .safetensors file in the folder" in refusal(tmp_path / "empty", out)
        assert "no file" in refusal(tmp_path / "nowhere.pth", out)

    def test_objects_in_a_pickle_are_never_made(self, checkpoint, tmp_path):
        class Config:
            def __reduce__(self):
                return Path.touch, (tmp_path / "ran",)

        path = checkpoint(VIGU)
        held = torch.load(path, weights_only=True)
        torch.save(held | {"config": Config()}, path)
        assert "'published.pth' holds Python objects beside its tensors, and opening those could run code" in refusal(
            path, tmp_path / "out")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("keep", [0.9, 0.3, 0.0001, 0])
    def test_a_truncated_pickle(self, checkpoint, tmp_path, keep):
        path = checkpoint(VIGU)
        path.write_bytes(path.read_bytes()[:int(path.stat().st_size * keep)])
        assert "'published.pth' cannot be opened as a PyTorch file" in refusal(path, tmp_path / "out")

    def test_a_pickle_of_the_old_format(self, tmp_path):
        torch.save({"a": torch.zeros(1)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        assert "cannot be opened as a PyTorch file" in refusal(tmp_path / "old.pth", tmp_path / "out")

    def test_a_pickle_under_the_name_of_safetensors(self, checkpoint, tmp_path):
        path = checkpoint(VIGU).rename(tmp_path / "x.safetensors")
        assert "'x.safetensors' is a pickle" in refusal(path, tmp_path / "out")

    def test_a_truncated_safetensors(self, checkpoint, tmp_path):
        path = checkpoint(UNITY)
        path.write_bytes(path.read_bytes()[:5000])
        assert "is truncated" in refusal(path, tmp_path / "out")

    @pytest.mark.parametrize(("key", "sentence"), [
        ("base.blocks.1.ffn.0.bias", "lacks 1 tensors of its backbone (blocks.1.ffn.0.bias)"),
        ("flow_in.bias", "lacks 1 of the 12 tensors of the unity family (flow_in.bias)"),
        ("base.head.head.weight", "the tensor 'head.head.weight' is missing"),
    ])
    def test_a_missing_tensor(self, checkpoint, tmp_path, key, sentence):
        path = checkpoint(UNITY)
        tensors = load_file(path)
        del tensors[key]
        save_file(tensors, path)
        assert sentence in refusal(path, tmp_path / "out")

    def test_a_folder_of_two_checkpoints(self, tmp_path):
        (tmp_path / "both").mkdir()
        for name in ("ema", "raw"):
            write_tiny_checkpoint(tmp_path / "both" / f"{name}.safetensors", UNITY, small(UNITY))
        assert "'both' holds more than one checkpoint, as base.blocks.0.cross_attn.k.bias is in several" in refusal(
            tmp_path / "both", tmp_path / "out")

    def test_a_header_that_lies(self, checkpoint, tmp_path):
        path = checkpoint(UNITY)
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        path.write_bytes(data[:8] + data[8:8 + length].replace(b'"F32"', b'"I64"', 1) + data[8 + length:])
        assert "cannot be read as safetensors" in refusal(path, tmp_path / "out")

    def test_tensors_that_are_neithers(self, checkpoint, tmp_path):
        path = checkpoint(UNITY)
        save_file(load_file(path) | {"base.img_emb.proj.0.bias": torch.zeros(1)}, path)
        assert "is not Wan text-to-video: it has 1 more tensors (img_emb.proj.0" in refusal(path, tmp_path / "out")

    def test_a_tensor_that_is_there_twice(self, checkpoint, tokenizer, tmp_path):
        path = edit_pickle(checkpoint(VIGU), lambda held: held["model"].update(
            {"patch_embedding._orig_mod.bias": torch.zeros(128)}))
        assert "holds tensors of its backbone twice" in refusal(path, tmp_path / "out", tokenizer=tokenizer)

    def test_halves_of_different_models(self, checkpoint, tmp_path):
        path = checkpoint(UNITY)
        wide = write_tiny_layers(tmp_path / "wide.safetensors", UNITY, replace(small(UNITY), dim=256, num_heads=2))
        save_file(load_file(path) | load_file(wide), path)
        assert "its layers are for width 256, its backbone is 2 blocks of width 128" in refusal(path, tmp_path / "out")

    @pytest.mark.parametrize("value", [float("nan"), float("-inf")])
    def test_values_that_are_not_finite(self, checkpoint, tokenizer, tmp_path, value):
        path = edit_pickle(checkpoint(VIGU), lambda held: next(iter(held["model"].values())).view(-1)[0].fill_(value))
        assert "values that are not finite" in refusal(path, tmp_path / "out", tokenizer=tokenizer)

    def test_values_too_large_for_a_dtype(self, checkpoint, tmp_path):
        path = checkpoint(UNITY)
        tensors = load_file(path)
        tensors["flow_in.weight"][0, 0] = 1e6
        save_file(tensors, path)
        assert "values too large for fp16 (first in 'flow_in.weight'): use --dtype bf16" in refusal(
            path, tmp_path / "out", dtype=torch.float16)
        convert(path, tmp_path / "out", dtype=torch.bfloat16)

    def test_whole_numbers_are_no_weights(self, checkpoint, tmp_path):
        path = checkpoint(UNITY)
        tensors = load_file(path)
        save_file(tensors | {"flow_in.bias": tensors["flow_in.bias"].to(torch.int32)}, path)
        assert "holds flow_in.bias as I32, which is no dtype of weights" in refusal(path, tmp_path / "out")

    def test_no_tokenizer_or_another_models(self, checkpoint, tokenizer, tmp_path):
        path, out = checkpoint(VIGU), tmp_path / "out"
        assert "makes text of 18 tokens and says nothing of their words: add --tokenizer PATH" in refusal(path, out)
        tokenizer.write_bytes(make_word_vocabulary(["one"]))
        assert "has 6 tokens, but the model's text is made of 18" in refusal(path, out, tokenizer=tokenizer)
        assert "There is no vocabulary at" in refusal(path, out, tokenizer=tmp_path / "nowhere")


class TestDisk:
    def test_a_file_that_may_not_grow(self, checkpoint, tokenizer, tmp_path):
        resource = pytest.importorskip("resource")
        path, out = checkpoint(VIGU), tmp_path / "out"
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            assert "Could not write" in refusal(path, out, tokenizer=tokenizer)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def test_a_disk_that_fills_at_the_very_end(self, checkpoint, tokenizer, tmp_path):
        path, written = checkpoint(VIGU), []

        def fill(done: int, whole: int) -> None:
            written.append(done)
            if sum(written) == whole:
                raise OSError(errno.ENOSPC, "No space left on device")

        assert "published.layers.safetensors: No space left on device; free some space" in refusal(
            path, tmp_path / "out", tokenizer=tokenizer, on_bytes=fill)

    def test_an_interrupt(self, checkpoint, tmp_path):
        def stop(done: int, whole: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            convert(checkpoint(UNITY), tmp_path / "out", on_bytes=stop)
        assert list((tmp_path / "out").iterdir()) == []

    def test_all_bytes_are_counted(self, checkpoint, tmp_path):
        told = []
        made = convert(checkpoint(UNITY), tmp_path / "out", on_bytes=lambda done, whole: told.append((done, whole)))
        tensors = [value for path in made.values() for value in load_file(path).values()]
        assert len(told) == len(tensors) and {whole for _, whole in told} == {sum(done for done, _ in told)}
        assert sum(done for done, _ in told) == sum(value.nbytes for value in tensors)


class TestCommand:
    def test_convert(self, checkpoint, tokenizer, tmp_path, capsys):
        out = tmp_path / "out"
        assert main(["convert", str(checkpoint(VIGU)), "--out", str(out), "--tokenizer", str(tokenizer), "--name", "v",
                     "--dtype", "bf16"]) == 0
        said = capsys.readouterr()
        assert said.out == f"backbone\t{out / 'v.wan.safetensors'}\nlayers\t{out / 'v.layers.safetensors'}\n"
        assert load_file(out / "v.wan.safetensors")["head.head.bias"].dtype == torch.bfloat16
        assert main(["models", str(out / "v.wan.safetensors"), str(out / "v.layers.safetensors")]) == 0
        assert "layers of the vigu family, text of 18 tokens" in capsys.readouterr().out

    def test_what_is_wrong_costs_one_sentence(self, checkpoint, tmp_path, capsys):
        assert main(["convert", str(checkpoint(VIGU)), "--out", str(tmp_path / "out")]) == 1
        assert capsys.readouterr().err.startswith("strata: 'published.pth' makes text of 18 tokens")

    def test_models_says_what_a_pickle_is(self, checkpoint, tmp_path, capsys):
        path = checkpoint(VIGU)
        assert main(["models", str(path)]) == 0
        assert "whole checkpoint of the vigu family, text of 18 tokens" in capsys.readouterr().out
        path.write_bytes(b"PK junk")
        assert main(["models", str(path)]) == 1
        assert "'published.pth' cannot be opened as a PyTorch file" in capsys.readouterr().out
        assert detect(checkpoint(UNITY)).kind == "checkpoint"

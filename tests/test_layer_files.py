"""Layer files of every kind, and the prompts beside them: what is read from them, and every reason to refuse one."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from comfyui_strata.joint.experts import empty_experts
from comfyui_strata.joint.families import ALPHA, FAMILIES, INTRINSIC, UNITY, VIGU, vary, with_size
from comfyui_strata.joint.variants import Variant
from comfyui_strata.joint.wan import WanConfig, empty_wan
from comfyui_strata.model_loaders.backbone import load_backbone
from comfyui_strata.model_loaders.detect import detect
from comfyui_strata.model_loaders.layer_files import (
    check_fits,
    load_layers,
    prompts_path,
    save_prompts,
    stored_prompts,
)
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.model_loaders.safetensors_file import read_header
from comfyui_strata.model_loaders.vocabulary import make_word_vocabulary, vocabulary_tensor
from comfyui_strata.tests.tiny_files import write_tiny_vae, write_tiny_wan22_vae
from comfyui_strata.tests.tiny_wan import (
    tiny_config,
    write_tiny_adapters,
    write_tiny_backbone,
    write_tiny_checkpoint,
    write_tiny_layers,
)

PER_STREAM = vary(UNITY, Variant(modulation="per_stream", condition_time="own"))
# Own parts by their published names, and where they have to land; written out so as not to trust the table.
LANDS = {
    UNITY: {
        "flow_patch_embedding.bias": lambda e: e.embedding["layer"].patch_embedding.bias,
        "flow_in.weight": lambda e: e.embedding["layer"].linear.weight,
        "modality_embeddings.raft": lambda e: e.identity["flow"],
        "modality_embeddings.densepose": lambda e: e.identity["densepose"],
        "flow_head.head.weight": lambda e: e.head["layer"].head.weight,
        "flow_head.modulation": lambda e: e.head["layer"].modulation,
    },
    VIGU: {
        "vocab_embed.weight": lambda e: e.embedding["text"].weight,
        "time_embedding_t.time_embedder.linear_2.bias": lambda e: e.time["text"].time_embedding[2].bias,
        "time_embedding_t.time_proj.weight": lambda e: e.time["text"].time_projection[1].weight,
        "blocks.0.ffn_t.net.0.proj.weight": lambda e: e.ffn["text"][0][0].weight,
        "blocks.1.ffn_t.net.2.bias": lambda e: e.ffn["text"][1][2].bias,
        "text_head.norm_final.weight": lambda e: e.head["text"].norm.weight,
        "text_head.linear.bias": lambda e: e.head["text"].head.bias,
        "scale_shift_table_t": lambda e: e.head["text"].modulation,
    },
}


def change(path: Path, edit, metadata: dict | None = None) -> Path:
    """Rewrite a file after `edit(tensors)`, with its own metadata or others."""
    kept = read_header(path).metadata if metadata is None else metadata
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, kept or None)
    return path


def refusal(path: Path, **how) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(ValueError) as caught:
        load_layers(path, **how)
    sentence = str(caught.value)
    assert re.fullmatch(r"(?!.*[.!?] [A-Z])[^\n]+\.", sentence), sentence
    return sentence


@pytest.fixture
def unity(tmp_path) -> Path:
    return write_tiny_layers(tmp_path / "unity.safetensors", UNITY)


@pytest.fixture
def vigu(tmp_path) -> Path:
    return write_tiny_layers(tmp_path / "vigu.safetensors", VIGU)


class TestOwnParts:
    @pytest.mark.parametrize("family", LANDS, ids=lambda family: family.name)
    def test_every_tensor_lands_where_its_name_says(self, tmp_path, family):
        path = write_tiny_layers(tmp_path / "x.safetensors", family)
        raw, loaded = load_file(path), load_layers(path, family=family)
        assert loaded.family is family and (loaded.bank, loaded.rank, loaded.warnings) == (None, None, ())
        for key, part in LANDS[family].items():
            assert torch.equal(part(loaded.experts), raw[key]), key
        vocabulary = sum(key in ("spiece_model", "tokenizer_json") for key in raw)
        assert len(loaded.experts.state_dict()) == len(raw) - vocabulary
        assert not any(value.requires_grad for value in loaded.experts.parameters())

    def test_a_dtype_is_that_of_all(self, vigu):
        experts = load_layers(vigu, dtype=torch.bfloat16).experts
        assert {value.dtype for value in experts.parameters()} == {torch.bfloat16}
        assert torch.equal(experts.head["text"].modulation, load_file(vigu)["scale_shift_table_t"].bfloat16())

    @pytest.mark.parametrize("family", [UNITY, VIGU], ids=lambda family: family.name)
    def test_the_hosts_own_layers(self, tmp_path, family):
        class Ops:
            Linear = type("Linear", (nn.Linear,), {})
            Conv3d = type("Conv3d", (nn.Conv3d,), {})
            Embedding = type("Embedding", (nn.Embedding,), {})
            LayerNorm = type("LayerNorm", (nn.LayerNorm,), {})

        experts = load_layers(write_tiny_layers(tmp_path / "x.safetensors", family), ops=Ops).experts
        leaves = [module for module in experts.modules() if module._parameters and "weight" in module._parameters]
        assert leaves and {type(module) for module in leaves} <= set(vars(Ops).values())

    def test_the_vocabulary_of_a_text(self, vigu, unity):
        loaded = load_layers(vigu)
        assert loaded.vocabulary.size == loaded.experts.vocabulary == 18
        assert loaded.vocabulary.decode(loaded.vocabulary.encode("a red ball on the table", 16)) == \
            "a red ball on the table"
        assert load_layers(unity).vocabulary is None

    def test_adapters(self, tmp_path):
        path = write_tiny_adapters(tmp_path / "a.safetensors", ALPHA, rank=3, alive=True, note="Read this.")
        loaded = load_layers(path)
        assert (loaded.family, loaded.rank, loaded.experts, loaded.vocabulary) == (ALPHA, 3, None, None)
        assert loaded.bank.rows == (1, 2, 3) and loaded.warnings[-1] == "Read this." and len(loaded.warnings) == 5

    def test_a_note_reaches_the_user(self, tmp_path):
        path = write_tiny_layers(tmp_path / "x.safetensors", UNITY, note="Read this.")
        assert load_layers(path).warnings == ("Read this.",)

    def test_a_variant_travels_with_its_file(self, tmp_path):
        path = write_tiny_layers(tmp_path / "x.safetensors", PER_STREAM)
        loaded = load_layers(path, family=UNITY)
        assert loaded.family == detect(path).family == PER_STREAM
        assert torch.equal(loaded.experts.modulation["flow"], load_file(path)["modality_modulations.flow"])
        assert set(loaded.experts.modulation) == set(UNITY.layers)

    def test_modulations_are_there_exactly_when_the_variant_says_so(self, tmp_path, unity):
        path = write_tiny_layers(tmp_path / "x.safetensors", PER_STREAM)
        change(path, lambda tensors: None, {})
        assert "holds 6 tensors that the unity family does not have (modality_modulations.densepose" in refusal(path)
        metadata = read_header(write_tiny_layers(tmp_path / "y.safetensors", PER_STREAM)).metadata
        change(unity, lambda tensors: None, metadata)
        assert "lacks 6 of the 18 tensors of the unity family with condition_time = own, modulation = per_stream " \
               "(modality_modulations.densepose" in refusal(unity)

    def test_metadata_are_not_needed(self, unity, vigu):
        for path, family in ((unity, UNITY), (vigu, VIGU)):
            assert load_layers(change(path, lambda tensors: None, {})).family is family

    def test_the_size_that_it_was_trained_at(self, tmp_path):
        for family, write in ((ALPHA, write_tiny_adapters), (vary(UNITY, PER_STREAM.variant), write_tiny_layers)):
            small = with_size(family, 9, 64, 96)
            path = write(tmp_path / f"{family.name}.safetensors", small)
            assert load_layers(path).family == detect(path).family == small
            change(path, lambda tensors: None, read_header(path).metadata | {"size": "9x64"})
            assert "says that it was trained on clips of 9x64, but FRAMESxHEIGHTxWIDTH" in refusal(path)


class TestRefusals:
    def test_the_wrong_family(self, unity, vigu, tmp_path):
        assert "'unity.safetensors' belongs to the unity family, but the vigu family is asked for" in refusal(
            unity, family=VIGU)
        adapters = write_tiny_adapters(tmp_path / "a.safetensors", ALPHA)
        assert "belongs to the alpha family" in refusal(adapters, family=UNITY)
        assert "says it is the unity family, but holds parts of the vigu family" in refusal(
            change(vigu, lambda tensors: None, {"family": "unity"}))

    @pytest.mark.parametrize(("variant", "sentence"), [
        ('{"gating": "always"}', "cannot be run: The unity family has no gating to choose; its choices are"),
        ('{"modulation": "loud"}', "cannot be run: A variant's modulation is one of shared, per_stream"),
        ("[]", "gives its variant as [], but this Strata knows a JSON object of"),
    ])
    def test_an_unknown_variant(self, unity, variant, sentence):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            load_layers(change(unity, lambda tensors: None, {"family": "unity", "variant": variant}))

    def test_no_text_head(self, vigu):
        change(vigu, lambda tensors: [tensors.pop(key) for key in list(tensors) if key.startswith("text_head.")])
        assert "lacks 3 of the 19 tensors of the vigu family (text_head.linear.bias, text_head.linear.weight, " \
               "text_head.norm_final.weight): download it again" in refusal(vigu)

    def test_missing_tensors(self, unity, vigu):
        for key in ("flow_in.bias", "flow_patch_embedding.weight", "modality_embeddings.raft"):
            kept = load_file(unity)
            assert f"lacks 1 of the 12 tensors of the unity family ({key})" in refusal(
                change(unity, lambda tensors, key=key: tensors.pop(key)))
            save_file(kept, unity)
        assert "(blocks.0.ffn_t.net.2.bias)" in refusal(
            change(vigu, lambda tensors: tensors.pop("blocks.0.ffn_t.net.2.bias")))

    def test_a_block_too_few(self, vigu):
        change(vigu, lambda tensors: tensors.update({"blocks.3.ffn_t.net.2.bias": torch.zeros(128)}))
        assert "lacks 7 of the 27 tensors" in refusal(vigu)

    @pytest.mark.parametrize("key", ["modality_embeddings.normal", "other.weight", "patch_embedding.weight",
                                     "spiece_model"])
    def test_extra_tensors(self, unity, key):
        change(unity, lambda tensors: tensors.update({key: torch.zeros(128)}))
        assert f"holds 1 tensors that the unity family does not have ({key}): this is another model's file" in refusal(
            unity)

    @pytest.mark.parametrize(("key", "shape"), [
        ("flow_head.head.weight", (64, 128)), ("flow_in.weight", (128, 64)), ("modality_embeddings.depth", (1, 128)),
        ("flow_patch_embedding.weight", (128,)),
    ])
    def test_shapes_that_do_not_fit_together(self, unity, key, shape):
        change(unity, lambda tensors: tensors.update({key: torch.zeros(shape)}))
        assert "'unity.safetensors' does not fit together" in refusal(unity)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite(self, vigu, value):
        change(vigu, lambda tensors: tensors["vocab_embed.weight"].__setitem__((3, 5), value))
        assert "values that are not finite (first in 'vocab_embed.weight')" in refusal(vigu)

    @pytest.mark.parametrize("keep", [0.999, 0.4, 0.001])
    def test_truncated(self, vigu, keep):
        vigu.write_bytes(vigu.read_bytes()[:int(vigu.stat().st_size * keep)])
        assert "is truncated" in refusal(vigu)

    def test_no_vocabulary(self, vigu):
        change(vigu, lambda tensors: tensors.pop("tokenizer_json"))
        assert "carries no vocabulary for its 18 tokens: make it again by 'strata convert CHECKPOINT --out DIR " \
               "--tokenizer PATH'" in refusal(vigu)

    def test_a_vocabulary_of_another_size(self, vigu):
        change(vigu, lambda tensors: tensors.update(vocabulary_tensor(make_word_vocabulary(["one", "two"]))))
        assert "has 7 tokens, but the model's text is made of 18" in refusal(vigu)

    def test_other_files(self, tmp_path):
        assert "'b.safetensors' holds no layers: it is Wan backbone" in refusal(
            write_tiny_backbone(tmp_path / "b.safetensors"))
        assert "'c.safetensors' holds no layers: it is whole checkpoint of the unity family" in refusal(
            write_tiny_checkpoint(tmp_path / "c.safetensors", UNITY))
        assert "'strata convert' splits it" in refusal(write_tiny_checkpoint(tmp_path / "c.pth", VIGU))
        with pytest.raises(FileNotFoundError):
            load_layers(tmp_path / "nowhere.safetensors")


    def test_a_whole_checkpoint_is_no_backbone(self, tmp_path):
        with pytest.raises(ValueError, match="no Wan backbone: it is whole checkpoint of the unity .*strata convert"):
            load_backbone(write_tiny_checkpoint(tmp_path / "c.safetensors", UNITY))


class TestFits:
    def test_own_parts_know_their_backbone(self, unity, vigu):
        check_fits(load_layers(vigu), 2, 128, 256)
        check_fits(load_layers(unity), 2, 128, 256)
        check_fits(load_layers(unity), 30, 128, 14336)  # the parts lie outside of the blocks and say nothing of them
        with pytest.raises(ValueError, match=r"backbone of 2 blocks, width 128, .* has 30 blocks, width 1536, .*"
                                             r"\(vigu: Wan2\.1-T2V-1\.3B\)\.$"):
            check_fits(load_layers(vigu), 30, 1536, 8960)
        with pytest.raises(ValueError, match=r"width 128, but .* width 5120: .*\(unity: Wan2\.2-TI2V-5B\)\.$"):
            check_fits(load_layers(unity), 40, 5120, 13824)

    def test_adapters_name_their_familys_backbone(self, tmp_path):
        loaded = load_layers(write_tiny_adapters(tmp_path / "a.safetensors", INTRINSIC))
        check_fits(loaded, 2, 128, 256)
        with pytest.raises(ValueError, match=r"has 3 blocks, .*\(intrinsic: Wan2\.1-T2V-14B\)\.$"):
            check_fits(loaded, 3, 128, 256)


class TestDetection:
    def test_lines(self, unity, vigu, tmp_path):
        assert detect(unity).kind == detect(vigu).kind == "layers"
        assert detect(unity).line.startswith("layers of the unity family (UnityVideo: rgb with depth")
        assert detect(vigu).line.startswith("layers of the vigu family, text of 18 tokens (Uni-ViGU")
        assert "for a backbone of width 128" in detect(vigu).line
        variant = write_tiny_layers(tmp_path / "x.safetensors", PER_STREAM)
        assert "of the unity family with condition_time = own, modulation = per_stream (" in detect(variant).line

    @pytest.mark.parametrize(("family", "name"), [(UNITY, "c.safetensors"), (VIGU, "c.pth")])
    def test_whole_checkpoints(self, tmp_path, family, name):
        found = detect(write_tiny_checkpoint(tmp_path / name, family))
        assert found.kind == "checkpoint" and found.family is family
        assert f"whole checkpoint of the {family.name} family" in found.line and "strata convert" in found.line
        assert f"{family.latents.channels} latent channels" in found.line

    @pytest.mark.parametrize("family", ["unityvideo", "univigu"])
    def test_what_the_authors_code_saved(self, family):
        weights = Path(__file__).parent / "fixtures" / family / "tiny_weights.safetensors"
        assert detect(weights).kind == "checkpoint"


class TestPrompts:
    def test_every_prompt_comes_back_by_its_name(self, unity):
        assert stored_prompts(unity) == {}
        written = {name: torch.zeros(512, 8) for name in ("", "depth", "flow")}
        for count, rows in enumerate(written.values(), 1):
            rows[:count] = torch.randn(count, 8)
        save_prompts(unity, written)
        stored = stored_prompts(unity)
        assert stored.keys() == written.keys()
        assert all(torch.equal(stored[name], rows[None]) for name, rows in written.items())
        assert set(load_file(prompts_path(unity))) == {"empty_prompt", "prompt.depth", "prompt.flow"}
        assert {len(rows) for rows in load_file(prompts_path(unity)).values()} == {1, 2, 3}
        assert detect(prompts_path(unity)).line == "embedding of the empty prompt, depth, flow, width 8"

    def test_padding_that_is_not_zero_is_kept(self, vigu):
        rows = torch.randn(512, 8)
        save_prompts(vigu, {"": rows})
        assert torch.equal(stored_prompts(vigu)[""], rows[None])

    def test_a_prompt_of_zeros(self, vigu):
        save_prompts(vigu, {"": torch.zeros(512, 8)})
        assert torch.equal(stored_prompts(vigu)[""], torch.zeros(1, 512, 8))

    def test_what_is_stored_stays_beside_what_is_added(self, unity):
        first, second = torch.randn(512, 8), torch.randn(512, 8)
        save_prompts(unity, {"": first, "depth": first})
        save_prompts(unity, {"depth": second})
        stored = stored_prompts(unity)
        assert torch.equal(stored[""][0], first) and torch.equal(stored["depth"][0], second)

    def test_an_encoder_of_fewer_rows(self, unity):
        """A network attends to padding, too: it must be as much as in the training."""
        rows = torch.zeros(64, 8)
        rows[0] = 1
        save_prompts(unity, {"": rows})
        save_prompts(unity, {"depth": rows})
        assert {name: text.shape for name, text in stored_prompts(unity).items()} == dict.fromkeys(
            ("", "depth"), (1, 64, 8))

    def test_the_files_of_before(self, unity):
        save_file({"empty_prompt": torch.ones(1, 8, dtype=torch.float16)}, prompts_path(unity))
        stored = stored_prompts(unity)
        assert list(stored) == [""] and stored[""].dtype == torch.float32
        assert stored[""].shape == (1, 512, 8) and stored[""].sum() == 8

    @pytest.mark.parametrize("shape", [(8,), (513, 8), (0, 8), (1, 512, 8)])
    def test_what_is_no_prompt(self, unity, shape):
        save_file({"empty_prompt": torch.ones(shape)}, prompts_path(unity))
        with pytest.raises(ValueError, match="is no file of prompts: empty_prompt is .* delete it"):
            stored_prompts(unity)

    def test_prompts_that_are_not_finite(self, unity):
        save_file({"prompt.depth": torch.full((2, 8), float("nan"))}, prompts_path(unity))
        with pytest.raises(ValueError, match="unity.empty_prompt.safetensors' holds values that are not finite"):
            stored_prompts(unity)


class TestModelSet:
    @pytest.fixture
    def models(self, tmp_path) -> Path:
        """A folder that holds all there is, as ComfyUI's may."""
        write_tiny_vae(tmp_path / "wan_2.1_vae.safetensors")
        write_tiny_wan22_vae(tmp_path / "wan2.2_vae.safetensors")
        for family in (UNITY, VIGU):
            write_tiny_backbone(tmp_path / f"{family.name}_wan.safetensors", tiny_config(family))
            write_tiny_layers(tmp_path / f"{family.name}_layers.safetensors", family)
        wide = replace(tiny_config(INTRINSIC), dim=256, num_heads=2)
        write_tiny_backbone(tmp_path / "wide_wan.safetensors", wide)
        write_tiny_adapters(tmp_path / "wide_layers.safetensors", INTRINSIC, wide)
        return tmp_path

    @pytest.mark.parametrize(("family", "start", "vae"), [
        (UNITY, "unity", "wan2.2_vae"), (VIGU, "vigu", "wan_2.1_vae"), (INTRINSIC, "wide", "wan_2.1_vae")])
    def test_each_family_gets_its_own(self, models, family, start, vae):
        found = find_models(str(models), family)
        assert [path.stem for path in (found.backbone, found.adapters, found.vae)] == \
            [f"{start}_wan", f"{start}_layers", vae]

    def test_two_that_fit_are_for_the_user_to_choose(self, models):
        write_tiny_backbone(models / "vigu_2.safetensors", tiny_config(VIGU))
        with pytest.raises(ValueError, match=r"2 files that could be the backbone \(vigu_2.*, vigu_wan.*--backbone"):
            find_models(str(models), VIGU)
        write_tiny_layers(models / "vigu_layers_2.safetensors", VIGU)
        with pytest.raises(ValueError, match="2 files that could be the adapters .*--adapters"):
            find_models(str(models), VIGU)

    def test_what_is_not_there_is_named(self, models):
        (models / "unity_layers.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match="holds no adapters of the unity family: say where .*--adapters"):
            find_models(str(models), UNITY)


@pytest.mark.parametrize(("family", "config", "vocabulary", "own", "whole"), [
    (UNITY, WanConfig(3072, 14336, 30, 24, 48, 48), 0, 10_644_672, 5_010_432_384),
    (VIGU, WanConfig(1536, 8960, 30, 12), 256_000, 3_048_678_464 - 1_418_996_800, 3_048_678_464),
], ids=["unity", "vigu"])
def test_the_published_sizes_are_those_of_the_published_files(family, config, vocabulary, own, whole):
    """Counted from the authors' code and their files' bytes: specs/unityvideo.md A1, specs/univigu.md section 2."""
    parts, backbone = (
        sum(value.numel() for value in module.parameters())
        for module in (empty_experts(family, config, vocabulary, device="meta"), empty_wan(config, device="meta")))
    assert (parts, parts + backbone) == (own, whole)


def test_every_family_has_a_layer_file():
    assert set(LANDS) == {family for family in FAMILIES.values() if not family.file_adapters}

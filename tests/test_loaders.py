"""Weight files: what they are, and every reason to refuse one."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from comfyui_strata.joint.families import ALPHA, FAMILIES, INTRINSIC, VIGU
from comfyui_strata.joint.wan import WanConfig
from comfyui_strata.model_loaders import safetensors_file
from comfyui_strata.model_loaders.adapters import load_adapters
from comfyui_strata.model_loaders.backbone import load_backbone
from comfyui_strata.model_loaders.detect import detect
from comfyui_strata.model_loaders.layer_files import check_fits, load_layers, save_prompts, stored_prompts
from comfyui_strata.model_loaders.model_set import BUNDLED, find_models
from comfyui_strata.model_loaders.safetensors_file import read_header, replace_tensors
from comfyui_strata.model_loaders.wan_names import wan_names
from comfyui_strata.tests.tiny_wan import (
    TINY,
    diffusers_name,
    write_tiny_adapters,
    write_tiny_backbone,
    write_tiny_layers,
)

ADAPTED = [family for family in FAMILIES.values() if family.file_adapters]
SMALL = WanConfig(dim=128, ffn_dim=64, num_layers=3, num_heads=1, text_dim=32)


@pytest.fixture
def adapters(tmp_path) -> Path:
    return write_tiny_adapters(tmp_path / "adapters.safetensors", INTRINSIC, SMALL)


@pytest.fixture
def backbone(tmp_path) -> Path:
    return write_tiny_backbone(tmp_path / "wan.safetensors", SMALL)


def change(path: Path, edit) -> Path:
    """Rewrite a file after `edit(tensors)`."""
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    return path


class TestDetection:
    @pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
    def test_a_backbone_under_any_prefix(self, tmp_path, prefix):
        found = detect(write_tiny_backbone(tmp_path / "x.safetensors", SMALL, prefix=prefix))
        assert found.kind == "backbone" and "3 blocks of width 128" in found.line

    @pytest.mark.parametrize("prefix", ["", "dit.", "pipe.dit."])
    @pytest.mark.parametrize("family", ADAPTED, ids=lambda f: f.name)
    def test_adapters_under_any_prefix(self, tmp_path, prefix, family):
        path = write_tiny_adapters(tmp_path / "x.safetensors", family, SMALL, rank=6, prefix=prefix)
        found = detect(path)
        assert found.family is family and "rank 6" in found.line and "3 blocks" in found.line
        assert load_adapters(path).family is family

    def test_diffusers_names(self, backbone):
        names = list(load_file(backbone))
        mapped = wan_names([diffusers_name(name) for name in names])
        assert {diffusers_name(name): name for name in names} == mapped

    def test_the_bundled_files(self):
        kinds = {path.relative_to(BUNDLED["tiny"]).as_posix(): detect(path).kind
                 for path in BUNDLED["tiny"].rglob("*.safetensors")}
        names = {"diffusion_models/strata_tiny.wan": "backbone", "vae/strata_tiny_vae": "vae",
                 "text_encoders/strata_tiny_words": "text encoder"}
        for family in ADAPTED:
            names |= {f"loras/strata_tiny_{family.name}": "adapters",
                      f"loras/strata_tiny_{family.name}.empty_prompt": "prompts"}
        for family in ("unity", "vigu"):
            names |= {f"diffusion_models/strata_tiny_{family}.wan": "backbone",
                      f"loras/strata_tiny_{family}.layers": "layers",
                      f"loras/strata_tiny_{family}.layers.empty_prompt": "prompts"}
        assert kinds == {f"{name}.safetensors": kind for name, kind in names.items()}

    def test_the_bundled_files_are_small(self):
        sizes = [path.stat().st_size for path in BUNDLED["tiny"].rglob("*.safetensors")]
        assert sum(sizes) <= 40 * 2 ** 20

    def test_something_else(self, tmp_path):
        save_file({"lora_unet.weight": torch.zeros(2)}, tmp_path / "x.safetensors")
        assert detect(tmp_path / "x.safetensors").kind == "unknown"


class TestAdapters:
    def test_every_tensor_lands_where_its_name_says(self, adapters):
        raw, bank = load_file(adapters), load_adapters(adapters, dtype=torch.float16).bank
        for b, block in enumerate(bank.blocks):
            for k, name in enumerate(INTRINSIC.file_adapters):
                for j, site in enumerate("qkv"):
                    assert torch.equal(block.qkv_down[k, 4 * j:4 * (j + 1)],
                                       raw[f"blocks.{b}.self_attn.{site}.lora_A.{name}.weight"])
                    assert torch.equal(block.qkv_up[k, j], raw[f"blocks.{b}.self_attn.{site}.lora_B.{name}.weight"])
                assert torch.equal(block.o_down[k], raw[f"blocks.{b}.self_attn.o.lora_A.{name}.weight"])
                assert torch.equal(block.o_up[k], raw[f"blocks.{b}.self_attn.o.lora_B.{name}.weight"])
            for part, site in (("in", 0), ("out", 2)):
                for matrix, way in (("A", "down"), ("B", "up")):
                    assert torch.equal(getattr(block, f"ffn_{part}_{way}"),
                                       raw[f"blocks.{b}.ffn.{site}.lora_{matrix}.normal.weight"])

    def test_fp8_is_read_as_float16(self, adapters):
        raw = load_file(adapters)
        save_file({name: value.to(torch.float8_e4m3fn) for name, value in raw.items()}, adapters)
        bank = load_adapters(adapters).bank
        kept = raw["blocks.0.self_attn.o.lora_A.albedo.weight"].to(torch.float8_e4m3fn).half()
        assert torch.equal(bank.blocks[0].o_down[INTRINSIC.file_adapters.index("albedo")], kept)

    def test_the_alpha_plates_adapter_is_left_out(self, tmp_path):
        bank = load_adapters(write_tiny_adapters(tmp_path / "a.safetensors", ALPHA, SMALL)).bank
        assert bank.rows == (1, 2, 3) and bank.blocks[0].o_up.shape[0] == 3

    def test_wrong_family(self, adapters):
        with pytest.raises(ValueError, match="belongs to the intrinsic family .* but the alpha family is asked for"):
            load_adapters(adapters, family=ALPHA)

    def test_missing_tensors_are_counted_and_named(self, adapters):
        change(adapters, lambda t: t.pop("blocks.1.ffn.0.lora_B.normal.weight"))
        with pytest.raises(ValueError, match=r"lacks 1 of the 144 tensors .*blocks\.1\.ffn\.0\.lora_B\.normal"):
            load_adapters(adapters)

    def test_a_missing_adapter_is_named_with_its_family(self, adapters):
        change(adapters, lambda t: [t.pop(k) for k in list(t) if ".albedo." in k])
        with pytest.raises(ValueError, match=r"lacks 36 .*intrinsic family .*albedo"):
            load_adapters(adapters)

    def test_extra_tensors(self, adapters):
        change(adapters, lambda t: t.update({"blocks.0.cross_attn.q.lora_A.rgb.weight": torch.zeros(4, 128)}))
        with pytest.raises(ValueError, match="holds 1 tensors that the intrinsic family does not have"):
            load_adapters(adapters)

    def test_adapters_of_nobody(self, adapters):
        tensors = {k.rsplit(".", 2)[0] + ".depth.weight": v for k, v in load_file(adapters).items()}
        save_file(tensors, adapters)
        with pytest.raises(ValueError, match="adapters depth, which no family has"):
            load_adapters(adapters)

    def test_shapes_that_do_not_fit_together(self, adapters):
        change(adapters, lambda t: t.update({"blocks.2.self_attn.k.lora_A.rgb.weight": torch.zeros(5, 128)}))
        with pytest.raises(ValueError, match=r"does not fit together: blocks\.2\.self_attn\.k\.lora_A\.rgb"):
            load_adapters(adapters)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite(self, adapters, value):
        change(adapters, lambda t: t["blocks.0.ffn.2.lora_A.rgb.weight"].__setitem__((0, 0), value))
        with pytest.raises(ValueError, match=r"not finite \(first in 'blocks\.0\.ffn\.2\.lora_A\.rgb"):
            load_adapters(adapters)

    def test_a_dead_lora_that_is_alive_is_named(self, tmp_path):
        quiet = load_adapters(write_tiny_adapters(tmp_path / "q.safetensors", ALPHA, SMALL))
        assert quiet.warnings == ()
        loud = load_adapters(write_tiny_adapters(tmp_path / "l.safetensors", ALPHA, SMALL, alive=True)).warnings
        assert [w.split("LoRA of ")[1].split()[0] for w in loud] == ["'com'", "'com'", "'fgr'", "'pha'"]
        assert "attention LoRA of 'com'" in loud[0] and "(12 tensors)" in loud[0]

    def test_a_backbone_is_no_adapter_file(self, backbone):
        with pytest.raises(ValueError, match="holds no layer adapters: it is Wan backbone"):
            load_adapters(backbone)

    def test_adapters_of_another_backbone(self, adapters):
        loaded = load_layers(adapters)
        check_fits(loaded, 3, 128, 64)
        with pytest.raises(ValueError, match="3 blocks, width 128, .* but this model has 40 blocks, width 5120, feed"):
            check_fits(loaded, 40, 5120, 13824)

    @pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
    def test_the_note_of_a_file_reaches_the_user(self, family):
        assert any("lost on other footage" in w for w in load_layers(find_models("tiny", family).adapters).warnings)

    def test_the_empty_prompt_is_stored_beside(self, adapters):
        assert stored_prompts(adapters) == {}
        embedding = torch.zeros(512, 32)
        embedding[0] = torch.randn(32)
        save_prompts(adapters, {"": embedding})
        assert torch.equal(stored_prompts(adapters)[""], embedding[None])
        assert sorted(p.name for p in adapters.parent.iterdir()) == ["adapters.empty_prompt.safetensors",
                                                                      "adapters.safetensors"]


class TestBackbone:
    @pytest.mark.parametrize("names", ["wan", "prefixed", "diffusers", "shards"])
    def test_the_same_weights_under_any_names(self, backbone, names):
        raw = load_file(backbone)
        rename = {"prefixed": lambda k: "model.diffusion_model." + k, "diffusers": diffusers_name}.get(names, str)
        tensors, path = {rename(k): v for k, v in raw.items()}, backbone
        if names == "shards":
            path = backbone.parent / "shards"
            path.mkdir()
            keys = sorted(tensors)
            for i in range(3):
                save_file({k: tensors[k] for k in keys[i::3]}, path / f"model-0000{i}.safetensors")
        else:
            save_file(tensors, backbone)
        model = load_backbone(path, dtype=torch.float32)
        for key, value in model.state_dict().items():
            assert torch.equal(value, raw[key].float()), key
        assert model.config == SMALL

    def test_missing_and_extra_and_wrong_tensors(self, backbone):
        change(backbone, lambda t: t.pop("blocks.1.ffn.0.bias"))
        with pytest.raises(ValueError, match=r"lacks 1 tensors of its backbone \(blocks\.1\.ffn\.0\.bias\)"):
            load_backbone(backbone)
        change(backbone, lambda t: t.update({"blocks.1.ffn.0.bias": torch.zeros(7)}))
        with pytest.raises(ValueError, match=r"blocks\.1\.ffn\.0\.bias is \(7,\) where \(64,\) is needed"):
            load_backbone(backbone)
        extra = {"blocks.1.ffn.0.bias": torch.zeros(64), "img_emb.proj.0.bias": torch.zeros(64)}
        change(backbone, lambda t: t.update(extra))
        with pytest.raises(ValueError, match="is not Wan text-to-video: it has 1 more"):
            load_backbone(backbone)

    def test_a_scaled_quantisation_is_named(self, backbone):
        change(backbone, lambda t: t.update({"blocks.0.ffn.0.scale_weight": torch.ones(1)}))
        with pytest.raises(ValueError, match="quantised with scales"):
            load_backbone(backbone)

    def test_plain_fp8_is_read(self, backbone):
        raw = load_file(backbone)
        save_file({k: v.to(torch.float8_e4m3fn) if k.endswith("ffn.0.weight") else v for k, v in raw.items()}, backbone)
        model = load_backbone(backbone, dtype=torch.float32)
        expected = raw["blocks.0.ffn.0.weight"].to(torch.float8_e4m3fn).float()
        assert torch.equal(model.blocks[0].ffn[0].weight, expected)

    def test_nan(self, backbone):
        change(backbone, lambda t: t["head.head.bias"].fill_(float("nan")))
        with pytest.raises(ValueError, match="not finite"):
            load_backbone(backbone)

    def test_adapters_are_no_backbone(self, adapters):
        with pytest.raises(ValueError, match="is no Wan backbone: it is UniVidX adapters"):
            load_backbone(adapters)


@pytest.mark.parametrize("load", [load_adapters, load_backbone, detect])
class TestDamage:
    def test_missing_file(self, tmp_path, load):
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "nowhere.safetensors")

    @pytest.mark.parametrize("keep", [0.999, 0.5, 0.0001])
    def test_truncated(self, adapters, load, keep):
        data = adapters.read_bytes()
        adapters.write_bytes(data[:int(len(data) * keep)])
        with pytest.raises(ValueError, match="truncated"):
            load(adapters)

    @pytest.mark.parametrize("legacy", [True, False])
    def test_pickle(self, tmp_path, load, legacy):
        path = tmp_path / "x.safetensors"
        torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match="is a pickle"):
            load(path)

    @pytest.mark.parametrize("data", [
        b"", b"x", b"<!DOCTYPE html><html>not found</html>", b"\x10" + 7 * b"\0" + 16 * b"{",
        b"\x02" + 7 * b"\0" + b"[]",
    ])
    def test_no_safetensors_at_all(self, tmp_path, load, data):
        path = tmp_path / "ü x.safetensors"
        path.write_bytes(data)
        with pytest.raises(ValueError, match="no safetensors file"):
            load(path)


class TestModelSet:
    def test_the_bundled_model(self):
        models = find_models("tiny", INTRINSIC)
        assert models.adapters.name == "strata_tiny_intrinsic.safetensors"
        assert models.text_encoder.name == "strata_tiny_words.safetensors"

    def test_a_comfyui_models_folder(self, tmp_path):
        for folder in ("diffusion_models", "loras/video"):
            (tmp_path / folder).mkdir(parents=True)
        wan = write_tiny_backbone(tmp_path / "diffusion_models/wan.safetensors", TINY)
        for family in ADAPTED:
            write_tiny_adapters(tmp_path / f"loras/video/{family.name} x.safetensors", family)
        (tmp_path / "loras/broken.safetensors").write_bytes(b"junk")
        with pytest.raises(FileNotFoundError, match="holds no vae: say where it is with --vae"):
            find_models(str(tmp_path), ALPHA)
        models = find_models(str(tmp_path), ALPHA, vae=str(find_models("tiny", ALPHA).vae))
        assert (models.backbone, models.adapters.name) == (wan, "alpha x.safetensors")
        write_tiny_backbone(tmp_path / "diffusion_models/other.safetensors", TINY)
        with pytest.raises(ValueError, match=r"2 files that could be the backbone \(other.*--backbone"):
            find_models(str(tmp_path), ALPHA, vae="v")

    def test_a_backbone_goes_with_the_layers_of_its_name(self, tmp_path):
        """`strata convert` writes two halves, and ComfyUI wants them in two folders."""
        wan, layers = tmp_path / "diffusion_models", tmp_path / "loras"
        wan.mkdir()
        layers.mkdir()
        for name in ("stock", "a.wan", "b.wan"):
            write_tiny_backbone(wan / f"{name}.safetensors", TINY)
        for name in ("a", "b"):
            write_tiny_layers(layers / f"{name}.layers.safetensors", VIGU)
        write_tiny_adapters(layers / "x.safetensors", ALPHA)
        for given, found in (("a.layers", "a.wan"), ("b.layers", "b.wan")):
            models = find_models(str(tmp_path), VIGU, adapters=str(layers / f"{given}.safetensors"), vae="v")
            assert models.backbone == wan / f"{found}.safetensors"
        assert find_models(str(tmp_path), ALPHA, vae="v").backbone == wan / "stock.safetensors"

    def test_no_such_model(self):
        with pytest.raises(FileNotFoundError, match="no model 'huge'"):
            find_models("huge", INTRINSIC)


class TestWriting:
    def test_a_file_has_the_rights_of_any_other(self, tmp_path):
        other = tmp_path / "other"
        other.touch()
        replace_tensors(tmp_path / "new" / "ours.safetensors", {"x": torch.ones(2, 3).T}, {"a": "b"})
        path = tmp_path / "new" / "ours.safetensors"
        assert path.stat().st_mode == other.stat().st_mode
        assert torch.equal(load_file(path)["x"], torch.ones(3, 2)) and read_header(path).metadata == {"a": "b"}
        assert [file.name for file in path.parent.iterdir()] == ["ours.safetensors"]

    def test_a_disk_that_refuses_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "ours.safetensors"
        replace_tensors(path, {"x": torch.zeros(1)})

        def full(*_):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        monkeypatch.setattr(safetensors_file, "save_file", full)
        with pytest.raises(OSError, match="Could not write .*ours.safetensors: .*No space left on device"):
            replace_tensors(path, {"x": torch.ones(1)})
        assert load_file(path)["x"] == 0 and [file.name for file in tmp_path.iterdir()] == ["ours.safetensors"]

"""The command that makes the bundled models, on recipes of a few steps: what it makes, and what it leaves alone."""

import tomli_w

from comfyui_strata.joint.families import INTRINSIC, VIGU
from comfyui_strata.model_loaders.detect import detect
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.training import tiny_models
from comfyui_strata.training.config import read_config
from comfyui_strata.training.small_vae import Recipe
from comfyui_strata.training.tiny_models import RECIPES, TRAINED, make

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

_SMALL = {"synthetic": 4, "height": 32, "width": 32}


def test_the_recipes_learn_from_what_the_vae_saw():
    for path in sorted(RECIPES.glob("tiny_*.toml")):
        config = read_config(path)
        assert config.data.framing == Recipe().framing and config.data.frames in (1, Recipe().frames)
        assert config.data.synthetic <= (Recipe().stills if config.data.frames == 1 else Recipe().clips)
    assert {path.stem for path in RECIPES.glob("tiny_*.toml")} == {
        f"tiny_{model}_{half}" for model in TRAINED for half in ("stills", "clips")}


def test_it_makes_a_model_and_all_it_needs_and_goes_on_where_it_was(tmp_path, monkeypatch):
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for name in ("backbone", "vigu", "intrinsic"):
        for half in ("stills", "clips"):
            _cut_down(recipes, f"tiny_{name}_{half}.toml")
    monkeypatch.setattr(tiny_models, "RECIPES", recipes)
    monkeypatch.setattr(tiny_models, "Recipe", lambda: Recipe(
        width=4, stills=4, clips=4, still_steps=1, clip_steps=1, still_batch=1, clip_batch=1, frames=5, size=32))
    monkeypatch.setattr(tiny_models.shutil, "which", lambda name: None)  # to compile costs minutes

    small = tmp_path / "small"
    make(small, "intrinsic", cpu=True)
    bundle = small / "bundle"
    assert {path.relative_to(bundle).as_posix() for path in bundle.rglob("*.*")} == {
        "vae/strata_tiny_vae.safetensors", "text_encoders/strata_tiny_words.safetensors",
        "diffusion_models/strata_tiny.wan.safetensors", "loras/strata_tiny_intrinsic.safetensors",
        "loras/strata_tiny_intrinsic.empty_prompt.safetensors"}
    found = find_models(str(bundle), INTRINSIC)
    assert found.text_encoder == bundle / "text_encoders" / "strata_tiny_words.safetensors"
    assert found.backbone == bundle / "diffusion_models" / "strata_tiny.wan.safetensors"
    times = {path: path.stat().st_mtime_ns for path in small.glob("*/*.safetensors")}
    make(small, "vigu", cpu=True)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    theirs = find_models(str(bundle), VIGU)
    assert theirs.backbone == bundle / "diffusion_models" / "strata_tiny_vigu.wan.safetensors"
    assert theirs.vae == found.vae and detect(theirs.adapters).family.name == "vigu"
    assert find_models(str(bundle), INTRINSIC).backbone == found.backbone


def _cut_down(folder, name):
    """A recipe of two steps."""
    raw = tomllib.loads((RECIPES / name).read_text(encoding="utf-8"))
    raw["data"] |= _SMALL | {"frames": min(raw["data"]["frames"], 5)}
    raw["optimiser"] |= {"steps": 2, "batch": 2, "warmup": 1}
    raw["run"] |= {"pictures_every": 0}
    if "stages" in raw:
        raw["stages"] = [stage | {"steps": 1} for stage in raw["stages"]]
    if "new_backbone" in raw:
        raw["new_backbone"] = {"dim": 128, "ffn_dim": 64, "layers": 1}
    if "rank" in raw["model"]:
        raw["model"]["rank"] = 2
    (folder / name).write_text(tomli_w.dumps(raw), encoding="utf-8")

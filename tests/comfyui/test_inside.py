"""The in-process checks of `inside/`, run once by ComfyUI's own Python: one test a check.

The checks import ComfyUI, which this Python does not have; they are found by reading their source.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest

from comfyui_strata.joint.families import FAMILIES, UNITY
from comfyui_strata.model_loaders.convert import convert
from comfyui_strata.model_loaders.find_comfyui import comfyui_python
from comfyui_strata.tests.tiny_files import write_tiny_umt5, write_tiny_vae, write_tiny_wan22_vae
from comfyui_strata.tests.tiny_wan import (
    tiny_config,
    tiny_vocabulary,
    write_empty_prompt,
    write_tiny_adapters,
    write_tiny_backbone,
    write_tiny_checkpoint,
    write_tiny_layers,
)

INSIDE = Path(__file__).parent / "inside"
TIME_LIMIT = 2400  # seconds; it takes six or seven minutes on an idle core


def check_names() -> list[str]:
    """`module.check` of every check function under inside/."""
    return [f"{path.stem}.{node.name}" for path in sorted(INSIDE.glob("*.py"))
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")]


def write_files(base: Path) -> None:
    """The tiny files that the checks load through ComfyUI's own loaders, laid out as --base-directory wants them."""
    folders = {name: base / "models" / name for name in ("diffusion_models", "loras", "vae", "text_encoders")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    write_tiny_backbone(folders["diffusion_models"] / "wan.safetensors")
    write_tiny_backbone(folders["diffusion_models"] / "wan22.safetensors", tiny_config(UNITY))
    write_tiny_vae(folders["vae"] / "vae.safetensors")
    write_tiny_wan22_vae(folders["vae"] / "vae22.safetensors")
    write_tiny_umt5(folders["text_encoders"] / "umt5.safetensors", d_model=4096)
    for family in FAMILIES.values():
        path = folders["loras"] / f"{family.name}.safetensors"
        if family.file_adapters:
            write_empty_prompt(write_tiny_adapters(path, family))
        else:
            write_tiny_layers(path, family)


def write_converted(base: Path) -> None:
    """What `strata convert` makes of published checkpoints, in a folder that no loader's list shows."""
    tokenizer = base / "tokenizer.json"
    tokenizer.write_bytes(tiny_vocabulary())
    for family in FAMILIES.values():
        if not family.file_adapters:
            checkpoint = base / (family.name + (".pth" if family.texts else ".safetensors"))
            convert(write_tiny_checkpoint(checkpoint, family), base / "converted", tokenizer=tokenizer)


@pytest.fixture(scope="session")
def results(comfyui, tmp_path_factory) -> dict[str, dict]:
    """What the runner found, check by check."""
    base = tmp_path_factory.mktemp("inside")
    write_files(base)
    write_converted(base)
    out, log = base / "results.json", base / "log.txt"
    # Nothing of this Python's environment may leak into ComfyUI's.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "VIRTUAL_ENV"}
    with log.open("w") as stream:
        done = subprocess.run(
            [comfyui_python(comfyui), INSIDE / "run.py", comfyui, base, out], cwd=base, env=environment,
            stdout=stream, stderr=subprocess.STDOUT, timeout=TIME_LIMIT, check=False)
    if not out.is_file():
        pytest.fail(f"the runner ended with {done.returncode}:\n{log.read_text('utf-8', 'replace')[-4000:]}")
    return json.loads(out.read_text("utf-8"))


@pytest.mark.parametrize("name", check_names())
def test_inside(results, name):
    """One check inside ComfyUI; its docstring there says what it proves."""
    assert name in results, f"{name} did not run"
    assert results[name]["ok"], results[name]["detail"]
    print(f"{results[name]['seconds']} s: {results[name]['detail']}")


def test_every_module_has_checks(results):
    """The checks that ran are those that were collected."""
    assert sorted(results) == sorted(check_names())

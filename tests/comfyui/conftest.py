"""The real ComfyUI that these tests talk to: found, given tiny files under the published names, started once, stopped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

PACK = Path(__file__).parents[2]
# Where a release lies is up to the user, so the folder's name has what trips naive imports: a dot, a blank, a dash.
ODD_NAME = "my strata-0.1 copy"
BACKBONE = "wan2.1_t2v_14B_fp8_scaled.safetensors"
TEXT_ENCODER = "umt5_xxl_fp8_e4m3fn_scaled.safetensors"
VAE = "wan_2.1_vae.safetensors"


def write_base(base: Path) -> None:
    """A ComfyUI base directory with this pack, the tests' text loader, tiny models and the workflows' clips."""
    from comfyui_strata.joint.families import FAMILIES
    from comfyui_strata.tests.tiny_files import write_tiny_umt5, write_tiny_vae
    from comfyui_strata.tests.tiny_wan import write_tiny_adapters, write_tiny_backbone

    models = base / "models"
    for folder in ("diffusion_models", "text_encoders", "vae", "loras", "model_patches"):
        (models / folder).mkdir(parents=True)
    write_tiny_backbone(models / "diffusion_models" / BACKBONE)
    write_tiny_umt5(models / "text_encoders" / TEXT_ENCODER, d_model=4096)
    write_tiny_vae(models / "vae" / VAE)
    for family in FAMILIES.values():
        write_tiny_adapters(models / "loras" / f"univid_{family.name}.safetensors", family)
    shutil.copytree(PACK / "workflows" / "assets", base / "input")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / ODD_NAME).symlink_to(PACK, target_is_directory=True)
    (base / "custom_nodes" / "tiny_text").symlink_to(PACK / "tests" / "comfyui" / "tiny_text", target_is_directory=True)


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    """A running `live.Comfy`; skips, saying why, where there is no ComfyUI."""
    pytest.importorskip("websocket", reason="the client of ComfyUI's API needs websocket-client (comfy-cli brings it)")
    pytest.importorskip("psutil", reason="watching ComfyUI's memory needs psutil (comfy-cli brings it)")
    pytest.importorskip("sentencepiece", reason="the tiny text encoder's tokenizer needs sentencepiece")
    from comfyui_strata.model_loaders.find_comfyui import OLDEST, comfyui_python, comfyui_version, find_comfyui
    from comfyui_strata.tests.comfyui.live import Comfy

    found = find_comfyui(PACK)
    if found is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH to one, or install it with comfy-cli in ~/comfy/ComfyUI")
    version = comfyui_version(found)
    if version is not None and version[:2] < OLDEST:
        pytest.skip(f"{found} is ComfyUI {'.'.join(map(str, version))}, older than {'.'.join(map(str, OLDEST))}")
    base = tmp_path_factory.mktemp("comfyui")
    write_base(base)
    server = Comfy(found, comfyui_python(found), base)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()

"""The real ComfyUI that these tests talk to: found, given tiny files under published names, started once, stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

PACK = Path(__file__).parents[2]
# What the folder is called is up to the user, so its name has what trips naive imports. No blank: from such a folder
# ComfyUI itself serves nothing (aiohttp's static routes find no path with a blank).
ODD_NAME = "2-my.strata-0.1"
BACKBONE = "wan2.1_t2v_14B_fp8_scaled.safetensors"
TEXT_ENCODER = "umt5_xxl_fp8_e4m3fn_scaled.safetensors"
WORDS = "strata_tiny_words.safetensors"
VAE = "wan_2.1_vae.safetensors"
BACKBONE_22, VAE_22 = "unity.wan.safetensors", "wan2.2_vae.safetensors"
BACKBONE_VIGU = "vigu.wan.safetensors"


def shrink(source: Path, target: Path, frames: int = 6, width: int = 64) -> None:
    """A short small copy of a clip at its own rate: the workflows' clips are small, but not for 30 runs on a CPU.

    6 frames and, of a 16:9 clip, 36 rows: neither is what the network takes, so padding and cropping are at work.
    A drawing whose colours are read, which is stored with all of them, keeps its pixels."""
    import av

    with av.open(str(source)) as clip, av.open(str(target), "w") as small:
        stream = clip.streams.video[0]
        written = small.add_stream("libx264", rate=stream.average_rate)
        width = stream.width if stream.pix_fmt == "yuv444p" else width
        written.width, written.height, written.pix_fmt = width, width * stream.height // stream.width, stream.pix_fmt
        written.options = {"crf": "12"}
        for frame, _ in zip(clip.decode(stream), range(frames)):
            picture = av.VideoFrame.from_image(frame.to_image().resize((written.width, written.height)))
            small.mux(written.encode(picture))
        small.mux(written.encode())


def shrink_alpha(source: Path, target: Path, frames: int = 6, width: int = 64) -> None:
    """`shrink` for a clip with alpha, which keeps it."""
    import torch

    from comfyui_strata.imaging.files.alpha_video import write_alpha_video
    from comfyui_strata.imaging.files.read_alpha_video import read_alpha_video

    clip = read_alpha_video(source)
    pictures = torch.cat([clip.images, clip.alpha[..., None]], -1)[:frames].movedim(-1, 1)
    size = (width * pictures.shape[2] // pictures.shape[3], width)
    small = torch.nn.functional.interpolate(pictures, size, mode="area").movedim(1, -1)
    write_alpha_video(target, small, None, "vp9", clip.rate)


def write_base(base: Path) -> None:
    """A ComfyUI base directory with this pack, the tests' own packs, tiny models and the workflows' clips."""
    from comfyui_strata.joint.families import FAMILIES, UNITY
    from comfyui_strata.model_loaders.word_encoder import save_word_encoder
    from comfyui_strata.tests.tiny_files import (
        tiny_sentencepiece,
        write_tiny_umt5,
        write_tiny_vae,
        write_tiny_wan22_vae,
    )
    from comfyui_strata.tests.tiny_wan import tiny_config, write_tiny_adapters, write_tiny_backbone, write_tiny_layers
    from comfyui_strata.training.word_codes import known_words

    models = base / "models"
    for folder in ("diffusion_models", "text_encoders", "vae", "loras", "model_patches"):
        (models / folder).mkdir(parents=True)
    write_tiny_backbone(models / "diffusion_models" / BACKBONE)
    write_tiny_umt5(models / "text_encoders" / TEXT_ENCODER, d_model=4096)
    save_word_encoder(models / "text_encoders" / WORDS, known_words())
    write_tiny_vae(models / "vae" / VAE)
    write_tiny_backbone(models / "diffusion_models" / BACKBONE_22, tiny_config(UNITY))
    write_tiny_backbone(models / "diffusion_models" / BACKBONE_VIGU)
    write_tiny_wan22_vae(models / "vae" / VAE_22)
    for family in FAMILIES.values():
        if family.file_adapters:
            write_tiny_adapters(models / "loras" / f"univid_{family.name}.safetensors", family)
        else:
            write_tiny_layers(models / "model_patches" / f"{family.name}.layers.safetensors", family,
                              vocabulary=tiny_sentencepiece() if family.texts else None)
    (base / "input").mkdir()
    for clip in (PACK / "workflows" / "assets").glob("*.mp4"):
        shrink(clip, base / "input" / clip.name)
    for clip in (PACK / "workflows" / "assets").glob("*.webm"):
        shrink_alpha(clip, base / "input" / clip.name)
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / ODD_NAME).symlink_to(PACK, target_is_directory=True)
    for pack in ("tiny_text", "native_data"):
        (base / "custom_nodes" / pack).symlink_to(PACK / "tests" / "comfyui" / pack, target_is_directory=True)


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The folder of the ComfyUI to test in; skips, saying why, where there is none that is new enough."""
    from comfyui_strata.model_loaders.find_comfyui import OLDEST, comfyui_version, find_comfyui

    found = find_comfyui(PACK)
    if found is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH to one, or install it with comfy-cli in ~/comfy/ComfyUI")
    version = comfyui_version(found)
    if version is not None and version[:2] < OLDEST:
        pytest.skip(f"{found} is ComfyUI {'.'.join(map(str, version))}, older than {'.'.join(map(str, OLDEST))}")
    return found


@pytest.fixture(scope="session")
def comfy(comfyui, tmp_path_factory):
    """A running `live.Comfy`; skips, saying why, where its client cannot run."""
    pytest.importorskip("websocket", reason="the client of ComfyUI's API needs websocket-client (comfy-cli brings it)")
    pytest.importorskip("psutil", reason="watching ComfyUI's memory needs psutil (comfy-cli brings it)")
    pytest.importorskip("sentencepiece", reason="the tiny text encoder's tokenizer needs sentencepiece")
    from comfyui_strata.model_loaders.find_comfyui import comfyui_python
    from comfyui_strata.tests.comfyui.live import Comfy

    base = tmp_path_factory.mktemp("comfyui")
    write_base(base)
    server = Comfy(comfyui, comfyui_python(comfyui), base)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()

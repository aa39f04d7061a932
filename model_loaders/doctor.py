"""What `strata doctor` says: what this machine has, what it lacks and how to get it. Looks, never changes anything."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path

from .find_comfyui import COMFYUI_PATH, OLDEST, PACK, comfyui_python, comfyui_version, find_comfyui, links_to

Line = tuple[str, bool | None, str]

# Package, the distributions that can bring it, what it is for, what to install.
OPTIONAL = (
    ("diffusers", ("diffusers",), "the VAE outside ComfyUI", "pip install 'comfyui-strata[standalone]'"),
    ("transformers", ("transformers",), "prompts outside ComfyUI", "pip install 'comfyui-strata[standalone]'"),
    (
        "opencv",
        ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
        "picture files outside ComfyUI",
        "pip install 'comfyui-strata[standalone]'",
    ),
    ("av", ("av",), "video files", "pip install av"),
    ("OpenEXR", ("OpenEXR",), "EXR files", "pip install 'comfyui-strata[exr]'"),
    ("scikit-image", ("scikit-image",), "strata eval", "pip install 'comfyui-strata[train]'"),
    ("peft", ("peft",), "training", "pip install 'comfyui-strata[train]'"),
    ("accelerate", ("accelerate",), "training", "pip install 'comfyui-strata[train]'"),
    ("flash-attn 3", ("flash-attn-3",), "faster attention on NVIDIA cards", "only if you want it"),
    ("sageattention", ("sageattention",), "faster attention on NVIDIA cards", "only if you want it"),
)
BACKBONE_GB = 40  # Wan2.1 14B in bf16 with its text encoder, VAE and the adapters


def report() -> list[Line]:
    """Every line of the doctor's report, in reading order.

    Returns:
        (name, ok, text): ok is True, False for what stops Strata from working, None for what only some work needs.
        Where ok is not True the text says what to do.
    """
    comfyui = find_comfyui()
    return [python(), torch_and_device(), *optional_packages(), *comfyui_lines(comfyui), tiny_model(), free_disk()]


def python() -> Line:
    """The running Python, its system, and where it lies."""
    return "Python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"


def torch_and_device() -> Line:
    """torch, and the device it computes on with that device's memory."""
    try:
        import torch
    except ImportError as error:
        fix = "pip install 'comfyui-strata[standalone]' (first your GPU's build of torch, if you have one)."
        return "torch", False, f"cannot be imported ({error}): {fix}"
    name = f"{torch.__version__}, "
    if torch.cuda.is_available():
        free, total = (amount / 1e9 for amount in torch.cuda.mem_get_info())
        return "torch", True, f"{name}cuda: {torch.cuda.get_device_name()}, {free:.1f} of {total:.1f} GB free"
    if torch.backends.mps.is_available():
        return "torch", True, f"{name}mps: Apple GPU, {memory_gb()} GB shared memory"
    return "torch", None, (
        f"{name}cpu: {os.cpu_count()} cores, {memory_gb()} GB memory; enough for the bundled tiny model, "
        "for the published ones use a GPU and the torch build made for it."
    )


def memory_gb() -> str:
    """The machine's memory in GB, as text; a question mark where the system does not tell."""
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f}"
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return "?"


def optional_packages() -> list[Line]:
    """One line a package that only some work needs, by its metadata alone: importing them all takes half a minute."""
    return [optional_package(*entry) for entry in OPTIONAL]


def optional_package(name: str, distributions: tuple[str, ...], purpose: str, fix: str) -> Line:
    """Whether one of `distributions` is installed."""
    for distribution in distributions:
        try:
            return name, True, f"{metadata.version(distribution)} ({purpose})"
        except metadata.PackageNotFoundError:
            continue
    return name, None, f"missing, needed for {purpose}: {fix}."


def comfyui_lines(comfyui: Path | None) -> list[Line]:
    """The ComfyUI that was found, its version and Python, and whether the pack is in its custom_nodes."""
    if comfyui is None:
        named = os.environ.get(COMFYUI_PATH)
        where = f"{COMFYUI_PATH} is {named}, which holds no main.py and comfy/" if named else "none found"
        return [("ComfyUI", None, f"{where}: set {COMFYUI_PATH} to your ComfyUI's folder. `strata run` needs none.")]
    needed = ".".join(map(str, OLDEST))
    version = comfyui_version(comfyui)
    have = ".".join(map(str, version)) if version else "of unknown version"
    place = f"{have} at {comfyui}, run by {comfyui_python(comfyui)}"
    if version is None or version < OLDEST:
        host = ("ComfyUI", False, f"{place}: update it to {needed} or newer.")
    else:
        host = ("ComfyUI", True, place)
    entry = links_to(comfyui)
    if entry is None:
        fix = f"python3 install.py --comfyui {shlex.quote(str(comfyui))}"
        return [host, ("Node pack", None, f"not in {comfyui / 'custom_nodes'}: {fix}")]
    return [host, ("Node pack", True, str(entry))]


def tiny_model() -> Line:
    """The bundled tiny weights that `strata run` uses by default."""
    files = sorted((Path(__file__).parent / "tiny").rglob("*.safetensors"))
    if not files:
        return "Tiny model", False, "its files are missing: install Strata again, or take a whole clone."
    hollow = [file.name for file in files if file.stat().st_size == 0]
    if hollow:
        return "Tiny model", False, f"{', '.join(hollow)} is empty: install Strata again, or take a whole clone."
    return "Tiny model", True, ", ".join(f"{file.name} ({file.stat().st_size / 1e6:.1f} MB)" for file in files)


def free_disk() -> Line:
    """Free space where the pack lies, against what the published models take."""
    free = shutil.disk_usage(PACK).free / 1e9
    text = f"{free:.0f} GB free at {PACK}"
    if free >= BACKBONE_GB:
        return "Disk", True, text
    return "Disk", None, f"{text}: a published 14B model with its parts takes about {BACKBONE_GB} GB, free some for it."

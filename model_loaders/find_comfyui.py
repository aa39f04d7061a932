"""Where ComfyUI is, and which Python runs it.

Standard library only and without imports from the package: install.py loads this file by its path, on machines where
nothing is installed yet.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

OLDEST = (0, 33)  # the first ComfyUI with every hook that the nodes use

COMFYUI_PATH, COMFYUI_PYTHON = "COMFYUI_PATH", "COMFYUI_PYTHON"  # environment variables

PACK = Path(__file__).absolute().parents[1]  # not resolved: a link in custom_nodes must lead to that ComfyUI


def is_comfyui(folder: Path) -> bool:
    """Whether `folder` is a checkout of ComfyUI."""
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def find_comfyui(pack: Path = PACK) -> Path | None:
    """The ComfyUI to work with: COMFYUI_PATH, else the one whose custom_nodes holds `pack`, else ~/comfy/ComfyUI.

    A COMFYUI_PATH that names no ComfyUI gives None: who names one does not want another.
    """
    if named := os.environ.get(COMFYUI_PATH):
        candidates = [Path(named).expanduser()]
    else:
        candidates = [p.parents[1] for p in (pack, pack.resolve()) if p.parent.name == "custom_nodes"]
        candidates.append(Path.home() / "comfy" / "ComfyUI")
    return next((folder for folder in candidates if is_comfyui(folder)), None)


def comfyui_python(comfyui: Path) -> Path:
    """The Python that runs `comfyui`: COMFYUI_PYTHON, else the one of its `.venv`, else the current one."""
    if named := os.environ.get(COMFYUI_PYTHON):
        return Path(named).expanduser()
    own = venv_python(comfyui / ".venv")
    return own if own.is_file() else Path(sys.executable)


def venv_python(venv: Path) -> Path:
    """Where the Python of a virtual environment lies on this system."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def comfyui_version(comfyui: Path) -> tuple[int, ...] | None:
    """The version of `comfyui` as numbers, (0, 33, 0); None where it does not say."""
    try:
        text = (comfyui / "comfyui_version.py").read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"__version__\s*=\s*[\"'](\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def links_to(comfyui: Path, pack: Path = PACK) -> Path | None:
    """The entry of `comfyui`'s custom_nodes that is `pack` or a link to it; None if there is none."""
    try:
        entries = sorted((comfyui / "custom_nodes").iterdir())
    except OSError:
        return None
    return next((entry for entry in entries if entry.resolve() == pack.resolve()), None)

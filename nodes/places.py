"""Where the nodes that save and load files may write and read: inside ComfyUI's output and input folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import folder_paths
from comfy.cli_args import args

from ..imaging.atomic import cannot_write

_OUTPUT = " [output]"  # how ComfyUI marks a file of its output folder


def output_place(prefix: str, width: int, height: int) -> tuple[Path, str]:
    """The folder and the name that a filename prefix means, with ComfyUI's %width%, %date% and so on filled in.

    Raises ValueError in one sentence for a prefix without a name, or one that leaves the output folder, OSError for a
    folder that cannot be made.
    """
    root = folder_paths.get_output_directory()
    normal = os.path.normpath(prefix.strip())
    if os.path.basename(normal) in ("", ".", ".."):
        raise ValueError(f"The filename prefix {prefix!r} names no file; write a name such as 'shots/sh010'.")
    if not folder_paths.is_within_directory(root, os.path.join(root, normal)):
        raise ValueError(f"The filename prefix {prefix!r} leaves ComfyUI's output folder; write a name inside it.")
    try:
        folder, name, *_ = folder_paths.get_save_image_path(normal, root, width, height)  # which makes the folder
    except OSError as error:
        raise cannot_write(Path(root, normal), error) from error
    return Path(folder), name


def output_name(path: Path) -> str:
    """A path in the output folder as the loading nodes take it."""
    return path.relative_to(folder_paths.get_output_directory()).as_posix() + _OUTPUT


def stored_path(name: str) -> Path:
    """The file or folder that a name means: relative to ComfyUI's input folder, or with ' [output]' to its output
    folder; without, it is looked for in both.

    Raises ValueError in one sentence for a name that leaves them, FileNotFoundError when nothing is there.
    """
    if not name.strip():
        raise ValueError("No file is named; write a path in ComfyUI's input or output folder.")
    plain, marked = folder_paths.annotated_filepath(name.strip())
    roots = [marked] if marked else [folder_paths.get_input_directory(), folder_paths.get_output_directory()]
    paths = [os.path.abspath(os.path.join(root, plain)) for root in roots]
    inside = [path for root, path in zip(roots, paths) if folder_paths.is_within_directory(root, path)]
    if not inside:
        raise ValueError(f"{name!r} leaves ComfyUI's input and output folders; copy the file into one of them.")
    found = next((path for path in inside if os.path.exists(path)), None)
    if found is None:
        raise FileNotFoundError(f"{name!r} lies neither in ComfyUI's input nor in its output folder; check the name.")
    return Path(found)


def fingerprint(name: str) -> str | None:
    """What changes when the files of a name do; None for a name that means nothing, which then fails as it runs."""
    try:
        path = stored_path(name)
    except (ValueError, OSError):
        return None
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return str([(file.name, (state := file.stat()).st_mtime_ns, state.st_size) for file in files])


def graph_texts(hidden) -> dict[str, str]:
    """The prompt and the workflow as JSON, unless ComfyUI runs with --disable-metadata."""
    if hidden is None or args.disable_metadata:
        return {}
    given = {"prompt": hidden.prompt, **(hidden.extra_pnginfo or {})}
    return {name: json.dumps(value) for name, value in given.items() if value is not None}

"""Which clips lie in a folder."""

import os
import re
from pathlib import Path

from .clips import EXR, STILLS, VIDEOS


def search_clips(path: str | Path) -> list[Path]:
    """The clips at a path that `read_clip` takes: itself, where it is no folder, else all in it and in its folders, in
    the order of their names.

    Every video is a clip. So are the stills and EXR frames of a folder: together, as that folder, where they are one
    sequence (names alike but for a number at the end), else one by one. What is hidden (.name) is passed over. Raises
    FileNotFoundError when nothing is there, ValueError for a folder without a clip.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist, but a clip is needed there; check the path.")
    if not path.is_dir():
        return [path]
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += _clips_of(Path(folder), sorted(name for name in names if not name.startswith(".")))
    if not found:
        raise ValueError(f"The folder {path} holds no clips, but at least one video, still or sequence is needed; "
                         "check the path.")  # fmt: skip
    return found


def _clips_of(folder: Path, names: list[str]) -> list[Path]:
    files = [folder / name for name in names]
    videos = [file for file in files if file.suffix.lower() in VIDEOS]
    stills = [file for file in files if file.suffix.lower() in (*STILLS, EXR)]
    sequences = {(re.sub(r"\d+$", "", file.stem), file.suffix) for file in stills}
    numbered = all(re.search(r"\d$", file.stem) for file in stills)
    if len(stills) > 1 and len(sequences) == 1 and numbered:
        return [*videos, folder]
    return sorted([*videos, *stills])

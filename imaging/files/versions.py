"""Where deliveries go: numbered versions beside each other, never over one another, and frames counted from 1001."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..atomic import cannot_write, replace_file

FIRST_FRAME = 1001  # where a film shot's frames start, so that handles can be added in front


def version_name(name: str, version: int) -> str:
    """NAME_v001, as studios write it."""
    return f"{name}_v{version:03}"


def frame_name(stem: str, frame: int, suffix: str) -> str:
    """STEM.1001.exr: the name of a frame; suffix with its dot."""
    return f"{stem}.{frame:04}{suffix}"


def next_version(parent: Path, name: str) -> int:
    """One more than the highest version of `name` in a folder, be it a file or a folder; 1 if there is none."""
    pattern = re.compile(rf"{re.escape(name)}_v(\d+)(\..*)?", re.IGNORECASE)
    there = (pattern.fullmatch(path.name) for path in parent.iterdir()) if parent.is_dir() else ()
    return 1 + max((int(match.group(1)) for match in there if match), default=0)


def new_version_folder(parent: Path, name: str) -> tuple[Path, int]:
    """Make the folder of the next version of `name`, which nobody else made. Raises OSError in one sentence."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            version = next_version(parent, name)
            folder = parent / version_name(name, version)
            try:
                folder.mkdir()
            except FileExistsError:  # someone was faster
                continue
            return folder, version
    except OSError as error:
        raise cannot_write(parent / name, error) from error


def place_new_version(aside: Path, parent: Path, name: str) -> Path:
    """Rename a finished file to the next version of `name` in `parent`, with its own suffix; returns where it lies.

    Raises OSError in one sentence; the file then lies where it was.
    """
    try:
        while True:
            path = parent / f"{version_name(name, next_version(parent, name))}{aside.suffix}"
            try:
                path.touch(exist_ok=False)  # the name is ours from here on
            except FileExistsError:
                continue
            os.replace(aside, path)
            return path
    except OSError as error:
        raise cannot_write(parent / name, error) from error


def write_frames(
    folder: Path, frames: Iterable[tuple[str, Callable[[], bytes], Callable[[Path], bool]]]
) -> Iterator[bool]:
    """Write frames into `folder` one after another, each whole or not at all; yields for each whether it was written.

    frames: the name of each, what makes its bytes, and whether a file that is there already is that frame, whole;
    such a frame is kept, so that an interrupted delivery goes on where it ended. Raises OSError in one sentence, and
    what the last of the three raises.
    """
    for name, make, is_whole in frames:
        path = folder / name
        missing = not (path.is_file() and is_whole(path))
        if missing:
            replace_file(path, make())
        yield missing


def of_another_clip(frame: Path) -> ValueError:
    """What to raise where a whole frame lies that is none of the clip that is to be written."""
    return ValueError(
        f"{frame} is there already, with other layers or of another size than this clip; choose version 0 for a new "
        "version."
    )


def check_no_other_frames(folder: Path, names: Iterable[str]) -> None:
    """Raise ValueError if `folder` holds frames that are not among `names`: they would be read as part of the clip."""
    strangers = sorted({file.name for file in folder.iterdir() if not file.name.startswith(".")} - set(names))
    if strangers:
        raise ValueError(
            f"{folder} already holds {strangers[0]}{' and others' * (len(strangers) > 1)}, which is no frame of this "
            "clip; choose version 0 for a new version."
        )


def frames_at(path: Path, suffix: str) -> list[Path]:
    """The frames of a sequence, in the order of their numbers: those of a folder, or the one file that `path` is.

    suffix: with its dot, lower case. Raises FileNotFoundError when nothing is there, ValueError in one sentence for a
    folder that holds no such frames, several sequences, or a sequence with a gap.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist, but a folder of {suffix} frames is needed; check the path.")
    if path.is_file():
        return [path]
    numbered = re.compile(rf"(.*?)(\d+)_?{re.escape(suffix)}", re.IGNORECASE)
    found = [(match, file) for file in path.iterdir() if not file.name.startswith(".")
             and (match := numbered.fullmatch(file.name))]  # fmt: skip
    if not found:
        raise ValueError(f"{path} holds no numbered {suffix} frames, but at least one is needed; check the path.")
    names = sorted({match[1] for match, _ in found})
    if len(names) > 1:
        raise ValueError(
            f"{path} holds {len(names)} sequences ({', '.join(names[:4])}), but one is needed; name a folder with one."
        )
    frames = {int(match[2]): file for match, file in found}
    missing = next((number for number in range(min(frames), max(frames)) if number not in frames), None)
    if missing is not None:
        raise ValueError(f"{path} lacks frame {missing}, but every frame is needed; render or copy it again.")
    return [frames[number] for number in sorted(frames)]


def first_number(frame: Path) -> int:
    """The number at the end of a frame's name; 0 without one."""
    number = re.search(r"(\d+)_?$", frame.stem)
    return int(number[1]) if number else 0

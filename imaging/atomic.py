"""Files that are whole or not there: written under a temporary name on the same disk, then renamed."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, data: bytes):
    """Write one file, replacing an older one only when all of `data` is on disk. Makes the folder when it is missing.

    Raises OSError in one sentence (a full disk, a folder that is not writable); nothing half-written is left.
    """
    aside = _name_aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # it is not there; where the folder is a file, even asking is an error
            aside.unlink()


def replace_files(folder: Path, files: Iterable[tuple[str, Callable[[Path], None]]]):
    """Write files into `folder` (made when missing), putting none in place before the last one is on disk.

    files: a name and what writes that file to a given path, for each; taken one at a time, so that a long sequence
    never lies in memory. Raises OSError in one sentence; the folder is then as it was, and anything else that is raised
    passes through.
    """
    # Inside the folder where it is there: it may be a link, or a mount point, to another disk than its parent.
    aside = _name_aside(folder / "files" if folder.is_dir() else folder)
    try:
        aside.mkdir(parents=True)
        for name, write in files:
            write(aside / name)
        folder.mkdir(exist_ok=True)
        for file in sorted(aside.iterdir()):
            os.replace(file, folder / file.name)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _name_aside(path: Path) -> Path:
    # Not derived from the target's name, which may already be as long as the file system allows.
    return path.parent / f".{uuid.uuid4().hex}.tmp"


def cannot_write(path: Path, error: OSError) -> OSError:
    """The one sentence for a disk that refuses `path`."""
    return OSError(
        f"Could not write {path}: {error.strerror or error}; free some space or choose a folder you can write to, "
        "nothing half-written was left."
    )

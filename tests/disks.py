"""Disks that fill up, and what lies on them."""

import contextlib
from pathlib import Path


def files_in(folder: Path) -> list[str]:
    """Every file under `folder`, hidden ones too, as sorted paths relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def disk_of(size: int):
    """No file may grow beyond `size` bytes, as on a disk that fills up half-way."""
    try:
        import resource
    except ImportError:  # Windows; what runs inside ComfyUI's Python has no pytest, and does not need it to skip
        import pytest

        pytest.skip("no limits on files here")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

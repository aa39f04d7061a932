"""How many workers `-n auto` is, and which tests have to run on one of them."""

import os
from pathlib import Path

import pytest

from comfyui_strata.tests.conftest import pytest_xdist_auto_num_workers, worker_group

REPO = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 2), (4, 4), (64, 4)])
def test_a_worker_a_core_to_a_ceiling(cores, workers, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert pytest_xdist_auto_num_workers() == workers
    monkeypatch.delattr(os, "sched_getaffinity")  # Windows, macOS
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert pytest_xdist_auto_num_workers() == workers


def test_what_talks_to_the_server_is_one_group_and_every_other_file_its_own():
    files = {path.relative_to(REPO).as_posix() for path in (REPO / "tests").rglob("test_*.py")}
    groups = {file: worker_group(file) for file in files}
    served = {file for file in files if groups[file] != file}
    assert served == {path.relative_to(REPO).as_posix() for path in (REPO / "tests/comfyui").glob("test_*.py")
                      if path.name != "test_inside.py"}
    assert len({groups[file] for file in served}) == 1

"""How the tests run: each on one thread, and shared out over a few workers where `-n auto` asks for them.

`python3 install.py --test` does; a plain `pytest` is one process, as is `-n 0`.
"""

from __future__ import annotations

import os

import pytest
import torch

# Tiny tensors gain nothing from more threads, and threads that wait for each other crawl on a busy machine.
torch.set_num_threads(1)

# More gain little: the checks inside ComfyUI are one process and over a third of the time. A worker takes 0.6 GB, the
# two ComfyUIs 1.3 GB each.
MOST_WORKERS = 4
IN_COMFYUI, INSIDE = "tests/comfyui/", "tests/comfyui/test_inside.py"


@pytest.hookimpl(optionalhook=True)  # pytest runs without xdist, too
def pytest_xdist_auto_num_workers() -> int:
    """A worker a core that this process may use, to a ceiling; 0, which is no workers, for a single core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS) if cores > 1 else 0


def worker_group(file: str) -> str:
    """What has to run on one worker: the tests of a file, which share fixtures, and all that talk to the server.

    The checks inside ComfyUI have a process of their own."""
    return IN_COMFYUI if file.startswith(IN_COMFYUI) and file != INSIDE else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hands out whole groups, in the order of their files: the longest, those of tests/comfyui, come first."""
    if config.option.dist != "load":  # -n alone; who asks for another way gets it
        return None
    from xdist.scheduler import LoadFileScheduling

    class GroupScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return worker_group(super()._split_scope(nodeid))

    config.option.loadscopereorder = False
    return GroupScheduling(config, log)

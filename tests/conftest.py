"""How the tests run: each on one thread, and on a few workers where `-n auto` asks for them.

`python3 install.py --test` does; a plain `pytest` is one process, as is `-n 0`.
"""

import os

import pytest
import torch

# Tiny tensors gain nothing from more threads, and threads that wait for each other crawl on a busy machine.
torch.set_num_threads(1)

# The in-process checks of tests/comfyui are one process and over a third of the time, so more workers only take more
# memory: one is 0.5 GB, and the ComfyUI that it may start is 1 GB.
MOST_WORKERS = 4


@pytest.hookimpl(optionalhook=True)  # pytest runs without xdist, too
def pytest_xdist_auto_num_workers() -> int:
    """A worker a core that this process may use, to a ceiling; 0, which is no workers, for a single core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS) if cores > 1 else 0

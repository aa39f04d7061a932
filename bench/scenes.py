"""Synthetic shots per second on one thread.

    python bench/scenes.py                       # 9 frames of 64x64
    python bench/scenes.py --clip 9x96x128 --shots 5

Prints a line a setting: shots per second of the wall clock, and of this process's own CPU time, which a busy machine
disturbs less.
"""

import argparse
import time

import torch

from comfyui_strata.training.scenes import render

SETTINGS = {
    "sharp exposure only": {"film_samples": 0},
    "sharp and film exposures": {},
    "sharp only, antialias 2": {"film_samples": 0, "antialias": 2},
    "sharp and film, antialias 2": {"antialias": 2},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default="9x64x64", help="frames x height x width")
    parser.add_argument("--shots", type=int, default=20)
    arguments = parser.parse_args()
    frames, height, width = map(int, arguments.clip.split("x"))
    torch.set_num_threads(1)
    render(0, frames, height, width)
    for name, setting in SETTINGS.items():
        wall, cpu = time.perf_counter(), time.process_time()
        for seed in range(arguments.shots):
            render(seed, frames, height, width, **setting)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{name:28} {arguments.shots / wall:5.2f} shots/s   {arguments.shots / cpu:5.2f} per CPU second")


if __name__ == "__main__":
    main()

"""Seconds a frame and memory of the compositing functions, on clips of any size and length.

    python bench/compositing.py                     # 1 and 4 frames of 3840x2160
    python bench/compositing.py --size 1920x1080 --frames 1 16

Prints a line for each function and length: seconds a frame (wall clock, CPU time), and the highest memory of the whole
process, minus what its given and made clips take. Each runs in a process of its own.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch

from comfyui_strata.imaging.colour import LINEAR, convert_colours
from comfyui_strata.imaging.compositing.decontaminate import decontaminate
from comfyui_strata.imaging.compositing.despill import despill_clip
from comfyui_strata.imaging.compositing.layer_stack import Layer, composite
from comfyui_strata.imaging.compositing.matte import MatteSettings, refine_matte
from comfyui_strata.imaging.compositing.transform import Move
from comfyui_strata.imaging.frames import at, by_frame
from comfyui_strata.imaging.highlights import restore_clip

MATTE = MatteSettings(black=0.02, white=0.98, specks=200, holes=200, frames=1, grow=-0.5, blur=1.0)

CASES = {
    "composite": lambda plate, other, alpha: composite([Layer(plate, alpha)], other, original=plate),
    "composite, moved": lambda plate, other, alpha: composite(
        [Layer(plate, alpha, move=Move(x=10.5, scale=0.9, rotation=3))], other),
    "decontaminate": lambda plate, other, alpha: decontaminate(plate, alpha, other, hold=0.03),
    "refine matte": lambda plate, other, alpha: (refine_matte(alpha, MATTE),),
    "despill": lambda plate, other, alpha: despill_clip(plate, "green", "average", 1.0, 1.0, "sRGB"),
    "restore highlights": lambda plate, other, alpha: (restore_clip(plate, other, 0.8, LINEAR),),
    "sRGB to ACEScg": lambda plate, other, alpha: by_frame(
        len(plate), lambda i: (convert_colours(at(plate, i), "sRGB", "ACEScg (AP1)"),)),
}


def clips(frames: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """Plate, another picture and the alpha of a soft disc with specks: noise, which is the hardest for islands."""
    random = torch.Generator().manual_seed(0)
    pictures = [torch.rand(frames, height, width, 3, generator=random) for _ in range(2)]
    across, down = torch.arange(width) - width / 2, (torch.arange(height) - height / 2).unsqueeze(1)
    disc = ((height / 3 - (across**2 + down**2).sqrt()) / 8 + 0.5).clamp(0, 1)
    alpha = disc.expand(frames, height, width).clone()
    for frame in alpha:
        frame[torch.rand(height, width, generator=random) < 0.001] = 0.5
    return *pictures, alpha


def measure(case: str, frames: int, height: int, width: int):
    torch.set_num_threads(1)
    given = clips(frames, height, width)
    with torch.inference_mode():
        wall, cpu = time.perf_counter(), time.process_time()
        made = CASES[case](*given)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    held = sum(clip.numel() * clip.element_size() for clip in (*given, *made)) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{case:20} {frames:3} frames {wall / frames:7.2f} s {cpu / frames:7.2f} CPU s a frame "
          f"{held:7.0f} MiB of clips {peak - held:7.0f} MiB besides", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="3840x2160", help="width x height")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--case", choices=CASES, help="only this one, in this process")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    for case in [arguments.case] if arguments.case else CASES:
        for frames in arguments.frames:
            if arguments.case:
                measure(case, frames, height, width)
            else:
                again = ["--size", arguments.size, "--frames", str(frames), "--case", case]
                subprocess.run([sys.executable, __file__, *again], check=True)


if __name__ == "__main__":
    main()

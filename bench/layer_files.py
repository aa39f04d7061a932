"""Seconds and memory of a shot's layers into files and back, frame by frame.

    python bench/layer_files.py                          # 4 frames of 3840x2160
    python bench/layer_files.py --clip 12x1080x1920 --compression zips

The clip is one noisy frame shown again and again, so that whatever memory grows with its length is the writer's own.
Prints a line a step: this process's CPU seconds a frame, and its peak memory so far (Linux, macOS).
"""

import argparse
import resource
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import torch

from comfyui_strata.imaging.files.alpha_video import CODECS, save_alpha_video
from comfyui_strata.imaging.files.layer_delivery import save_exr, save_stills
from comfyui_strata.imaging.files.layer_exr import COMPRESSIONS, Delivery
from comfyui_strata.imaging.files.read_layer_exr import read_layers
from comfyui_strata.imaging.files.versions import frames_at


def peak() -> float:
    """The most memory this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default="4x2160x3840", help="frames x height x width")
    parser.add_argument("--compression", default="zip", choices=COMPRESSIONS)
    parser.add_argument("--codecs", nargs="*", default=["prores 4444"], choices=list(CODECS))
    arguments = parser.parse_args()
    frames, height, width = map(int, arguments.clip.split("x"))
    torch.set_num_threads(1)
    ramp = torch.linspace(0.05, 0.9, width).view(1, 1, width, 1)
    picture = ramp + 0.02 * torch.randn(1, height, width, 3)
    clip = picture.clamp_(0, 1).expand(frames, -1, -1, -1)
    layers = {**dict.fromkeys(("rgb", "albedo", "irradiance", "normal"), clip), "alpha": clip[..., :1]}
    print(f"{'the clip itself':28}                   {peak():5.2f} GiB")

    def timed(what: str, work):
        start = time.process_time()
        result = work()
        print(f"{what:28} {(time.process_time() - start) / frames:6.2f} s a frame  {peak():5.2f} GiB", flush=True)
        return result

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        delivery = Delivery(compression=arguments.compression)
        done = timed(f"EXR of 5 layers, {arguments.compression}", lambda: save_exr(layers, delivery, place, "exr"))
        size = sum(path.stat().st_size for path in done.folder.iterdir()) / frames / 2**20
        print(f"{'':28} {size:6.0f} MiB a frame")
        timed("EXR, going on: all are there", lambda: save_exr(layers, delivery, place, "exr", version=1))
        paths = frames_at(done.folder, ".exr")
        timed("EXR into one layer", lambda: read_layers(paths, ["albedo"]))
        timed("PNG of one layer", lambda: save_stills({"rgb": clip}, ".png", place, "png"))
        for codec in arguments.codecs:
            timed(codec, lambda codec=codec: save_alpha_video(place, "a", clip, None, codec, Fraction(24)))


if __name__ == "__main__":
    main()

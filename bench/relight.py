"""Time and memory of a frame through compositing and relighting.

    python bench/relight.py                          # 3 frames of 3840x2160, one by one
    python bench/relight.py --size 960x540 --frames 2

A frame is a foreground over a background, whose albedo, normals and depth are then lit by a sun, a lamp and a panorama,
with highlights, and by ratio. Prints for each frame the seconds of the two steps and the process's peak memory so far:
that of later frames must not grow.
"""

import argparse
import resource
import sys
import time

import torch

from comfyui_strata.imaging.colour import linear_to_srgb, srgb_to_linear
from comfyui_strata.imaging.layer_stack import Layer, composite
from comfyui_strata.imaging.lights import DirectionalLight, EnvironmentLight, PointLight
from comfyui_strata.imaging.normal_maps import decode_normals, encode_normals
from comfyui_strata.imaging.relight import Gloss, Relight, relight_clip
from comfyui_strata.imaging.spherical_harmonics import environment_light


def peak() -> float:
    """GiB that this process has held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def layers(width: int, height: int) -> dict[str, torch.Tensor]:
    """One frame of every layer, as ComfyUI holds them."""
    size = (1, height, width)
    normal = encode_normals(torch.nn.functional.normalize(torch.randn(*size, 3), dim=-1))
    colours = {name: torch.rand(*size, 3) for name in ("fg", "bg", "albedo", "irradiance")}
    return {**colours, "alpha": torch.rand(size), "normal": normal, "depth": 1 + 4 * torch.rand(*size, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="3840x2160", help="width x height")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    torch.set_num_threads(arguments.threads)
    panorama = environment_light(torch.rand(64, 128, 3), torch.eye(3))
    lights = (
        DirectionalLight((1.0, 0.9, 0.7), (1.0, 1.0, 1.0)),
        PointLight((4.0, 3.0, 2.0), (1.0, 1.0, -1.0), radius=0.1),
        EnvironmentLight((0.5,) * 3, panorama),
    )
    decode = {**dict.fromkeys(("albedo", "irradiance", "plate"), srgb_to_linear), "normal": decode_normals}
    ways = {"albedo x light": Relight(lights, gloss=Gloss()), "ratio": Relight(lights, limit=3.0)}
    print(f"{width}x{height}, {arguments.threads} thread(s), torch {torch.__version__}; at start {peak():.2f} GiB")
    frame = layers(width, height)
    print(f"one frame's layers {peak():.2f} GiB")
    for number in range(arguments.frames):
        start = time.perf_counter()
        plate, *_ = composite([Layer(frame["fg"], frame["alpha"])], frame["bg"])
        spent = [("composite", time.perf_counter() - start)]
        given = {"plate": plate, **{name: frame[name] for name in ("albedo", "irradiance", "normal", "depth")}}
        for name, way in ways.items():
            start = time.perf_counter()
            relight_clip(way, given, decode, linear_to_srgb, lambda: None)
            spent.append((name, time.perf_counter() - start))
        said = "  ".join(f"{name} {seconds:.2f} s" for name, seconds in spent)
        print(f"frame {number}: {said}   peak {peak():.2f} GiB")


if __name__ == "__main__":
    main()

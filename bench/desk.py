"""Time and memory of a shot over the compositor's desk: composite, relight and EXR, frame by frame in one process.

    python bench/desk.py                            # 4 frames of 3840x2160
    python bench/desk.py --size 960x540 --frames 24 --compression zips

A frame is a foreground over a background, whose albedo, normals and depth are then lit by a sun, a lamp and a panorama,
with highlights, and by ratio; the relit picture and its layers go into one EXR, which is written aside and renamed.
Prints for each frame the CPU seconds of the steps, the memory held after it and the most so far: neither must grow.
Linux and macOS; what is held, on Linux only.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from comfyui_strata.imaging.atomic import replace_file
from comfyui_strata.imaging.colour import linear_to_srgb, srgb_to_linear
from comfyui_strata.imaging.compositing.layer_stack import Layer, composite
from comfyui_strata.imaging.encodings.normal_maps import decode_normals, encode_normals
from comfyui_strata.imaging.files.layer_exr import COMPRESSIONS, Delivery, layer_frame, too_bright_for_half
from comfyui_strata.imaging.files.versions import FIRST_FRAME, frame_name
from comfyui_strata.imaging.light.lights import DirectionalLight, EnvironmentLight, PointLight
from comfyui_strata.imaging.light.relight import Gloss, Relight, relight_clip
from comfyui_strata.imaging.light.spherical_harmonics import environment_light

DECODE = {**dict.fromkeys(("albedo", "irradiance", "plate"), srgb_to_linear), "normal": decode_normals}


def peak() -> float:
    """GiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def held() -> float:
    """GiB that this process holds; not a number where the system does not say."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * resource.getpagesize() / 2**30 if pages.exists() else float("nan")


def layers(width: int, height: int) -> dict[str, torch.Tensor]:
    """One frame of every layer, as ComfyUI holds them: ramps with the noise of a plate."""
    size = (1, height, width)
    ramp = torch.linspace(0.05, 0.9, width).view(1, 1, width, 1)
    normal = encode_normals(torch.nn.functional.normalize(torch.randn(*size, 3), dim=-1))
    names = ("fg", "bg", "albedo", "irradiance")
    colours = {name: (ramp + 0.02 * torch.randn(*size, 3)).clamp_(0, 1) for name in names}
    return {**colours, "alpha": torch.rand(size), "normal": normal, "depth": 1 + 4 * torch.rand(*size, 1)}


def ways() -> dict[str, Relight]:
    """The shot's new light, by both ways to the picture."""
    panorama = environment_light(torch.rand(64, 128, 3), torch.eye(3))
    lights = (
        DirectionalLight((1.0, 0.9, 0.7), (1.0, 1.0, 1.0)),
        PointLight((4.0, 3.0, 2.0), (1.0, 1.0, -1.0), radius=0.1),
        EnvironmentLight((0.5,) * 3, panorama),
    )
    return {"albedo x light": Relight(lights, gloss=Gloss()), "ratio": Relight(lights, limit=3.0)}


def work_on(frame: dict[str, torch.Tensor], number: int, delivery: Delivery, folder: Path) -> str:
    """The three steps on one frame; how long each took."""
    spent = []

    def timed(name: str, work: Callable):
        start = time.process_time()
        made = work()
        spent.append(f"{name} {time.process_time() - start:.2f} s")
        return made

    plate, *_ = timed("composite", lambda: composite([Layer(frame["fg"], frame["alpha"])], frame["bg"]))
    given = {"plate": plate, **{name: frame[name] for name in ("albedo", "irradiance", "normal", "depth")}}
    for name, way in ways().items():
        relit, light, _ = timed(name, lambda way=way: relight_clip(way, given, DECODE, linear_to_srgb))
    saved = {"rgb": relit, "bg": plate, "albedo": frame["albedo"], "irradiance": light, "normal": frame["normal"],
             "alpha": frame["alpha"].unsqueeze(-1), "depth_metres": frame["depth"]}
    path = folder / frame_name("shot_v001", FIRST_FRAME + number, ".exr")

    def save():
        wide = too_bright_for_half(saved, delivery)
        replace_file(path, layer_frame({layer: images[0] for layer, images in saved.items()}, delivery, number, wide))

    timed("EXR", save)
    return f"{', '.join(spent)}, {path.stat().st_size / 2**20:.0f} MiB"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="3840x2160", help="width x height")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compression", default="zip", choices=COMPRESSIONS)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    torch.set_num_threads(arguments.threads)
    print(f"{width}x{height}, {arguments.threads} thread(s), torch {torch.__version__}: {peak():.3f} GiB to begin with")
    frame = layers(width, height)
    print(f"one frame's layers: {held():.3f} GiB held, at most {peak():.3f} GiB", flush=True)
    delivery = Delivery(compression=arguments.compression)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.frames):
            said = work_on(frame, number, delivery, Path(folder))
            print(f"frame {number + 1}: {said}; {held():.3f} GiB held, at most {peak():.3f} GiB", flush=True)


if __name__ == "__main__":
    main()

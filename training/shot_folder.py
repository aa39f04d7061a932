"""Synthetic shots rendered once and kept: the layers of every family in one file a shot, as 8-bit pictures.

    python -m comfyui_strata.training.shot_folder FOLDER --shots 4000 --framing close

To render a shot costs more than a small model's step, so its VAE and all families learn from the same renderings.
"""

from __future__ import annotations

import argparse
import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..model_loaders.safetensors_file import load_tensors, read_header, replace_tensors
from .rendering.captions import summary
from .rendering.staging import FRAMINGS
from .scenes import VERSION
from .shots import FIRST_TRAINING_SEED, layers_of, render_shot


@dataclass(frozen=True)
class ShotFolder:
    """Shots of one size and framing, each rendered when it is first asked for; any number of processes may share it."""

    path: Path
    frames: int
    height: int
    width: int
    framing: str = "wide"

    def shot(self, seed: int) -> tuple[dict[str, Tensor], str, str]:
        """Every layer [F, H, W, 3] uint8 of a shot, as `shots.layers_of` names them and in order of their names, its
        caption and the summary of it. Raises OSError when the disk refuses."""
        path = self._file(seed)
        try:
            said = read_header(path).metadata
            return dict(sorted(load_tensors(path).items())), said["caption"], said["summary"]
        except (FileNotFoundError, ValueError, KeyError):  # not there yet, or cut off
            pass
        shot = render_shot(seed, self.frames, self.height, self.width, self.framing, film=True)
        layers = {name: (255 * image).round().byte() for name, (image, _) in layers_of(shot).items()}
        said = {"caption": shot.caption, "summary": summary(shot.facts)}
        replace_tensors(path, layers, said)
        return dict(sorted(layers.items())), said["caption"], said["summary"]

    def fill(self, seeds: range, processes: int = 1) -> None:
        """Render those of the seeds that are not there yet."""
        lacking = [seed for seed in seeds if not self._file(seed).is_file()]
        with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
            for _ in tqdm(pool.imap_unordered(self._render, lacking, chunksize=4), total=len(lacking), unit="shot",
                          desc="Rendering", disable=None):
                pass

    def _render(self, seed: int) -> None:
        self.shot(seed)

    def _file(self, seed: int) -> Path:
        size = f"{self.frames}x{self.height}x{self.width}"
        return self.path / f"{seed}.{self.framing}.{size}.v{VERSION}.safetensors"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where they are kept; 1.4 MB each at 9 frames of 64x64")
    parser.add_argument("--shots", type=int, required=True, help=f"how many, of the seeds from {FIRST_TRAINING_SEED}")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--size", default="64x64", help="width x height in pixels")
    parser.add_argument("--framing", choices=FRAMINGS, default="wide")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    folder = ShotFolder(args.folder, args.frames, height, width, args.framing)
    folder.fill(range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + args.shots), args.processes)


if __name__ == "__main__":
    main()

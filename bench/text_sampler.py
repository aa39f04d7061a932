"""A caption by the published sampler and by `JumpFirst`, on the same weights in one process.

Both make the same text in distribution. The published one asks for the posterior of every token at every step and draws
from it in float64; ours draws the jumps first, and asks only for the tokens that jump, in the steps in which any does.

    python bench/text_sampler.py                                                      # any machine, a small model
    python bench/text_sampler.py --model 1.3b --clip 81x480x832 --device cuda         # one large GPU

Prints, per length of the text, the seconds of a caption and the ratio published / ours, forwards and rows of the head,
the peak of memory above the weights (on the CPU the growth of the resident set, in a process of its own) and its ratio.
Every step of the published sampler is the same work, so a few are timed and counted for all; ours is timed whole.
The two are called in turn, and medians are shown.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from pathlib import Path

import torch
from joint_forward import MODELS, memory_of_process, synchronise

from comfyui_strata.joint.adapters import AdapterSettings
from comfyui_strata.joint.experts import empty_experts
from comfyui_strata.joint.families import VIGU, parse_task
from comfyui_strata.joint.sampling import Engine, Texts, sample_text
from comfyui_strata.joint.text_flow import JumpFirst, PublishedCaption, caption_rates, random_tokens, text_grid
from comfyui_strata.joint.transformer import Host
from comfyui_strata.joint.wan import WanConfig, empty_wan

VOCABULARY = 256_000
LENGTHS = (64, 256)
TASK = parse_task(VIGU, "R2C")
SMALL = WanConfig(dim=128, ffn_dim=352, num_layers=2, num_heads=1)


class Case:
    """Weights and inputs of one bench, the same for both samplers."""

    def __init__(self, config: WanConfig, clip: tuple[int, int, int], device: str, dtype: torch.dtype):
        torch.manual_seed(0)
        model = empty_wan(config, device=device, dtype=dtype)
        experts = empty_experts(VIGU, config, VOCABULARY, device, dtype)
        for parameter in (*model.parameters(), *experts.parameters()):
            parameter.data.normal_(std=1.0 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5)
        self.engine = Engine(model, None, AdapterSettings.published(VIGU), Host(), experts)
        frames, height, width = clip
        shape = (1, 1, config.in_dim, (frames - 1) // 4 + 1, height // 8, width // 8)
        self.clean = torch.randn(shape, device=device).to(dtype)
        self.texts = Texts(torch.zeros(1, 1, config.text_dim, device=device, dtype=dtype))

    def caption(self, solver: JumpFirst | PublishedCaption, length: int, grid: torch.Tensor) -> None:
        """One caption from noise."""
        ids = random_tokens(1, length, VOCABULARY, solver.generator)
        sample_text(self.engine, TASK, self.clean, ids, self.texts, solver, grid)

    def published(self, length: int, steps: int, timed: int) -> None:
        """The first `timed` of the published sampler's steps."""
        grid = text_grid(steps)
        solver = PublishedCaption(grid, self.generator())
        solver.steps = timed
        self.caption(solver, length, grid)

    def ours(self, length: int, steps: int) -> None:
        """A whole caption of ours."""
        self.caption(self.jumps(length, steps), length, text_grid(steps))

    def jumps(self, length: int, steps: int) -> JumpFirst:
        """The solver of `ours`, which knows what it takes."""
        return JumpFirst(caption_rates(text_grid(steps)), 1, length, self.generator())

    def generator(self) -> torch.Generator:
        """Draws on the device of the texts."""
        return torch.Generator(self.clean.device).manual_seed(1)


def seconds(function, *args) -> float:
    """Time of one call: on the wall with a GPU, whose work is included, else of this process's one thread, which a busy
    machine disturbs less."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    synchronise()
    start = clock()
    function(*args)
    synchronise()
    return clock() - start


def peak_on_cuda(function, *args) -> int:
    """Bytes that one call needs above what is allocated before it."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function(*args)
    return torch.cuda.max_memory_allocated() - before


def peaks_of_process(config: WanConfig, clip, calls, queue) -> None:
    """In a process of its own (Linux): bytes by which each call (method, arguments) lets the resident set grow."""
    torch.set_num_threads(1)
    case, peaks = Case(config, clip, "cpu", torch.float32), []
    for method, *args in calls:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = memory_of_process("VmRSS")
        getattr(case, method)(*args)
        peaks.append(memory_of_process("VmHWM") - before)
    queue.put(peaks)


def peaks_on_cpu(config: WanConfig, clip, calls) -> list[int]:
    """`peaks_of_process` in a fresh process whose freed memory goes back to the system at once."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=peaks_of_process, args=(config, clip, calls, queue))
    child.start()
    peaks = queue.get()
    child.join()
    return peaks


def main() -> None:
    """Measure and print a table."""
    models = {"small": SMALL, "1.3b": MODELS["1.3b"]}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=models, default="small")
    parser.add_argument("--clip", default="5x64x64", metavar="FRAMESxHEIGHTxWIDTH")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=VIGU.stream("caption").tokens.steps)
    parser.add_argument("--timed", type=int, default=2, help="steps of the published sampler that are timed")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    config, clip, cuda = models[args.model], tuple(map(int, args.clip.split("x"))), args.device.startswith("cuda")
    torch.set_num_threads(1)
    machine = torch.cuda.get_device_name() if cuda else f"one thread of {platform.processor() or platform.machine()}"
    dtype = torch.bfloat16 if cuda else torch.float32
    print(f"{args.model}, {args.clip}, {VOCABULARY} tokens, {args.steps} steps, {str(dtype)[6:]}, "
          f"torch {torch.__version__}, {machine}")
    case = Case(config, clip, args.device, dtype)
    print("S    published   ours      ratio   forwards    head rows      published peak  ours peak   memory ratio")
    for length in LENGTHS:
        calls = [("published", length, args.steps, 1), ("ours", length, args.steps)]
        # Ours is as large as it gets in its last step, in which all tokens jump.
        peaks = ([peak_on_cuda(getattr(case, method), *rest) for method, *rest in calls] if cuda
                 else peaks_on_cpu(config, clip, calls))
        solver = case.jumps(length, args.steps)
        case.published(length, args.steps, 1)  # warms both up: ours does nothing else
        pairs = [(seconds(case.published, length, args.steps, args.timed) * args.steps / args.timed,
                  seconds(case.ours, length, args.steps)) for _ in range(args.repeats)]
        times = [statistics.median(column) for column in zip(*pairs)]
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{length:<4} {times[0]:7.1f} s  {times[1]:6.2f} s  {ratio:6.1f}  {args.steps:4} {solver.forwards:4}  "
              f"{args.steps * length:6} {int(solver.jumps.sum()):5}  {peaks[0] / 2**20:10.0f} MiB "
              f"{peaks[1] / 2**20:7.0f} MiB  {peaks[0] / max(peaks[1], 1):8.2f}", flush=True)


if __name__ == "__main__":
    main()

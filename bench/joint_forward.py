"""One joint forward of ours against a plain reading of the reference, on the same weights in one process.

The plain reading does what the published code does: one row a stream, keys and values of all rows repeated for every
row, text projected for every row, one adapter pass per row, and all rows through the whole network.

    python bench/joint_forward.py --model 14b --clip 21x480x640 --device cuda     # one large GPU
    python bench/joint_forward.py                                                 # any machine, a small model

Prints, per task, the median time of each, the median ratio plain / ours of calls made in turn, the peak of memory above
the weights (on the CPU the growth of the resident set, in a process of its own) and its ratio, and the largest
difference between the two relative to the largest value.
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
import torch.nn.functional as F
from torch import Tensor

from comfyui_strata.joint.adapters import AdapterBank, AdapterSettings
from comfyui_strata.joint.attention import sdpa
from comfyui_strata.joint.families import INTRINSIC, parse_task
from comfyui_strata.joint.flow import stream_times
from comfyui_strata.joint.rope import grid_rope, rotate
from comfyui_strata.joint.sampling import Engine
from comfyui_strata.joint.streams import Role, Task
from comfyui_strata.joint.transformer import Host, joint_forward, sinusoid
from comfyui_strata.joint.wan import WanConfig, WanModel, empty_wan

MODELS = {
    "small": WanConfig(dim=512, ffn_dim=1408, num_layers=4, num_heads=4),
    "1.3b": WanConfig(dim=1536, ffn_dim=8960, num_layers=30, num_heads=12),
    "14b": WanConfig(),
}
TASKS = ("t2RAIN", "R2AIN", "AIN2R")
RANK = 32


def plain_forward(model: WanModel, bank: AdapterBank, task: Task, x: Tensor, times: Tensor, context: Tensor) -> Tensor:
    """The velocity of every row [M, C, F, Y, X], as the published code goes about it."""
    rows, config = len(task.roles), model.config
    tokens = model.patch_embedding(x)
    grid = tuple(tokens.shape[2:])
    tokens = tokens.flatten(2).transpose(1, 2)  # [M, L, D]
    rope = grid_rope(grid, config.dim // config.num_heads, device=x.device)
    embedding = model.time_embedding(sinusoid(times, config.freq_dim).to(x.dtype))
    rows_of_time = model.time_projection(embedding).unflatten(-1, (6, -1))
    text = model.text_embedding(context.expand(rows, -1, -1))
    for block, weights in zip(model.blocks, bank.blocks):
        shift1, scale1, gate1, shift2, scale2, gate2 = (block.modulation + rows_of_time).unsqueeze(2).unbind(1)
        y = block.norm1(tokens) * (1 + scale1) + shift1
        attention = block.self_attn
        q, k, v = attention.q(y), attention.k(y), attention.v(y)
        for row, role in enumerate(task.roles):
            if role is Role.TARGET:
                for j, out in enumerate((q, k, v)):
                    down = weights.qkv_down[row].chunk(3)[j]
                    out[row] += F.linear(F.linear(y[row], down), weights.qkv_up[row, j])
        q = rotate(attention.norm_q(q).unflatten(-1, (config.num_heads, -1)), rope).flatten(2)
        k = rotate(attention.norm_k(k).unflatten(-1, (config.num_heads, -1)), rope).flatten(2)
        k = k.flatten(0, 1).repeat(rows, 1, 1)  # [M, M*L, D]
        v = v.flatten(0, 1).repeat(rows, 1, 1)
        a = sdpa(q, k, v, config.num_heads)
        out = attention.o(a)
        for row, role in enumerate(task.roles):
            if role is Role.TARGET:
                out[row] += F.linear(F.linear(a[row], weights.o_down[row]), weights.o_up[row])
        tokens = tokens + gate1 * out
        cross = block.cross_attn
        q = cross.norm_q(cross.q(block.norm3(tokens)))
        tokens = tokens + cross.o(sdpa(q, cross.norm_k(cross.k(text)), cross.v(text), config.num_heads))
        y = block.norm2(tokens) * (1 + scale2) + shift2
        hidden = block.ffn[0](y)
        for row in range(rows):
            hidden[row] += F.linear(F.linear(y[row], weights.ffn_in_down), weights.ffn_in_up)
        hidden = F.gelu(hidden, approximate="tanh")
        out = block.ffn[2](hidden)
        for row in range(rows):
            out[row] += F.linear(F.linear(hidden[row], weights.ffn_out_down), weights.ffn_out_up)
        tokens = tokens + gate2 * out
    shift, scale = (model.head.modulation + embedding.unsqueeze(1)).unsqueeze(2).unbind(1)
    y = model.head.head(model.head.norm(tokens) * (1 + scale) + shift)
    y = y.unflatten(-1, (*config.patch_size, -1)).unflatten(1, grid)  # [M, f, h, w, pt, ph, pw, C]
    return y.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


class Case:
    """Weights and inputs of one bench, the same for both forwards."""

    def __init__(self, config: WanConfig, clip: tuple[int, int, int], device: str, dtype: torch.dtype):
        torch.manual_seed(0)
        self.model = empty_wan(config, device=device, dtype=dtype)
        self.bank = AdapterBank(INTRINSIC, config.num_layers, config.dim, config.ffn_dim, RANK, device, dtype)
        for parameter in (*self.model.parameters(), *self.bank.parameters()):
            scale = 1.0 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
            parameter.data.normal_(std=scale)
        frames, height, width = clip
        shape = (len(INTRINSIC.streams), config.in_dim, (frames - 1) // 4 + 1, height // 8, width // 8)
        self.x = torch.randn(shape, device=device).to(dtype)
        self.context = torch.randn(1, 512, config.text_dim, device=device).to(dtype)

    def plain(self, task: Task) -> Tensor:
        """The plain reading's targets."""
        times = torch.cat(stream_times(task, 0.75, device=self.x.device)).flatten()
        with torch.inference_mode():
            out = plain_forward(self.model, self.bank, task, self.x, times, self.context)
        return out[[i for i, role in enumerate(task.roles) if role is Role.TARGET]]

    def ours(self, task: Task) -> Tensor:
        """Our targets, in row order."""
        x = self.x.unsqueeze(0)
        engine = Engine(self.model, self.bank, AdapterSettings.published(INTRINSIC), Host())
        layout, adapters = engine.bind(task, x)
        times = stream_times(task, 0.75, device=x.device)
        with torch.inference_mode():
            out = joint_forward(self.model, x.unbind(1), times, self.context, layout=layout, adapters=adapters,
                                context_index=[[0] * len(task.roles)], host=engine.host)
        return torch.cat([out[layout.outputs.index(row)] for row in sorted(layout.outputs)])


def seconds(function, task: Task) -> float:
    """Wall time of one call, the GPU's work included."""
    synchronise()
    start = time.perf_counter()
    function(task)
    synchronise()
    return time.perf_counter() - start


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_on_cuda(function, task: Task) -> int:
    """Bytes that one call needs above what is allocated before it."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function(task)
    return torch.cuda.max_memory_allocated() - before


def peak_of_process(which: str, name: str, config: WanConfig, clip, queue) -> None:
    """In a process of its own (Linux): bytes by which one call lets the resident set grow."""
    case, task = Case(config, clip, "cpu", torch.float32), parse_task(INTRINSIC, name)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = memory_of_process("VmRSS")
    getattr(case, which)(task)
    queue.put(memory_of_process("VmHWM") - before)


def memory_of_process(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def peak_on_cpu(which: str, name: str, config: WanConfig, clip) -> int:
    """`peak_of_process` in a fresh process whose freed memory goes back to the system at once."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=peak_of_process, args=(which, name, config, clip, queue))
    child.start()
    peak = queue.get()
    child.join()
    return peak


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--clip", default="5x128x160", metavar="FRAMESxHEIGHTxWIDTH")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    config, clip, cuda = MODELS[args.model], tuple(map(int, args.clip.split("x"))), args.device.startswith("cuda")
    machine = torch.cuda.get_device_name() if cuda else f"{platform.processor() or platform.machine()} CPU"
    dtype = torch.bfloat16 if cuda else torch.float32
    print(f"{args.model}, {args.clip}, {str(dtype)[6:]}, torch {torch.__version__}, {machine}")
    print("task     plain      ours       time ratio   plain peak  ours peak   memory ratio  difference")
    case = Case(config, clip, args.device, dtype)
    for name in TASKS:
        task = parse_task(INTRINSIC, name)
        reference, ours = case.plain(task).float(), case.ours(task).float()  # warms both up, too
        difference = float((reference - ours).abs().max() / reference.abs().max())
        pairs = [(seconds(case.plain, task), seconds(case.ours, task)) for _ in range(args.repeats)]
        times = [statistics.median(column) for column in zip(*pairs)]
        ratio = statistics.median(a / b for a, b in pairs)
        if cuda:
            peaks = [peak_on_cuda(case.plain, task), peak_on_cuda(case.ours, task)]
        else:
            peaks = [peak_on_cpu(which, name, config, clip) for which in ("plain", "ours")]
        print(f"{name:<8} {times[0]:7.3f} s  {times[1]:7.3f} s  {ratio:7.2f}      {peaks[0] / 2**20:7.0f} MiB "
              f"{peaks[1] / 2**20:7.0f} MiB  {peaks[0] / max(peaks[1], 1):7.2f}       {difference:.1e}", flush=True)


if __name__ == "__main__":
    main()

"""ComfyUI's context windows on a long clip: 41 frames are 11 latent frames, a window of 21 frames holds 6."""

from __future__ import annotations

import torch
from comfy_extras import nodes_context_windows
from torch import Tensor

from . import tiny

LONG = (11, 4, 6)


def windowed(model, length: int = 21, overlap: int = 8, schedule: str = "standard_static", fuse: str = "pyramid",
             freenoise: bool = False, retain: bool = False):
    """The stock WanContextWindowsManual node; lengths in real frames."""
    return nodes_context_windows.WanContextWindowsManualNode.execute(
        model, length, overlap, schedule, 1, False, fuse, freenoise, retain).result[0]


def given_frames() -> dict:
    """R2AIN, albedo given in its first 6 latent frames, so that its row is given in one window and not in another."""
    latent = tiny.latent("R2AIN", grid=LONG)
    latent["samples"][1, :, :6] = tiny.latent("A2RIN", grid=LONG)["samples"][1, :, :6]
    latent["noise_mask"][1, :, :6] = 0
    return latent


def check_every_schedule():
    """Every schedule and way of joining windows runs on a 41-frame clip, with and without FreeNoise and CFG: finite,
    given layers and frames exact."""
    model, ran = tiny.layered(), 0
    for latent in (tiny.latent(grid=LONG), given_frames()):
        for schedule in ("standard_static", "standard_uniform", "looped_uniform", "batched"):
            for fuse, freenoise, cfg in (("pyramid", True, 1.0), ("flat", False, 5.0), ("overlap-linear", False, 1.0)):
                m = windowed(model, schedule=schedule, fuse=fuse, freenoise=freenoise)
                tiny.keeps_given(f"{schedule} {fuse}", tiny.ksampler(m, latent, steps=2, cfg=cfg), latent)
                ran += 1
        tiny.keeps_given("relative", tiny.ksampler(windowed(model, fuse="relative", retain=True), latent), latent)
    return f"{ran + 2} samplings, given parts exact"


def check_windows_are_windows():
    """The network sees 6 (and with the causal frame 7) latent frames at a time, of every layer, and each row's times
    are those of its part of the mask."""
    spy = tiny.Spy(windowed(tiny.layered()))
    latent = given_frames()
    tiny.ksampler(spy.model, latent, steps=2)
    lengths = {x.shape[2] for x in spy["x"]}
    assert lengths == {6, 7} and {len(x) for x in spy["x"]} == {4}, (lengths, [x.shape for x in spy["x"]])
    first, second = spy["timestep"][:2]
    assert first.shape == (4, 1) and first[1] == first[0], "albedo is given in the first window, all of it"
    assert second.shape == (4, 7), second.shape
    given = latent["noise_mask"][1, 0, 3:10, 0, 0] == 0  # the second window: frames 4-9 after the causal frame 3
    assert torch.equal(second[1] == second[0], given), second
    return f"{len(spy.calls)} calls of {sorted(lengths)} frames"


def check_one_window():
    """A window as long as the clip is no window, bit by bit; so is one longer."""
    model, latent = tiny.layered(), tiny.latent(grid=LONG)
    plain = tiny.ksampler(model, latent, cfg=5.0)
    return "; ".join(tiny.equal(f"{n} frames", tiny.ksampler(windowed(model, n), latent, cfg=5.0), plain)
                     for n in (41, 81))


def clean_at_first_step(model, latent: dict, noise: Tensor) -> Tensor:
    """The network's picture of the clean latent at the first step."""
    seen = []
    tiny.sample_noise(model, latent, noise, steps=4, callback=lambda i, x0, x, n: seen.append(x0.clone()))
    return seen[0]


def check_windows_by_hand():
    """One step in windows equals the windows sampled as clips of their own and joined by hand (flat weights, no causal
    frame), to 1e-5: each window is a joint forward of all layers over its frames."""
    model, said = tiny.layered(), []
    noise = torch.randn(4, 16, *LONG, generator=torch.Generator().manual_seed(4))
    for latent, name in ((tiny.latent(grid=LONG), "rows"), (given_frames(), "frames")):
        node = nodes_context_windows.ContextWindowsManualNode
        m = node.execute(model, 6, 2, "standard_static", 1, False, "flat", 2, False, causal_window_fix=False).result[0]
        ours = clean_at_first_step(m, latent, noise)
        total, count = torch.zeros_like(noise), torch.zeros(LONG[0], 1, 1)
        for start in (0, 4, 5):  # stride 4, the last one moved back to the end
            part = slice(start, start + 6)
            clip = {key: tensor[:, :, part] for key, tensor in latent.items()}
            total[:, :, part] += clean_at_first_step(model, clip, noise[:, :, part])
            count[part] += 1
        said.append(tiny.within(name, ours, total / count, 1e-5))
    return "; ".join(said)


def check_window_with_nothing_to_make():
    """A clip whose first half is given in every layer: the window over it has nothing to compute, the rest is made."""
    latent = tiny.latent("t2RAIN", grid=LONG)
    latent["samples"][:, :, :6] = torch.randn(4, 16, 6, *LONG[1:], generator=torch.Generator().manual_seed(2))
    latent["noise_mask"][:, :, :6] = 0
    out = tiny.ksampler(windowed(tiny.layered()), latent, cfg=5.0)
    return tiny.keeps_given("half a clip", out, latent)


def check_two_clips_in_windows():
    """Two clips in a batch, in windows, equal two runs, to 1e-5."""
    model = windowed(tiny.layered())
    noise = torch.randn(8, 16, *LONG, generator=torch.Generator().manual_seed(4))
    clips = tiny.latent(grid=LONG), given_frames()
    joined = tiny.sample_noise(model, tiny.join(*clips), noise, steps=2, cfg=5.0)
    alone = [tiny.sample_noise(model, clip, part, steps=2, cfg=5.0) for clip, part in zip(clips, noise.chunk(2))]
    return tiny.within("two clips", joined, torch.cat(alone), 1e-5)


def check_stock_model_still_windows():
    """A plain MODEL keeps its own windows after its clone had layers: nothing of ours wraps it."""
    base = tiny.wan_model()
    stock = windowed(base)
    empty = {"samples": torch.zeros(1, 16, *LONG)}
    before = tiny.ksampler(stock, empty)
    tiny.ksampler(windowed(tiny.layered(model=base)), tiny.latent(grid=LONG), steps=2)
    return tiny.equal("stock windows", tiny.ksampler(stock, empty), before)

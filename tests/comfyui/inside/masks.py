"""Masks by frame and by region: times per token against an independent reading, and what is kept stays exact."""

from __future__ import annotations

import torch
from torch import Tensor

from . import tiny

GRID = (3, 4, 6)
HELD = 1000 * 5 * 0.001 / (1 + 4 * 0.001)  # the time of what is given, before rounding


def frame_mask() -> dict:
    """R2AIN, and albedo given in its first two latent frames."""
    latent = tiny.latent("R2AIN", grid=GRID)
    latent["samples"][1, :, :2] = tiny.latent("A2RIN", grid=GRID)["samples"][1, :, :2]
    latent["noise_mask"][1, :, :2] = 0
    return latent


def region_mask() -> dict:
    """R2AIN, and albedo generated only in a 2x4 corner of its last two latent frames and in one cell of the first, a
    quarter of a token."""
    latent = tiny.latent("R2AIN", grid=GRID)
    keep = torch.ones(GRID, dtype=torch.bool)
    keep[1:, 2:, 2:] = False
    keep[0, 1, 1] = False
    latent["samples"][1] = tiny.latent("A2RIN", grid=GRID)["samples"][1] * keep
    latent["noise_mask"][1, 0] = (~keep).float()
    return latent


def expected_times(mask: Tensor, sigma: float) -> Tensor:
    """Time of every token [M, T*h/2*w/2], token by token: generated if any of its 2x2 cells is."""
    rows = []
    for row in mask[:, 0]:
        for frame in row:
            for y in range(0, frame.shape[0], 2):
                for x in range(0, frame.shape[1], 2):
                    made = frame[y:y + 2, x:x + 2].max() > 0
                    rows.append(1000 * sigma if made else HELD)
    return torch.tensor(rows).bfloat16().float().view(len(mask), -1)


def sees_times(latent: dict, per_row: int) -> str:
    """The network gets `per_row` times a row, each what `expected_times` says, at every step."""
    spy = tiny.Spy(tiny.layered())
    out = tiny.ksampler(spy.model, latent)
    sigmas = [5 * u / (1 + 4 * u) for u in (1.0, 0.75, 0.5, 0.25)]
    for seen, sigma in zip(spy["timestep"], sigmas):
        assert seen.shape == (4, per_row), f"{tuple(seen.shape)} times, {per_row} a row were expected"
        tokens = expected_times(latent["noise_mask"], sigma)
        tiny.equal("times", seen.repeat_interleave(tokens.shape[1] // per_row, dim=1), tokens)
    return f"{per_row} times a row as expected; " + tiny.keeps_given("mask", out, latent)


def check_whole_rows():
    """Layers given as a whole cost one time a row."""
    return sees_times(tiny.latent("R2AIN", grid=GRID), 1)


def check_frames():
    """A mask by frame costs one time a frame; kept frames stay exact."""
    return sees_times(frame_mask(), GRID[0])


def check_regions():
    """A mask by region costs one time a token; kept regions stay exact."""
    return sees_times(region_mask(), GRID[0] * GRID[1] * GRID[2] // 4)


def check_token_times_equal_frame_times():
    """Times written out per token give what times per frame give, to 1e-6: rows and frames are no special cases."""
    said = []
    for latent, name in ((frame_mask(), "by frame"), (tiny.latent("R2AIN", grid=GRID), "by row")):
        def spelled_out(executor, x, timestep, *args, **kwargs):
            tokens = GRID[0] * GRID[1] * GRID[2] // 4
            return executor(x, timestep.repeat_interleave(tokens // timestep.shape[1], dim=1), *args, **kwargs)

        model = tiny.layered()
        coarse = tiny.ksampler(model, latent, cfg=5.0)
        fine = model.clone()
        fine.add_wrapper_with_key(tiny.WrappersMP.DIFFUSION_MODEL, "spelled out", spelled_out)
        said.append(tiny.within(name, tiny.ksampler(fine, latent, cfg=5.0), coarse, 1e-6))
    return "; ".join(said)


def check_masked_parts_matter():
    """What is given in a part of a layer is seen by the others: changing it changes the other layers."""
    said = []
    for make, name in ((frame_mask, "frames"), (region_mask, "region")):
        model, latent = tiny.layered(), make()
        other = {**latent, "samples": latent["samples"].clone()}
        other["samples"][1] *= -1
        first, second = tiny.ksampler(model, latent), tiny.ksampler(model, other)
        said.append(tiny.differs(name, second[2:], first[2:]))
    return "; ".join(said)


def check_soft_masks_are_hard():
    """A token is generated or given, nothing between: a mask of 0.3 is a mask of 1."""
    model, hard = tiny.layered(), region_mask()
    soft = {**hard, "noise_mask": hard["noise_mask"] * 0.3}
    return tiny.equal("a mask of 0.3", tiny.ksampler(model, soft), tiny.ksampler(model, hard))


def check_mixed_rows_run_as_targets():
    """A layer with any part to generate runs with its adapters on, all of it (specs/comfyui.md §1.2)."""
    from ....comfy_host.attach import joint_model, with_settings
    from ....joint.adapters import Gate

    model, latent = tiny.layered(), region_mask()
    always = with_settings(model, joint_model(model).settings.with_stream(1, 1.0, Gate.ALWAYS))
    off = with_settings(model, joint_model(model).settings.with_stream(1, 1.0, Gate.OFF))
    plain = tiny.ksampler(model, latent)
    return "; ".join((tiny.equal("'always'", tiny.ksampler(always, latent), plain),
                      tiny.differs("'off'", tiny.ksampler(off, latent), plain)))


def check_odd_sizes():
    """Latents of odd height and width run and come back in size, with whole rows, frames and regions given."""
    said = []
    for grid in ((2, 5, 6), (2, 4, 7), (3, 5, 7)):
        for part in ("row", "frame", "region"):
            latent = tiny.latent("R2AIN", grid=grid)
            keep = torch.zeros(grid, dtype=torch.bool)
            if part == "frame":
                keep[0] = True
            if part == "region":
                keep[:, 2:, 4:] = True  # up to the odd edge, in whole tokens
            latent["samples"][1] = tiny.latent("A2RIN", grid=grid)["samples"][1] * keep
            latent["noise_mask"][1, 0] = (~keep).float()
            out = tiny.ksampler(tiny.layered(), latent, cfg=5.0)
            assert out.shape == latent["samples"].shape, f"{grid} came back as {tuple(out.shape)}"
            said.append(tiny.keeps_given(f"{grid} {part}", out, latent))
    return "; ".join(said)

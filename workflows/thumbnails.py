"""Draws the pictures that ComfyUI's template browser shows of the example graphs: NAME.jpg beside NAME.json.

    python workflows/thumbnails.py

Left what a graph is given, right what it makes: what a task means, drawn with the exact layers of a synthetic shot
(docs/scenes.md), not what a model makes of it. The pack has to be installed (`pip install -e .`).
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from comfyui_strata.imaging.colour import linear_to_srgb, srgb_to_linear
from comfyui_strata.training.pictures import pictures
from comfyui_strata.training.scenes import render

HERE = Path(__file__).parent
SEED, OTHER_SEED, FRAME = 7, 12, 1  # of the shot, of the new background, and which frame is shown
SIDE, GAP, ARROW, LABEL = 220, 6, 40, 15  # pixels: the larger side of a half, between tiles, between halves, under one
HEIGHT = SIDE + 2 * GAP
WIDTH = 2 * SIDE + ARROW + 2 * GAP
GROUND, INK, PAPER = (24, 26, 30), (235, 235, 235), (52, 56, 64)
PROMPT, CAPTION = "a prompt: words of yours", "a caption: what the clip shows, in words"
LAYERS = ["albedo", "irradiance", "normal"]
CUT = ["alpha", "fg", "bg"]
# Graph: what it is given, what it makes; names of `tiles`.
SHOWN = {
    "inverse_rendering": (["rgb"], LAYERS),
    "start_here": ([PROMPT], ["rgb", "irradiance", "rgb, relit", CAPTION]),
    "adapter_strength": (["rgb"], ["albedo", "albedo, weaker"]),
    "text_to_intrinsic": ([PROMPT], ["rgb", *LAYERS]),
    "relight_edited_irradiance_ain2r": (["rgb", "edited light"], ["rgb, relit"]),
    "relight_edited_irradiance_in2ra": (["normal", "edited light", PROMPT], ["rgb, relit", "albedo"]),
    "relight_layers": (["rgb", *LAYERS], ["a new sun", "residual"]),
    "day_to_night": (["rgb"], ["night"]),
    "matting": (["plate"], CUT),
    "matting_to_exr": (["plate", "new bg"], [*CUT, "comp"]),
    "new_background": (["plate", *CUT, "new bg"], ["comp"]),
    "light_of_the_new_background": (["plate", "new bg"], ["comp, lit by it"]),
    "replace_background_pb2rf": (["alpha", "new bg"], ["comp", "fg"]),
    "replace_background_rpf2b": (["plate", "alpha", "fg"], ["bg"]),
    "text_to_rgba": ([PROMPT], ["plate", *CUT]),
    "alpha_video": (["fg with alpha", "new bg"], ["comp", "alpha"]),
    "small_layers_at_plate_size": (["rgb", "albedo, small", "normal, small"], ["albedo", "normal"]),
    "exr_there_and_back": (["rgb", "normal"], ["rgb, in linear light", "rgb", "normal"]),
    **{f"rgb_to_{layer}": (["rgb"], [layer]) for layer in ("depth", "flow", "segmentation", "skeleton", "densepose")},
    **{f"{layer}_to_video": ([layer, PROMPT], ["rgb"]) for layer in ("depth", "flow", "segmentation", "skeleton",
                                                                     "densepose")},
    "depth_anything_to_video": (["rgb", "depth", PROMPT], ["new rgb"]),
    "caption": (["rgb"], [CAPTION]),
    "caption_edited_to_video": (["rgb", CAPTION], ["new rgb"]),
    "text_to_video_with_caption": ([PROMPT], ["rgb", CAPTION]),
    "relight_foreground_with_caption": (["plate", CAPTION], ["fg, relit"]),
}


def tiles() -> dict[str, Tensor]:
    """Every picture that `SHOWN` names, [H, W, 3] in 0..1, sRGB-encoded where it is colour."""
    shot, other = (render(seed, FRAME + 1, SIDE, SIDE, specular=True, antialias=2) for seed in (SEED, OTHER_SEED))
    here, there = ({name: images[FRAME] for name, images in pictures(of).items()} for of in (shot, other))
    albedo, light = srgb_to_linear(here["albedo"]), shot.irradiance[FRAME]
    plate = shot.plate
    alpha, fg = plate.alpha[FRAME], plate.fg_linear[FRAME]
    warm, cold = torch.tensor([1.5, 0.85, 0.4]), torch.tensor([0.05, 0.09, 0.22])
    sun = (shot.normal[FRAME] @ torch.tensor([0.8, 0.45, 0.4])).clamp_min(0)[..., None] * warm
    behind = srgb_to_linear(there["bg"])
    new_light = behind.mean((0, 1)) / light.mean((0, 1))
    small = {f"{name}, small": here[name][4::8, 4::8].repeat_interleave(8, 0).repeat_interleave(8, 1)[:SIDE, :SIDE]
             for name in ("albedo", "normal")}
    rows, columns = torch.meshgrid(torch.arange(SIDE) // 10, torch.arange(SIDE) // 10, indexing="ij")
    checks = 0.1 + 0.1 * ((rows + columns) % 2)[..., None].expand(-1, -1, 3)
    linear = {
        "edited light": light * warm, "rgb, relit": albedo * light * warm, "a new sun": albedo * (sun + 0.05),
        "residual": shot.rgb_linear[FRAME] - albedo * light, "night": albedo * light * cold,
        "comp": fg * alpha + behind * (1 - alpha), "comp, lit by it": fg * new_light * alpha + behind * (1 - alpha),
        "fg with alpha": fg * alpha + checks * (1 - alpha),
        "fg, relit": fg * warm * alpha + srgb_to_linear(here["bg"]) * (1 - alpha),
    }
    return here | small | {name: linear_to_srgb(image.clamp(0, 1)) for name, image in linear.items()} | {
        "new bg": there["bg"], "new rgb": here["rgb"][..., [2, 0, 1]],
        "albedo, weaker": 0.6 * here["albedo"] + 0.4 * here["rgb"],
        "rgb, in linear light": srgb_to_linear(here["rgb"])}


def half(names: list[str], known: dict[str, Tensor]) -> Image.Image:
    """The tiles of one side of the arrow, labelled."""
    columns = math.ceil(math.sqrt(len(names)))
    rows = math.ceil(len(names) / columns)
    room = (SIDE - GAP * (max(columns, rows) - 1)) // max(columns, rows)
    picture = Image.new("RGB", (columns * (room + GAP) - GAP, rows * (room + GAP) - GAP), GROUND)
    for index, name in enumerate(names):
        at = index % columns * (room + GAP), index // columns * (room + GAP)
        picture.paste(tile(name, known.get(name), room), at)
    return picture


def tile(name: str, image: Tensor | None, side: int) -> Image.Image:
    """One picture with its name under it; words where there is none."""
    made = Image.new("RGB", (side, side), PAPER)
    draw = ImageDraw.Draw(made)
    if image is None:
        kind, _, words = name.partition(": ")
        size = max(11, side // 9)
        text = textwrap.fill(f"“{words}”", width=max(8, int(side / size * 1.7)))
        draw.multiline_text((side / 2, (side - LABEL) / 2), text, INK, ImageFont.load_default(size), anchor="mm",
                            align="center")
        name = kind
    else:
        shown = Image.fromarray((image.clamp(0, 1) * 255).round().byte().numpy())
        made.paste(shown.resize((side, side), Image.Resampling.LANCZOS).crop((0, LABEL // 2, side, side - LABEL // 2)))
    draw.rectangle((0, side - LABEL, side, side), PAPER)
    draw.text((side / 2, side - LABEL / 2), name, INK, ImageFont.load_default(11), anchor="mm")
    return made


def thumbnail(given: list[str], made: list[str], known: dict[str, Tensor]) -> Image.Image:
    """Both halves, and the arrow between them."""
    card = Image.new("RGB", (WIDTH, HEIGHT), GROUND)
    for names, left in ((given, GAP), (made, WIDTH - GAP - SIDE)):
        side = half(names, known)
        card.paste(side, (left + (SIDE - side.width) // 2, (HEIGHT - side.height) // 2))
    x, y = WIDTH // 2, HEIGHT // 2
    ImageDraw.Draw(card).polygon([(x - 8, y - 12), (x + 10, y), (x - 8, y + 12)], INK)
    return card


if __name__ == "__main__":
    known = tiles()
    for name, (given, made) in SHOWN.items():
        thumbnail(given, made, known).save(HERE / f"{name}.jpg", quality=82, optimize=True)

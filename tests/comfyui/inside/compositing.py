"""The colour and compositing nodes: what each computes, and a graph of them run by ComfyUI's executor."""

from __future__ import annotations

import asyncio
from pathlib import Path

import execution
import folder_paths
import numpy as np
import torch
from PIL import Image
from server import PromptServer
from torch import Tensor

from ....imaging.colour import LINEAR, convert_colours, linear_to_srgb, srgb_to_linear
from ....imaging.compositing.composite import PREMULTIPLIED, STRAIGHT, over
from ....nodes.alpha_video import AS_STATED, LoadAlphaVideo, SaveAlphaVideo
from ....nodes.colour_space import ENVIRONMENT, ColourSpaceNode
from ....nodes.compositor import Compositor, MakeCompLayer
from ....nodes.decontaminate import Decontaminate
from ....nodes.despill import Despill
from ....nodes.highlights import CompressHighlights, RestoreHighlights
from ....nodes.refine_matte import RefineMatte
from . import tiny


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def layer(foreground: Tensor, alpha: Tensor | None = None, operator: str = "over", **changes):
    """What Strata Comp Layer gives with its defaults but for `changes`."""
    settings = {"opacity": 1.0, "x": 0.0, "y": 0.0, "scale": 1.0, "rotation": 0.0, **changes}
    return MakeCompLayer.execute(foreground, operator, alpha=alpha, **settings).result[0]


def check_decontaminate_and_composite():
    """A plate mixed in linear light comes apart and together again; on a new background it is as if shot there."""
    fg, bg, new = (noise(3, 6, 8, 3, seed=seed) for seed in range(3))
    alpha = noise(3, 6, 8, seed=3) * 0.9 + 0.1
    plate = linear_to_srgb(over(srgb_to_linear(fg), alpha[..., None], srgb_to_linear(bg)))
    clean, left = Decontaminate.execute(plate, alpha, bg, "sRGB", 0.0).result
    stack = {"layer0": layer(clean, alpha), "layer1": None}
    made, cover, residual = Compositor.execute("sRGB", stack, bg, plate).result
    assert cover.shape == alpha.shape and residual.shape == plate.shape
    fresh = Compositor.execute("sRGB", stack, new[:1]).result
    expected = over(srgb_to_linear(fg), alpha[..., None], srgb_to_linear(new[:1]))
    assert fresh[2].shape == (1, 6, 8, 3) and not fresh[2].any()
    return "; ".join((tiny.within("foreground", clean, fg, 1e-4), tiny.within("plate", made, plate, 1e-5),
                      tiny.within("new plate", fresh[0], linear_to_srgb(expected), 1e-5),
                      f"residuals {left.abs().max():.1e}, {residual.abs().max():.1e}"))


def check_operators_and_moves():
    """Operator, opacity, position and premultiplied edges reach the stack; without a background it has the size of the
    first layer, and comes premultiplied when asked so."""
    glow, small = noise(2, 6, 8, 3, seed=1), noise(1, 2, 2, 3, seed=2)
    ground = noise(1, 6, 8, 3, seed=3)
    stack = {"layer0": layer(glow, operator="plus", opacity=0.5), "layer1": layer(small, x=1.0, y=-2.0)}
    made = Compositor.execute(LINEAR, stack, ground).result[0]
    expected = ground + 0.5 * glow
    expected[:, 0:2, 4:6] = small
    said = tiny.within("stack", made, expected, 1e-6)
    ready = layer(noise(1, 6, 8, 4), alpha_mode=PREMULTIPLIED)
    plate, cover, _ = Compositor.execute(LINEAR, {"layer0": ready}, alpha_mode=PREMULTIPLIED).result
    return said + "; " + tiny.equal("colour", plate, noise(1, 6, 8, 4)[..., :3]) + "; " + tiny.equal(
        "alpha", cover, noise(1, 6, 8, 4)[..., 3])


def check_a_stack_over_nothing():
    """A stack saved straight by Save Alpha Video and loaded again composites as the stack itself; over an opaque
    background both alpha modes are one."""
    stack = {"layer0": layer(noise(2, 6, 8, 3, seed=1), noise(2, 6, 8, seed=2), x=2.0),
             "layer1": layer(noise(1, 6, 8, 3, seed=3), noise(1, 6, 8, seed=4), opacity=0.5, y=-1.5)}
    new = noise(1, 6, 8, 3, seed=5)
    direct = Compositor.execute("sRGB", stack, new).result[0]
    ready = Compositor.execute("sRGB", stack, new, alpha_mode=PREMULTIPLIED).result[0]
    plate, cover, _ = Compositor.execute("sRGB", stack).result
    file = SaveAlphaVideo.execute("over_nothing", plate, "ffv1", STRAIGHT, 24.0, alpha=cover).result[0]
    loaded, mask, *_ = LoadAlphaVideo.execute(file, AS_STATED).result
    later = Compositor.execute("sRGB", {"layer0": layer(loaded, mask)}, new).result[0]
    return "; ".join((tiny.within("opaque", ready, direct, 1e-6), tiny.within("through a file", later, direct, 1.5e-4)))


def check_matte_and_despill():
    """Refine Matte clamps, cleans and fills; Despill takes green and says how much."""
    alpha = torch.zeros(2, 12, 12)
    alpha[:, 2:9, 2:9], alpha[:, 5, 5], alpha[:, 11, 11] = 1.2, 0.4, 0.6
    clean = RefineMatte.execute(alpha, 0.05, 0.95, 1, 1, 1, 0.0, 0.5).result[0]
    solid = torch.zeros(2, 12, 12)
    solid[:, 2:9, 2:9] = 1
    green = torch.tensor([0.2, 0.8, 0.4, 0.7]).expand(1, 2, 2, 4)
    foreground, spill = Despill.execute(green, LINEAR, "green", "average", 1.0, 0.0).result
    neutral = torch.tensor([0.2, 0.3, 0.4, 0.7]).expand(1, 2, 2, 4)
    return "; ".join((tiny.equal("matte", clean, solid), tiny.within("foreground", foreground, neutral, 1e-6),
                      tiny.within("spill", spill, torch.full((1, 2, 2), 0.5), 1e-6)))


def check_colour():
    """Colour Space converts, HDR plates are compressed and restored; OpenColorIO converts, or says what to install."""
    plate = noise(2, 4, 4, 3) * 20
    there = ColourSpaceNode.execute(plate, {"spaces": "built in", "source": LINEAR, "target": "ACEScg (AP1)"}).result[0]
    said = [tiny.within("ACEScg", there, convert_colours(plate, LINEAR, "ACEScg (AP1)"), 1e-7)]
    made = CompressHighlights.execute(plate, LINEAR, 0.8).result[0]
    assert made.max() < 1
    said.append(tiny.within("restored", RestoreHighlights.execute(made, plate, LINEAR, 0.8).result[0], plate, 1e-4))
    config = {"spaces": "OpenColorIO", "config": ENVIRONMENT, "source": "Linear Rec.709 (sRGB)", "target": "ACEScg"}
    try:
        said.append(tiny.within("OpenColorIO", ColourSpaceNode.execute(plate, config).result[0], there, 1e-4))
    except ImportError as error:
        assert "pip install opencolorio" in str(error)
        said.append("OpenColorIO is not installed")
    return "; ".join(said)


def check_refusals():
    """What does not go together is refused in one sentence."""
    picture, alpha = noise(2, 4, 5, 3), noise(2, 4, 5)
    return " ".join((
        tiny.raises(ValueError, "0 to 1 is needed", "Refine Matte", call=lambda: layer(picture, alpha * 3)),
        tiny.raises(ValueError, "layer 5x4, alpha 4x4", call=lambda: layer(picture, alpha[..., :4])),
        tiny.raises(ValueError, "layer 1 2", "background 3", call=lambda: Compositor.execute(
            "sRGB", {"layer0": layer(picture)}, noise(3, 4, 5, 3))),
        tiny.raises(ValueError, "nothing to composite", call=lambda: Compositor.execute("sRGB", {})),
        tiny.raises(ValueError, "NaN", call=lambda: Despill.execute(
            picture * torch.nan, "sRGB", "green", "average", 1.0, 1.0)),
        tiny.raises(ValueError, "background 4x4", call=lambda: Decontaminate.execute(
            picture, alpha, picture[:, :, :4], "sRGB", 0.0))))


def check_graph():
    """A prompt with grown slots and nested widgets is valid and runs: gray at half opacity over red, in linear light.
    """

    def flat(colour: int) -> dict:
        return {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 6, "batch_size": 2, "color": colour}}

    def lies(**changes) -> dict:
        inputs = {"operator": "over", "opacity": 1.0, "x": 0.0, "y": 0.0, "scale": 1.0, "rotation": 0.0,
                  "alpha_mode": "straight", **changes}
        return {"class_type": "StrataCompLayer", "inputs": inputs}

    prompt = {
        "red": flat(0xFF0000), "gray": flat(0xBCBCBC), "half": lies(foreground=["gray", 0], opacity=0.5),
        "corner": lies(foreground=["red", 0], x=6.0, y=5.0),
        "stack": {"class_type": "StrataLayerCompositor", "inputs": {
            "background": ["red", 0], "original": ["red", 0], "colours": "sRGB", "alpha_mode": "straight",
            "layers.layer0": ["half", 0], "layers.layer1": ["corner", 0]}},
        "space": {"class_type": "StrataColourSpace", "inputs": {
            "image": ["stack", 0], "spaces": "built in", "spaces.source": "sRGB", "spaces.target": "linear Rec.709"}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["space", 0], "filename_prefix": "strata_stack"}},
    }  # fmt: skip
    valid, error, outputs, faults = asyncio.run(execution.validate_prompt("strata", prompt, None))
    assert valid, (error, faults)
    executor = execution.PromptExecutor(PromptServer.instance, cache_args={"lru": 0, "ram": 0, "ram_inactive": 0})
    executor.execute(prompt, "strata", {}, outputs)
    assert executor.success, executor.status_messages
    saved = sorted(Path(folder_paths.get_output_directory()).glob("strata_stack*.png"))
    picture = torch.from_numpy(np.array(Image.open(saved[-1]))).float() / 255
    gray = (0xBC / 255 + 0.055) ** 2.4 / 1.055**2.4
    expected = torch.tensor([0.5 + 0.5 * gray, 0.5 * gray, 0.5 * gray]).expand(6, 8, 3).clone()
    expected[5:, 6:] = torch.tensor([1.0, 0.0, 0.0])
    return f"{len(saved)} frames; " + tiny.within("picture", picture, expected, 0.01)

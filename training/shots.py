"""Synthetic shots as examples of a family: the layers that its streams carry, and the caption."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..imaging.colour import linear_to_srgb
from ..joint.streams import Family
from .pictures import CODES
from .rendering.captions import summary
from .scenes import render

# Seeds below this are for measuring and are never trained on; training counts up from here.
FIRST_TRAINING_SEED = 100_000
_ANTIALIAS = 2  # softer textures: what a lens and a video codec leave of them


@dataclass(frozen=True)
class Example:
    """One shot: its layers by the family's names, [F, H, W, 3] each in 0..1 as the network takes them, its prompt, and
    what the family's text streams say of it.

    `layers` and `texts` may lack some of the family's. `name` says which shot it is, in messages. `exact` holds what
    pictures and caption leave out of the truth, for measuring alone: by layer what `pictures.CODES` says, by "caption"
    its Facts.
    """

    name: str
    layers: dict[str, Tensor]
    prompt: str
    texts: dict[str, str] = field(default_factory=dict)
    exact: dict[str, tuple] = field(default_factory=dict)


def synthetic_example(family: Family, seed: int, frames: int, height: int, width: int) -> Example:
    """The shot of a seed as an example of a family. Raises ValueError for a family that scenes have no layers for.

    Layers are the streams that have an encoding; the others are no pictures. Colour is sRGB-encoded and clipped to
    0..1, normals 0.5 n + 0.5, and depth, flow, segmentation, densepose and skeleton are drawn as `pictures.CODES` says.
    Where nobody is to be seen there is no skeleton and no densepose, and no flow in a single frame. Where the family
    has an alpha, rgb is the film exposure's plate and fg is straight (not premultiplied), 0 where alpha is 0.
    """
    names = [stream.name for stream in family.streams if stream.encoding is not None]
    film = "alpha" in names
    shot = render(seed, frames, height, width, antialias=_ANTIALIAS, film_samples=8 if film else 0)
    if film:
        plate = shot.plate
        known = {"rgb": plate.plate, "alpha": plate.alpha.expand(-1, -1, -1, 3), "fg": plate.fg, "bg": plate.bg}
    else:
        known = {"rgb": shot.rgb, "albedo": shot.albedo, "irradiance": linear_to_srgb(shot.irradiance),
                 "normal": 0.5 + 0.5 * shot.normal}
    lacking = [name for name in names if name not in known and name not in CODES]
    if lacking:
        raise ValueError(f"Synthetic shots have no layer {', '.join(lacking)} of the {family.name} family.")
    layers, exact = {}, {"caption": (shot.facts,)}
    for name in names:
        image, data = CODES[name](shot) if name in CODES else (known[name].clamp(0, 1), ())
        if _is_there(name, image):
            layers[name] = image
            exact |= {name: data} if data else {}
    # Where a caption is learned, the prompt says less than it (Uni-ViGU's second stage).
    texts = dict.fromkeys(family.texts, shot.caption)
    prompt = summary(shot.facts) if texts else shot.caption
    return Example(f"synthetic shot {seed}", layers, prompt, texts, exact)


def _is_there(layer: str, image: Tensor) -> bool:
    if layer in ("skeleton", "densepose"):
        return bool(image.any())  # black is nobody
    return layer != "flow" or len(image) > 1

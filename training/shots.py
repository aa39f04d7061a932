"""Synthetic shots as examples of a family: the layers that its streams carry, and the caption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..imaging.colour import linear_to_srgb
from ..joint.streams import Family
from .pictures import CODES
from .rendering.captions import summary
from .scenes import Shot, render

# Seeds below this are for measuring and are never trained on; training counts up from here.
FIRST_TRAINING_SEED = 100_000
# What a shot can have, whether or not a film exposure was made.
_LAYERS = ("rgb", "albedo", "irradiance", "normal", "alpha", "fg", "bg", *CODES)
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


def synthetic_example(family: Family, seed: int, frames: int, height: int, width: int,
                      framing: str = "wide") -> Example:
    """The shot of a seed as an example of a family. Raises ValueError for a family that scenes have no layers for.

    Layers are the streams that have an encoding; the others are no pictures. Colour is sRGB-encoded and clipped to
    0..1, normals 0.5 n + 0.5, and depth, flow, segmentation, densepose and skeleton are drawn as `pictures.CODES` says.
    Where nobody is to be seen there is no skeleton and no densepose, and no flow in a single frame. Where the family
    has an alpha, rgb is the film exposure's plate and fg is straight (not premultiplied), 0 where alpha is 0.
    """
    shot = render_shot(seed, frames, height, width, framing, film=_has_film(family))
    known = layers_of(shot)
    layers = family_layers(family, {name: image for name, (image, _) in known.items()})
    exact = {"caption": (shot.facts,)} | {name: known[name][1] for name in layers if known[name][1]}
    return Example(f"synthetic shot {seed}", layers, *sayings(family, shot.caption, summary(shot.facts)), exact)


def render_shot(seed: int, frames: int, height: int, width: int, framing: str, *, film: bool) -> Shot:
    """The shot as all that is learned from or measured with it sees it. film: with the exposure that alpha needs."""
    return render(seed, frames, height, width, antialias=_ANTIALIAS, film_samples=8 if film else 0, framing=framing)


def layers_of(shot: Shot) -> dict[str, tuple[Tensor, tuple]]:
    """Every layer that the shot has: its picture [F, H, W, 3] in 0..1, and what the picture leaves out of the truth.
    What the film exposure shows of rgb is called plate."""
    colour = {"rgb": shot.rgb, "albedo": shot.albedo, "irradiance": linear_to_srgb(shot.irradiance),
              "normal": 0.5 + 0.5 * shot.normal}
    if plate := shot.plate:
        colour |= {"plate": plate.plate, "alpha": plate.alpha.expand(-1, -1, -1, 3), "fg": plate.fg, "bg": plate.bg}
    known = {name: (image.clamp(0, 1), ()) for name, image in colour.items()}
    known |= {name: code(shot) for name, code in CODES.items()}
    return {name: layer for name, layer in known.items() if _is_there(name, layer[0])}


def family_layers(family: Family, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the known layers that the family has, by its names. Raises ValueError for one that no scene has."""
    names = [stream.name for stream in family.streams if stream.encoding is not None]
    if lacking := [name for name in names if name not in _LAYERS]:
        raise ValueError(f"Synthetic shots have no layer {', '.join(lacking)} of the {family.name} family.")
    sources = {name: "plate" if name == "rgb" and _has_film(family) else name for name in names}
    return {name: known[source] for name, source in sources.items() if source in known}


def sayings(family: Family, caption: str, prompt: str) -> tuple[str, dict[str, str]]:
    """The prompt of an example and what its text streams say."""
    # Where a caption is learned, the prompt says less than it (Uni-ViGU's second stage).
    texts = dict.fromkeys(family.texts, caption)
    return prompt if texts else caption, texts


def _has_film(family: Family) -> bool:
    return "alpha" in family.layers


def _is_there(layer: str, image: Tensor) -> bool:
    if layer in ("skeleton", "densepose"):
        return bool(image.any())  # black is nobody
    return layer != "flow" or len(image) > 1

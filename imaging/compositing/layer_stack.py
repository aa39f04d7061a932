"""A stack of layers over a background: clips into one clip, frame by frame, in scene-linear light."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_alpha, check_pixels
from ..colour import LINEAR, convert_colours
from ..frames import at, by_frame, check_one_size, common_length, common_size
from .composite import OPERATORS, PREMULTIPLIED, STRAIGHT, unpremultiply
from .transform import Move, place


@dataclass(frozen=True)
class Layer:
    """One layer of a stack.

    images: [F, h, w, 3|4], F = 1 for all frames; a fourth channel is alpha, used unless `alpha`, [F, h, w] in 0..1, is
    given; without either it is opaque. operator: one of OPERATORS. opacity: 0..1, times colour and alpha.
    premultiplied: that the colours are so, in linear light; otherwise they are straight. Raises ValueError in one
    sentence for what cannot be composited.
    """

    images: Tensor
    alpha: Tensor | None = None
    operator: str = "over"
    opacity: float = 1.0
    premultiplied: bool = False
    move: Move = Move()

    def __post_init__(self):
        check_pixels("The layer", self.images, (3, 4))
        if self.alpha is not None:
            check_alpha("The layer's alpha", self.alpha)
            common_size({"layer": self.images, "alpha": self.alpha})
        elif self.images.shape[-1] == 4:
            check_alpha("The layer's fourth channel", self.images[..., 3])
        if self.operator not in OPERATORS:
            raise ValueError(f"Unknown operator {self.operator!r}: use one of {', '.join(OPERATORS)}.")
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"The opacity is {self.opacity}, but 0 to 1 is needed.")

    def frame(self, number: int, space: str) -> tuple[Tensor, Tensor]:
        """Premultiplied linear colour [h, w, 3] and alpha [h, w, 1] of a frame, both times the opacity."""
        picture = at(self.images, number)
        colours = convert_colours(picture[..., :3], space, LINEAR)
        if self.alpha is not None:
            alpha = at(self.alpha, number).unsqueeze(-1)
        else:
            alpha = picture[..., 3:] if picture.shape[-1] == 4 else torch.ones_like(picture[..., :1])
        alpha = alpha * self.opacity
        return (colours * self.opacity if self.premultiplied else colours * alpha), alpha


def composite(
    layers: Sequence[Layer],
    background: Tensor | None = None,
    *,
    original: Tensor | None = None,
    space: str = "sRGB",
    alpha_mode: str = STRAIGHT,
    after_frame: Callable[[], None] = lambda: None,
) -> tuple[Tensor, ...]:
    """A stack of layers, the first lowest, on a background: plate [F, H, W, 3], alpha [F, H, W], residual [F, H, W, 3].

    background: [F, H, W, 3|4], a fourth channel is its alpha (straight); None is nothing at all, at the first layer's
    size. Layers of other sizes start centred on it, pixel for pixel. All pictures are in `space` (of
    `colour.SPACES`) and so are plate and residual; the work is done in linear Rec.709. alpha_mode: STRAIGHT or
    PREMULTIPLIED, in linear light, says how the plate comes, which is one where alpha is 1; straight is 0 where alpha
    is 0, so light without cover needs premultiplied. residual, only with `original` [F, H, W, 3|4]: original -
    premultiplied plate in linear light, signed (the curve of `space` is odd); added to that plate, both linear, it
    gives the original. Frames go one by one; stills hold for all. Raises ValueError in one sentence for an unknown
    alpha_mode and clips that do not go together.
    """
    if alpha_mode not in (STRAIGHT, PREMULTIPLIED):
        raise ValueError(f"Unknown alpha mode {alpha_mode!r}: use {STRAIGHT} or {PREMULTIPLIED}.")
    if background is None and not layers:
        raise ValueError("There is nothing to composite: connect a background or a layer.")
    clips = {"background": background, "original plate": original}
    clips = {name: clip for name, clip in clips.items() if clip is not None}
    for name, clip in clips.items():
        check_pixels(f"The {name}", clip, (3, 4))
    if background is not None and background.shape[-1] == 4:
        check_alpha("The background's fourth channel", background[..., 3])
    canvas = Layer(layers[0].images[..., :3].new_zeros(1, 1, 1, 4)) if background is None else Layer(background)
    height, width = (layers[0].images if background is None else background).shape[1:3]
    check_one_size({**clips, "composite": torch.empty(1, height, width)})
    numbered = {f"layer {i}": layer.images for i, layer in enumerate(layers, 1)}
    alphas = {f"alpha {i}": layer.alpha for i, layer in enumerate(layers, 1) if layer.alpha is not None}
    count = common_length({**clips, **numbered, **alphas})

    def make(number: int) -> tuple[Tensor, ...]:
        colours, alpha = canvas.frame(number, space)
        if background is None:
            colours, alpha = colours.expand(height, width, 3), alpha.expand(height, width, 1)
        for layer in layers:
            placed = place(torch.cat(layer.frame(number, space), dim=-1), height, width, layer.move)
            colours, alpha = OPERATORS[layer.operator](placed[..., :3], placed[..., 3:], colours, alpha)
        stored = unpremultiply(colours, alpha) if alpha_mode == STRAIGHT else colours
        plate = convert_colours(stored, LINEAR, space), alpha[..., 0]
        if original is None:
            return plate
        left = convert_colours(at(original, number)[..., :3], space, LINEAR) - colours
        return *plate, convert_colours(left, LINEAR, space)

    return by_frame(count, make, after_frame)

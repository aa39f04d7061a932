"""Optical flow in pixels as the colours of the Middlebury wheel, and back.

Hue is the direction, saturation the length: white is no motion, full colour a motion of `reach` pixels. Source: Baker
et al., A Database and Evaluation Methodology for Optical Flow, 2011, colorcode.cpp; torchvision's flow_to_image draws
the same and always takes the clip's maximum as its reach. Pictures here are floats, not rounded to 8 bits.

The direction counts clockwise on the screen from +x (x right, y down): right is red, down yellow, left cyan, up violet.
As in the source, the last of the 55 colours and the first both lie at +x, so the wheel has a step of 20/255 there.
"""

import math

import torch
from torch import Tensor

from ..checks import check_pixels

_DARKER = 0.75  # what colours beyond the reach are multiplied by, in the source
# How many colours lead from each corner of the colour cube to the next: red, yellow, green, cyan, blue, magenta, red.
_ARCS = (15, 6, 4, 11, 13, 6)


def flow_to_colours(flow: Tensor, reach: float | None = None) -> tuple[Tensor, float]:
    """Flow to colours: [F, H, W, 2] in pixels (x right, y down) to ([F, H, W, 3] in 0..1, reach in pixels).

    reach: the length drawn in full colour; None is the clip's longest (1 for a clip without motion). A longer flow has
    the full colour of its direction, darkened to 75 %, which keeps the direction alone. Raises ValueError for what
    `check_pixels` refuses and a reach that is not above 0.
    """
    check_pixels("The flow", flow, (2,))
    length = flow.norm(dim=-1, keepdim=True)
    reach = (length.max().item() or 1.0) if reach is None else reach
    _check_reach(reach)
    marks = _marks().to(flow)
    place = torch.atan2(flow[..., 1], flow[..., 0]).remainder(2 * math.pi) * ((len(marks) - 1) / (2 * math.pi))
    start = place.floor().clamp_max(len(marks) - 2).long()  # [F, H, W]
    hue = _hue(torch.lerp(marks[start], marks[start + 1], place - start))  # [F, H, W, 3]
    strength = length / reach
    # Not 1: a flow of the very reach that was stored as two floats has not become longer.
    return torch.where(strength <= 1 + 1e-5, 1 - strength.clamp_max(1) * (1 - hue), _DARKER * hue), reach


def colours_to_flow(images: Tensor, reach: float) -> Tensor:
    """Colours to flow: [F, H, W, 3] in 0..1 to [F, H, W, 2] in pixels (x right, y down), not longer than reach.

    A flow of up to `reach` comes back within 1e-5 of the reach, through 8 bits within 0.01, and with 2/255 off in every
    channel within 0.035; a longer one with its direction and the length reach. Raises ValueError as `flow_to_colours`.
    """
    check_pixels("The flow picture", images, (3,))
    _check_reach(reach)
    return colours_to_vectors(images) * reach


def colours_to_vectors(images: Tensor) -> Tensor:
    """Colours to flow in units of the reach: [..., 3] in 0..1 to [..., 2] (x right, y down), not longer than 1."""
    # Inside the reach a colour has a full channel; beyond it that channel holds _DARKER. Halfway decides.
    beyond = images.amax(-1, keepdim=True) < (1 + _DARKER) / 2
    ink = 1 - torch.where(beyond, images / _DARKER, images)
    least, most = ink.amin(-1, keepdim=True), ink.amax(-1, keepdim=True)
    turn = _turn(1 - (ink - least) / (most - least).clamp_min(1e-12))  # on the cube's edge again: [...]
    marks = _marks().to(images)
    start = (torch.searchsorted(marks, turn, right=True) - 1).clamp(0, len(marks) - 2)
    # Beyond the last mark is the step at +x; its colours go to whichever side is nearer, and both are +x.
    share = ((turn - marks[start]) / (marks[start + 1] - marks[start])).clamp(0, 1)
    angle = 2 * math.pi * (start + share) / (len(marks) - 1)
    length = torch.where(beyond, 1.0, most.clamp(0, 1))
    return torch.stack([angle.cos(), angle.sin()], -1) * length


def _marks() -> Tensor:
    """How far round the cube each of the 55 colours lies, [55] ascending in 0..6: whole 255ths, as in the source.

    The way runs along the cube's edges: red 0, yellow 1, green 2, cyan 3, blue 4, magenta 5, to red again 6. The
    corners are marks, so what lies between two marks lies on one edge and a line of turns is a line of colours.
    """
    turns = [arc + (255 * i // count) / 255 for arc, count in enumerate(_ARCS) for i in range(count)]
    return torch.tensor(turns, dtype=torch.float64)


def _hue(turn: Tensor) -> Tensor:
    """The full colour at a turn: [...] in 0..6 to [..., 3]."""
    return torch.stack([(turn - 3).abs() - 1, 2 - (turn - 2).abs(), 2 - (turn - 4).abs()], -1).clamp(0, 1)


def _turn(hue: Tensor) -> Tensor:
    """The turn of a full colour: [..., 3] with a channel at 0 and one at 1, to [...] in 0..6; the inverse of `_hue`."""
    r, g, b = hue.unbind(-1)
    arcs = torch.stack([g, 2 - r, 2 + b, 4 - g, 4 + r, 6 - b], -1)
    # (lowest, highest channel) -> arc. They are one where all three are equal, which is no motion.
    table = torch.tensor([[0, 2, 3], [5, 0, 4], [0, 1, 0]], device=hue.device)
    return arcs.gather(-1, table[hue.argmin(-1), hue.argmax(-1)].unsqueeze(-1)).squeeze(-1)


def _check_reach(reach: float):
    if not 0 < reach < math.inf:
        raise ValueError(f"The flow's reach is {reach:g} px, but a length above 0 is needed; give a fast motion's.")

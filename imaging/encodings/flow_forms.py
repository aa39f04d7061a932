"""Motion vectors as pictures, x in red and y (down) in green, into the flow of `flow` and back."""

from enum import Enum

import torch
from torch import Tensor

from ..checks import check_pixels
from .flow import colours_to_flow, colours_to_vectors


class FlowForm(Enum):
    """What the numbers of a picture of motion vectors are.

    CENTRED  0.5 + 0.5 flow / reach: 0.5 is no motion, 0 and 1 are the reach; fits 8 or 16 bits
    PIXELS   pixels to the next frame, also negative: float only
    """

    CENTRED = "0.5 + 0.5 flow / reach"
    PIXELS = "pixels"


def picture_to_flow(picture: Tensor, form: FlowForm, reach: float | None = None) -> Tensor:
    """A picture of motion vectors [F, H, W, 3|4] to flow [F, H, W, 2] in pixels, x right, y down.

    CENTRED vectors that rounding, or a reach counted by x and y apart, made longer than the reach are cut to it.
    Raises ValueError for what `check_pixels` refuses, and for CENTRED without a reach or with values outside 0..1.
    """
    check_pixels("The flow", picture, (3, 4))
    flow = picture[..., :2]
    if form is FlowForm.PIXELS:
        return flow
    if reach is None:
        raise ValueError(f"Flow as '{form.value}' needs its reach, which is not in the picture; give it in pixels.")
    low, high = flow.min().item(), flow.max().item()
    if low < 0 or high > 1:
        raise ValueError(
            f"The flow as '{form.value}' has values of {low:.3g} to {high:.3g}, but 0 to 1 is needed; if they are "
            "pixels, say so."
        )
    flow = 2 * flow - 1
    return flow / flow.norm(dim=-1, keepdim=True).clamp_min(1) * reach


def colours_to_picture(images: Tensor, form: FlowForm, reach: float | None = None) -> Tensor:
    """The flow layer's colours [F, H, W, 3|4] to motion vectors as a picture [F, H, W, 3]; blue is no motion.

    Raises ValueError for PIXELS without a reach, and as `colours_to_flow`.
    """
    check_pixels("The flow layer", images, (3, 4))
    images = images[..., :3]
    if form is FlowForm.CENTRED:
        flow, still = 0.5 + 0.5 * colours_to_vectors(images), 0.5
    elif reach is None:
        raise ValueError("Flow in pixels needs the reach that full colour stands for; wire it from Encode Flow, or "
                         f"take '{FlowForm.CENTRED.value}'.")
    else:
        flow, still = colours_to_flow(images, reach), 0.0
    return torch.cat([flow, torch.full_like(flow[..., :1], still)], -1)

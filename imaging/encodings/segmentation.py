"""Segmentation ids as flat colours, and back.

Id k has the same colour in every shot: the palette is one fixed list, of which a shot uses the beginning. 0, the
background, is black and 1 white, so that a single object is its own mask.
"""

import torch
from torch import Tensor

from ..checks import check_pixels

_LEVELS = (0, 42, 85, 128, 170, 213, 255)  # of a channel, in 255ths: 8-bit pictures hold the colours exactly
MAXIMUM = len(_LEVELS) ** 3  # how many ids have a colour


def palette(count: int) -> Tensor:
    """The colours of the ids 0 to count - 1: [count, 3] float32 in 0..1, sRGB-encoded, whole 255ths.

    Each is as far as can be from all before it (farthest-first, Gonzalez 1985), so a longer palette begins with the
    shorter. Any two of the first 64 are at least 1/3 apart, of the first 91 0.28, of all 0.16 (Euclidean, code
    values). Raises ValueError unless 1 <= count <= 343.
    """
    if not 1 <= count <= MAXIMUM:
        raise ValueError(f"A palette of {count} colours was asked for, but 1 to {MAXIMUM} are there; use fewer ids.")
    steps = torch.arange(len(_LEVELS))
    grid = torch.cartesian_prod(steps, steps, steps)  # [343, 3], whole numbers: the order is the same on every machine
    # First every second level (64 colours), then their cells' centres (27).
    rank = 1000 * (2 * (grid % 2 == 0).all(-1) + (grid % 2 == 1).all(-1).long())
    tie = torch.arange(MAXIMUM).flip(0)  # no two are equal, or which of several is taken would be the machine's choice
    order, distance = [0], (grid - grid[0]).square().sum(-1)
    while len(order) < count:
        order.append(int(((distance > 0) * ((rank + distance) * MAXIMUM + tie)).argmax()))
        distance = torch.minimum(distance, (grid - grid[order[-1]]).square().sum(-1))
    return torch.tensor(_LEVELS)[grid[order]] / 255


def ids_to_colours(ids: Tensor) -> Tensor:
    """Ids to colours: [F, H, W, 1] int64 in 0..342 to [F, H, W, 3] float32 in 0..1.

    Raises ValueError for what `check_pixels` refuses and for other ids.
    """
    check_pixels("The segmentation", ids, (1,))
    low, high = int(ids.min()), int(ids.max())
    if ids.is_floating_point() or low < 0 or high >= MAXIMUM:
        raise ValueError(
            f"The segmentation has ids from {low} to {high} ({ids.dtype}), but whole numbers from 0 to {MAXIMUM - 1} "
            "are needed; number its objects anew."
        )
    return palette(high + 1).to(ids.device)[ids.squeeze(-1).long()]


def colours_to_ids(images: Tensor, colours: Tensor) -> Tensor:
    """Colours to ids: [F, H, W, 3] in 0..1 to [F, H, W, 1] int64, the row of the nearest of colours [K, 3].

    Exact while noise, compression or a network moves a pixel by less than half the palette's smallest distance: 1/6
    among the first 64 of `palette`, 24/255 in every channel. Raises ValueError for what `check_pixels` refuses and for
    colours of another shape.
    """
    check_pixels("The segmentation picture", images, (3,))
    if colours.ndim != 2 or colours.shape[-1] != 3 or len(colours) == 0:
        raise ValueError(f"The palette has shape {list(colours.shape)}, but [colours, 3] is needed; one row a label.")
    ids = [torch.cdist(frame.flatten(0, 1), colours.to(images)).argmin(dim=-1) for frame in images]  # F x [H*W]
    return torch.stack(ids).reshape(*images.shape[:3], 1)


def mask_of(ids: Tensor, number: int) -> Tensor:
    """Where an id is: ids [F, H, W, 1] to a mask [F, H, W] float32, 1 = in, 0 = out."""
    check_pixels("The segmentation", ids, (1,))
    return (ids.squeeze(-1) == number).float()


def masks_to_ids(masks: list[Tensor]) -> Tensor:
    """One mask [F, H, W] in 0..1 an object, to ids [F, H, W, 1] int64: 0 for none, 1 for the first object, 2, ...

    A pixel is in where its mask is above 0.5. Where objects overlap, the first lies on top, as ComfyUI's preview of a
    SAM3 track draws them. A mask of one frame is held for the length of the others. Raises ValueError, naming the mask,
    for no or too many masks, other sizes and what `check_pixels` refuses.
    """
    if not 1 <= len(masks) < MAXIMUM:
        raise ValueError(f"There are {len(masks)} objects to number, but 1 to {MAXIMUM - 1} are needed; give masks.")
    frames, size = max(len(mask) for mask in masks), masks[0].shape[1:]
    ids = torch.zeros(frames, *size, dtype=torch.int64, device=masks[0].device)
    for number, mask in reversed(list(enumerate(masks, 1))):
        check_pixels(f"The mask of object {number}", mask.unsqueeze(-1), (1,))
        if mask.shape[1:] != size or len(mask) not in (1, frames):
            raise ValueError(
                f"The mask of object {number} has {len(mask)} frames of {mask.shape[2]}x{mask.shape[1]}, but all need "
                f"{frames} (or 1) of {size[1]}x{size[0]}, as others have; resize or cut it."
            )
        ids[(mask > 0.5).to(ids.device).expand(ids.shape)] = number
    return ids.unsqueeze(-1)


def id_shares(ids: Tensor) -> dict[int, float]:
    """Every id above 0 of ids [F, H, W, 1], ascending, and the share of the clip's pixels that it covers, 0..1."""
    numbers, counts = ids.unique(return_counts=True)
    return {int(i): int(n) / ids.numel() for i, n in zip(numbers, counts, strict=True) if i > 0}

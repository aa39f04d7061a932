"""Between a clip's true size and the sizes the network takes.

The video VAE turns pixel frame 0 into latent frame 0 and every following 4 pixel frames into one, each 8x8 pixels (Wan
2.1) or 16x16 (Wan 2.2) into one cell; the transformer then joins 2x2 cells. So a clip must hold 4n+1 frames of sizes
that are multiples of 16 or 32.
F, H, W: pixel frames, height, width. T, h, w: the same of the latent. C: channels.
"""

from dataclasses import dataclass

import torch.nn.functional
from torch import Tensor

from ..frames import common_size

_TIME = 4
_PATCH = 2  # cells


@dataclass(frozen=True)
class Fit:
    """The true size of a clip, and the way to the network's size and back.

    frames, height, width: at least 1 each, in pixels; a ValueError says so otherwise. cell: the height and width in
    pixels of a latent cell, 8 of Wan 2.1's VAE, 16 of Wan 2.2's.
    """

    frames: int
    height: int
    width: int
    cell: int = 8

    def __post_init__(self):
        if min(self.frames, self.height, self.width) < 1:
            raise ValueError(
                f"A clip of {self.frames} frames of {self.width}x{self.height} pixels was given, at least 1 of each is "
                "needed; load a clip that holds pictures."
            )

    @property
    def padded(self) -> tuple[int, int, int]:
        """(F', H', W'): frames rounded up to 4n+1, height and width rounded up to multiples of two cells."""
        return (
            _round_up(self.frames - 1, _TIME) + 1,
            _round_up(self.height, _PATCH * self.cell),
            _round_up(self.width, _PATCH * self.cell),
        )

    @property
    def latent(self) -> tuple[int, int, int]:
        """(T, h, w) of the padded clip's latent."""
        frames, height, width = self.padded
        return (frames - 1) // _TIME + 1, height // self.cell, width // self.cell

    def pad(self, images: Tensor) -> Tensor:
        """Fill [F, H, W, C] up to [F', H', W', C] by repeating the last frame and the right and bottom edge pixels.

        images: float, any range and encoding. Raises ValueError when its size is not this Fit's.
        """
        self._expect(images, (self.frames, self.height, self.width), "pad")
        frames, height, width = self.padded
        margins = (0, width - self.width, 0, height - self.height, 0, frames - self.frames)
        volume = images.movedim(-1, 0)[None]  # [F, H, W, C] -> [1, C, F, H, W]
        return torch.nn.functional.pad(volume, margins, mode="replicate")[0].movedim(0, -1)

    def crop(self, images: Tensor) -> Tensor:
        """Undo `pad`: a view [F, H, W, C] of [F', H', W', C]. Raises ValueError when its size is not the padded one."""
        self._expect(images, self.padded, "crop")
        return images[: self.frames, : self.height, : self.width]

    def pool_mask(self, mask: Tensor) -> Tensor:
        """A pixel mask as a latent mask: [F, H, W] in 0..1 to [1, T, h, w] float of 0 and 1, 1 = to be generated.

        A latent cell is 1 when any pixel it covers is above 0: a cell mixes its pixels, so one that holds a pixel to be
        generated cannot be kept as given. Raises ValueError when the size is not this Fit's.
        """
        marked = self.pad((mask > 0).float()[..., None]).movedim(-1, 0)  # [F, H, W] -> [1, F', H', W']
        # Frame 0 alone is the first latent frame: three copies before it make every latent frame cover 4 pixel frames.
        marked = torch.cat([marked[:, :1].expand(-1, _TIME - 1, -1, -1), marked], dim=1)  # [1, 4T, H', W']
        return torch.nn.functional.max_pool3d(marked[None], (_TIME, self.cell, self.cell))[0]  # [1, T, h, w]

    def expand_mask(self, latent_mask: Tensor) -> Tensor:
        """The pixels that a latent mask marks: [T, h, w], marked where above 0, to [F, H, W] bool in the true size.

        Raises ValueError when the size is not this Fit's latent size.
        """
        self._expect(latent_mask, self.latent, "expand a latent mask of")
        pixels = latent_mask > 0
        for dim, size in enumerate((_TIME, self.cell, self.cell)):
            pixels = pixels.repeat_interleave(size, dim)
        return pixels[_TIME - 1 :][: self.frames, : self.height, : self.width]  # [4T, H', W'] -> [F, H, W]

    def _expect(self, tensor: Tensor, size: tuple[int, int, int], verb: str):
        if tuple(tensor.shape[:3]) != size:
            raise ValueError(
                f"Cannot {verb} {list(tensor.shape[:3])} (frames, height, width): {list(size)} is needed for a clip of "
                f"{self.frames} frames of {self.width}x{self.height} pixels; build the Fit from the clip it is used on."
            )


def common_fit(images: dict[str, Tensor], cell: int = 8) -> Fit:
    """The size that the layers of one shot share: name -> [F, H, W, C]. A still goes with any length. cell as of `Fit`.

    Raises ValueError, naming the layers, when their sizes or lengths differ."""
    return Fit(*common_size(images), cell)


def still_to_clip(images: Tensor, frames: int) -> Tensor:
    """A still [1, ...] shown for `frames` frames (a view); a clip is left as it is."""
    return images.expand(frames, *images.shape[1:]) if images.shape[0] == 1 else images


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step

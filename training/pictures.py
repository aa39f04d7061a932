"""A shot's layers as pictures: three channels in 0..1, as a network or a contact sheet takes them."""

import torch
from torch import Tensor

from ..imaging.colour import linear_to_srgb
from ..imaging.encodings.densepose import iuv_to_picture
from ..imaging.encodings.depth import depth_to_colours
from ..imaging.encodings.flow import flow_to_colours
from ..imaging.encodings.segmentation import ids_to_colours
from ..imaging.encodings.skeleton import draw_skeletons
from .scenes import Shot


def pictures(shot: Shot) -> dict[str, Tensor]:
    """Layer name -> [F, H, W, 3] float32 in 0..1.

    Colour (rgb, albedo, irradiance, plate, fg, bg) is sRGB-encoded and clipped; fg is premultiplied, so that its edges
    fade to black. normal is 0.5 n + 0.5. The others are drawn as `CODES` says.
    """
    out = {
        "rgb": shot.rgb,
        "albedo": shot.albedo,
        "irradiance": linear_to_srgb(shot.irradiance),
        "normal": 0.5 + 0.5 * shot.normal,
        **{name: code(shot)[0] for name, code in CODES.items()},
    }
    if shot.plate is not None:
        plate = shot.plate
        out |= {
            "plate": plate.plate,
            "alpha": plate.alpha.expand(-1, -1, -1, 3),
            "fg": linear_to_srgb(plate.fg_linear * plate.alpha),
            "bg": plate.bg,
        }
    return {name: image.clamp(0, 1) for name, image in out.items()}


def _depth(shot: Shot) -> tuple[Tensor, tuple]:
    if shot.depth.amin() == shot.depth.amax():  # a single pixel has no range; any that holds it serves
        near, far = shot.depth.amin().item(), 2 * shot.depth.amin().item()
        return depth_to_colours(shot.depth, near, far)[0], (near, far)
    images, *ends = depth_to_colours(shot.depth)
    return images, tuple(ends)


def _flow(shot: Shot) -> tuple[Tensor, tuple]:
    # The last frame has none to move to; white there would teach that all motion stops.
    images, reach = flow_to_colours(torch.cat([shot.forward[:-1], shot.forward[-2:][:1]]))
    return images, (reach,)


def _segmentation(shot: Shot) -> tuple[Tensor, tuple]:
    return ids_to_colours(shot.ids), ()


def _densepose(shot: Shot) -> tuple[Tensor, tuple]:
    return iuv_to_picture(shot.iuv), ()


def _skeleton(shot: Shot) -> tuple[Tensor, tuple]:
    images = draw_skeletons(shot.joints, shot.joints_visible, *shot.depth.shape[1:3])
    return images, (shot.joints, shot.joints_visible)


# A layer drawn in a code of `imaging`: its picture [F, H, W, 3], and what the picture leaves out of the truth, for
# measuring. depth: (near, far) in metres, the clip's own as `depth_to_colours` takes them. flow: (reach,) in pixels,
# the clip's longest motion; it is forward flow, and the last frame repeats the one before. skeleton: (joints,
# visible), as a Shot has them. segmentation and densepose leave nothing out.
CODES = {
    "depth": _depth, "flow": _flow, "segmentation": _segmentation, "densepose": _densepose, "skeleton": _skeleton,
}  # fmt: skip

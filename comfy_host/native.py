"""What ComfyUI's own nodes hand on in types of their own, as plain tensors: geometry, SAM3 tracks, flow models.

Read from ComfyUI 0.33: comfy_extras/nodes_depth_anything_3.py, nodes_moge.py, nodes_sam3.py, nodes_void.py.
"""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor

from ..imaging.checks import check_pixels
from ..imaging.encodings.depth import depth_range

_SKY = 0.3  # the probability from which Depth Anything 3's own rendering takes a pixel for sky


def geometry_depth(geometry: dict, near: float | None, far: float | None) -> tuple[Tensor, float, float]:
    """The depth of a DA3_GEOMETRY or MOGE_GEOMETRY, [F, H, W, 1] > 0, and its range: the given ends, or the clip's own.

    It is in metres from a metric model, else in a unit of the model's own. Sky, and what the model masks out or gives
    no finite depth above 0, lies at far and does not count for the range. Raises ValueError for a geometry without
    depth, one without a single usable pixel, and one that is the same everywhere when an end is to be found.
    """
    if not isinstance(geometry, dict) or geometry.get("depth") is None:
        raise ValueError("The geometry holds no depth, but one with depth is needed; connect Run Depth Anything 3 or "
                         "Run MoGe Inference.")
    depth = geometry["depth"].float()  # [F, H, W]
    seen = torch.isfinite(depth) & (depth > 0)
    if geometry.get("sky") is not None:
        seen &= (geometry["sky"] < _SKY).to(seen.device)
    if geometry.get("mask") is not None:
        seen &= (geometry["mask"] > 0).to(seen.device)
    if not seen.any():
        raise ValueError("The geometry's depth is sky or holes all over, but some surface is needed; check the clip "
                         "that it was made from.")
    if near is None or far is None:
        own = depth_range(depth[seen])
        near, far = own[0] if near is None else near, own[1] if far is None else far
    return torch.where(seen, depth, far).unsqueeze(-1), near, far


def track_masks(track: dict) -> list[Tensor]:
    """The objects of a SAM3_TRACK_DATA as masks [F, H, W] in 0..1 at the clip's size, in its order; none may be there.

    They are scaled as SAM3 Track to Mask does. Raises ValueError for anything else.
    """
    from comfy.ldm.sam3.tracker import unpack_masks  # when it is used: few graphs need it

    if not isinstance(track, dict) or not {"packed_masks", "orig_size"} <= track.keys():
        raise ValueError("The track is no SAM3 track (it has no packed masks), but one is needed; connect Run SAM3 "
                         "Video Track.")
    packed = track["packed_masks"]  # [F, objects, h, w / 8], eight pixels a byte
    if packed is None:
        return []
    return [F.interpolate(unpack_masks(packed[:, i:i + 1]).float(), size=track["orig_size"], mode="bilinear")[:, 0]
            for i in range(packed.shape[1])]


def clip_flow(flow_model, images: Tensor) -> Tensor:
    """The flow of a clip [F, H, W, 3] in 0..1 by an OPTICAL_FLOW model: [F, H, W, 2] in pixels to the next frame.

    x right, y down. The last frame has no next one and keeps the flow of the one before. Raises ValueError for a single
    frame, pictures smaller than the model can take and what `check_pixels` refuses.
    """
    from comfy_extras.void_noise_warp import RaftOpticalFlow  # when it is used: few graphs need it

    check_pixels("The clip", images, (3, 4))
    frames, height, width = images.shape[:3]
    # RAFT works at an eighth of the size, and halves that three times more.
    if frames < 2 or min(height, width) < 128:
        raise ValueError(f"The clip has {frames} frames of {width}x{height}, but motion needs two or more, and the "
                         "flow model 128x128 or more; give a longer or larger clip.")
    comfy.model_management.load_model_gpu(flow_model)
    raft = RaftOpticalFlow(flow_model.model, device=comfy.model_management.get_torch_device())
    pictures = images[..., :3].float().movedim(-1, 1)  # [F, 3, H, W]
    flows, progress = [], comfy.utils.ProgressBar(frames - 1)
    for this, following in zip(pictures[:-1], pictures[1:], strict=True):
        comfy.model_management.throw_exception_if_processing_interrupted()
        flows.append(_in_pixels(raft(this, following).to(images.device), height, width))
        progress.update(1)
    return torch.stack([*flows, flows[-1]]).movedim(1, -1)


def _in_pixels(flow: Tensor, height: int, width: int) -> Tensor:
    """ComfyUI's wrapper shrinks pictures to multiples of 8 and enlarges the flow [2, H, W] back, its vectors not."""
    return flow * flow.new_tensor([width / (width // 8 * 8), height / (height // 8 * 8)])[:, None, None]

"""The nodes: see the pack's own docstring."""

import comfy.model_patcher
import torch
from comfy.ldm.sam3.tracker import pack_masks
from comfy_api.latest import ComfyExtension, io
from comfy_extras.nodes_sdpose import _to_openpose_frames
from torchvision.models.optical_flow import raft_large

from .scene import FRAMES, JOINTS, MOTION, SCORES, SIZE, box_masks, depth_ramp


def patcher(module: torch.nn.Module) -> comfy.model_patcher.ModelPatcher:
    """The module as loaders hand models on."""
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(module.eval(), load_device=device, offload_device=device)


class Ramp(torch.nn.Module):
    """Depth Anything 3 looking at the ramp: sky in the top quarter."""

    dtype = torch.float32

    def forward(self, x):
        depth = depth_ramp()
        sky = torch.zeros_like(depth)
        sky[:, : SIZE[0] // 4] = 1
        return {"depth": depth, "sky": sky}


class Steady(torch.nn.Module):
    """RAFT looking at a clip that moves by MOTION, in pixels of the size that it is given."""

    def forward(self, first, second):
        height, width = first.shape[-2:]
        scale = torch.tensor([width / (SIZE[1] + 2), height / (SIZE[0] + 2)])
        return [(torch.tensor(MOTION) * scale)[None, :, None, None].expand(1, 2, height, width)]


def source(name: str, output: io.Output, make):
    """A node class without inputs whose output is what `make` returns."""

    class Source(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(node_id=name, category="Strata/tests", outputs=[output])

        @classmethod
        def execute(cls) -> io.NodeOutput:
            return io.NodeOutput(make())

    return Source


def depth_model():
    model = torch.nn.Module()
    model.diffusion_model = Ramp()
    return patcher(model)


def moge_geometry() -> dict:
    """As MoGeInference stacks it; what is masked out is infinite."""
    depth = depth_ramp().repeat(FRAMES, 1, 1)
    mask = torch.ones_like(depth, dtype=torch.bool)
    mask[:, : SIZE[0] // 4] = False
    return {"image": torch.zeros(FRAMES, *SIZE, 3), "depth": depth.where(mask, torch.inf), "mask": mask}


def track() -> dict:
    """As SAM3_VideoTrack hands it on."""
    return {"packed_masks": pack_masks(box_masks()), "n_frames": FRAMES, "scores": [1.0, 1.0], "orig_size": SIZE}


def keypoints(scores) -> list[dict]:
    """As SDPoseKeypointExtractor hands them on: one person with 133 points a frame."""
    places = JOINTS.numpy()
    return _to_openpose_frames([[places]] * FRAMES, [[scores.numpy()]] * FRAMES, *SIZE)


class NativeData(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            source("TestDepthModel", io.Custom("DA3_MODEL").Output(), depth_model),
            source("TestMoGeGeometry", io.Custom("MOGE_GEOMETRY").Output(), moge_geometry),
            source("TestFlowModel", io.Custom("OPTICAL_FLOW").Output(), lambda: patcher(Steady())),
            source("TestRaft", io.Custom("OPTICAL_FLOW").Output(), lambda: patcher(raft_large(weights=None))),
            source("TestTrack", io.Custom("SAM3_TRACK_DATA").Output(), track),
            source("TestKeypoints", io.Custom("POSE_KEYPOINT").Output(), lambda: keypoints(SCORES)),
            source("TestNobody", io.Custom("POSE_KEYPOINT").Output(), lambda: keypoints(0 * SCORES)),
            source("TestObjects", io.Mask.Output(), lambda: box_masks()[0]),
            source("TestMotionPixels", io.Image.Output(),
                   lambda: torch.tensor([*MOTION, 0.0]).expand(FRAMES, *SIZE, 3).clone()),
        ]

"""The known scene: pure torch, so that the tests know it too."""

import torch
from torch import Tensor

FRAMES, SIZE = 3, (128, 160)  # height, width; SAM3 packs eight pixels of a row into a byte
MOTION = [6.0, -2.0]  # pixels a frame: right and up
NEAR, FAR = 2.0, 12.0

# SDPose's 133 points in MMPose's order: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles (left first),
# then feet, face and hands, which lie elsewhere here so that none passes for a joint. (x, y) in pixels.
_BODY = [
    (80, 20), (84, 16), (76, 16), (90, 18), (70, 18), (96, 40), (64, 40), (108, 60), (52, 60), (116, 80), (44, 80),
    (90, 80), (70, 80), (94, 100), (66, 100), (98, 120), (62, 120),
]  # fmt: skip
JOINTS = torch.tensor([*_BODY, *[(3.0 + i, 124.0) for i in range(116)]])
# The left wrist (MMPose's 9) was looked for and not found.
SCORES = torch.tensor([0.05 if i == 9 else 0.9 for i in range(133)])


def depth_ramp() -> Tensor:
    """[1, H, W] metres, NEAR at the left edge to FAR at the right."""
    return torch.linspace(NEAR, FAR, SIZE[1]).expand(1, *SIZE).clone()


def box_masks() -> Tensor:
    """[F, 2, H, W]: two boxes that overlap; the second moves right by 8 pixels a frame."""
    masks = torch.zeros(FRAMES, 2, *SIZE)
    masks[:, 0, 20:60, 20:60] = 1
    for frame in range(FRAMES):
        masks[frame, 1, 40:100, 40 + 8 * frame : 120 + 8 * frame] = 1
    return masks

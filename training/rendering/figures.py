"""Articulated figures: capsules on a skeleton that stands, walks, waves or dances.

Body frame: +Y up, +Z forward, +X the figure's left. Joints are OpenPose's 18 (COCO order); parts are DensePose's 24,
whose halves are ours to name: the first number of a pair is behind or inside, the second in front or outside.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .motion import turn_x, turn_y, turn_z, wave
from .shapes import ROUND, Part

JOINTS = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip
BONES = (
    (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
ACTIONS = ("stands", "walks", "waves", "dances")

# Metres, for a figure 1.75 m tall; limbs stouter than life, so that they are still limbs at 64 pixels.
_HIP, _TORSO, _NECK, _HEAD = 0.86, 0.50, 0.10, 0.15
_THIGH, _SHIN, _FOOT, _UPPER_ARM, _FOREARM, _HAND = 0.40, 0.38, 0.16, 0.28, 0.25, 0.06
_ACROSS_HIPS, _ACROSS_SHOULDERS = 0.11, 0.22
_FACE = {0: (0, 0, 1), 14: (-0.35, 0.25, 0.9), 15: (0.35, 0.25, 0.9), 16: (-1, 0.05, 0), 17: (1, 0.05, 0)}


@dataclass(frozen=True)
class Clothes:
    """Material numbers of a figure."""

    head: int
    skin: int
    shirt: int
    trousers: int
    shoes: int


@dataclass(frozen=True)
class Angles:
    """Joint angles [T], radians. swing is forward, spread outward, bend folds the limb; pairs are (right, left)."""

    leg: tuple[Tensor, Tensor]
    knee: tuple[Tensor, Tensor]
    arm: tuple[Tensor, Tensor]
    spread: tuple[Tensor, Tensor]
    elbow: tuple[Tensor, Tensor]
    bob: Tensor  # metres, up


def angles(action: str, times: Tensor, period: float, phase: float, amount: float) -> Angles:
    """How `action` (one of ACTIONS) bends the body; period in seconds, phase in turns, amount about 1."""
    still = torch.zeros_like(times)
    beat, half = wave(times, period, phase), wave(times, period, phase + 0.25)
    breath = 0.04 * wave(times, 3.1, phase)
    side = 0.12 + still
    if action == "walks":
        swing = 0.6 * amount
        return Angles(
            leg=(swing * beat, -swing * beat),
            knee=(0.15 + 0.75 * half.clamp_min(0), 0.15 + 0.75 * (-half).clamp_min(0)),
            arm=(-0.8 * swing * beat, 0.8 * swing * beat),
            spread=(side, side),
            elbow=(0.5 + 0.2 * beat, 0.5 - 0.2 * beat),
            bob=0.03 * half.abs() - 0.03,
        )
    if action == "waves":
        return Angles(
            leg=(still, still),
            knee=(still + 0.03, still + 0.03),
            arm=(still + 0.15, breath),
            spread=(2.2 + 0.15 * amount * half, side),
            elbow=(still + 0.15, still + 0.25),
            bob=breath * 0.2,
        )
    if action == "dances":
        return Angles(
            leg=(0.35 * amount * beat.clamp_min(0), 0.35 * amount * (-beat).clamp_min(0)),
            knee=(0.7 * beat.clamp_min(0), 0.7 * (-beat).clamp_min(0)),
            arm=(0.5 * half, -0.5 * half),
            spread=(1.3 + 0.8 * amount * beat, 1.3 - 0.8 * amount * beat),
            elbow=(0.9 + 0.5 * half, 0.9 - 0.5 * half),
            bob=0.05 * beat.abs() - 0.02,
        )
    return Angles(
        leg=(still + 0.06 * amount, still - 0.06 * amount),
        knee=(still + 0.05, still + 0.05),
        arm=(breath + 0.1 * amount, breath - 0.1),
        spread=(side + breath, side + breath),
        elbow=(still + 0.3 * amount, still + 0.2),
        bob=breath * 0.2,
    )


def figure(
    owner: int, ground: Tensor, heading: Tensor, scale: float, pose: Angles, wrist_roll: Tensor, clothes: Clothes
) -> tuple[list[Part], Tensor]:
    """A figure's parts and its joints [T, 18, 3] in world metres.

    ground: [T, 3], the point between its feet; heading: [T] radians, 0 looks to world +Z, positive turns to its left;
    wrist_roll: [T] radians, the right forearm's swing from side to side (a wave).
    """
    body = turn_y(heading)
    parts: list[Part] = []
    joints = [ground] * len(JOINTS)

    def along(frame: Tensor, x: float, y: float, z: float) -> Tensor:
        return (frame @ torch.tensor([x, y, z])) * scale  # [T, 3]

    def capsule(middle: Tensor, frame: Tensor, radius: float, length: float, material: int, dense, split: int):
        parts.append(
            Part(ROUND, (radius * scale, 0.5 * length * scale, 0.0), middle, frame, material, owner, dense, split)
        )

    def bone(start: Tensor, frame: Tensor, radius: float, length: float, material: int, dense, split: int) -> Tensor:
        """A capsule that hangs from start along the frame's -Y; returns its far end."""
        capsule(start + along(frame, 0, -length / 2, 0), frame, radius, length, material, dense, split)
        return start + along(frame, 0, -length, 0)

    pelvis = ground + along(body, 0, _HIP, 0) + pose.bob[:, None] * torch.tensor([0.0, scale, 0.0])
    chest = pelvis + along(body, 0, _TORSO, 0)
    capsule(pelvis + along(body, 0, 0.27, 0), body, 0.155, 0.26, clothes.shirt, (1, 2), 2)
    lying = body @ turn_z(torch.full_like(heading, torch.pi / 2))  # its Y runs from shoulder to shoulder
    capsule(chest + along(body, 0, -0.05, 0), lying, 0.095, 0.30, clothes.shirt, (1, 2), 2)
    capsule(pelvis + along(body, 0, 0.02, 0), lying, 0.12, 0.14, clothes.trousers, (1, 2), 2)
    joints[1] = chest
    capsule(chest + along(body, 0, 0.06, 0), body, 0.06, 0.08, clothes.skin, (23, 24), 0)
    head = chest + along(body, 0, _NECK + _HEAD, 0)
    capsule(head, body, _HEAD, 0.05, clothes.head, (23, 24), 0)
    for joint, (x, y, z) in _FACE.items():
        joints[joint] = head + along(body, x * _HEAD, y * _HEAD, z * _HEAD)

    for left in (0, 1):
        sign = 1 if left else -1
        # inside lies towards the body: negative local x on the left, positive on the right
        arm_parts, fore_parts = ((15, 17), (19, 21)) if left else ((18, 16), (22, 20))
        shoulder = chest + along(body, sign * _ACROSS_SHOULDERS, -0.05, 0)
        frame = body @ turn_z(sign * pose.spread[left]) @ turn_x(-pose.arm[left])
        elbow = bone(shoulder, frame, 0.075, _UPPER_ARM, clothes.shirt, arm_parts, 0)
        frame = frame @ turn_x(-pose.elbow[left])
        if not left:
            frame = frame @ turn_z(wrist_roll)
        wrist = bone(elbow, frame, 0.062, _FOREARM, clothes.skin, fore_parts, 0)
        bone(wrist, frame, 0.07, _HAND, clothes.skin, (4, 4) if left else (3, 3), 0)
        first = 5 if left else 2
        joints[first : first + 3] = shoulder, elbow, wrist

        hip = pelvis + along(body, sign * _ACROSS_HIPS, 0, 0)
        frame = body @ turn_x(-pose.leg[left])
        knee = bone(hip, frame, 0.1, _THIGH, clothes.trousers, (8, 10) if left else (7, 9), 2)
        frame = frame @ turn_x(pose.knee[left])
        ankle = bone(knee, frame, 0.08, _SHIN, clothes.trousers, (12, 14) if left else (11, 13), 2)
        frame = frame @ turn_x(torch.full_like(heading, -torch.pi / 2))  # the foot lies forward
        bone(ankle, frame, 0.07, _FOOT, clothes.shoes, (5, 5) if left else (6, 6), 0)
        first = 11 if left else 8
        joints[first : first + 3] = hip, knee, ankle
    return parts, torch.stack(joints, 1)


def iuv(dense: Tensor, split: Tensor, size: Tensor, local: Tensor) -> Tensor:
    """DensePose-like IUV [..., 3] of surface points: part 0..24, u around the half 0..1, v along the bone 0..1.

    dense [..., 2], split [...], size [..., 3] of the shape hit; local [..., 3], the point in its frame. 0 off bodies.
    """
    x, y, z = local.unbind(-1)
    first, other = torch.where(split == 0, x, z), torch.where(split == 0, z, x)
    part = torch.where(first < 0, dense[..., 0], dense[..., 1])
    u = torch.atan2(first.abs(), other) / torch.pi
    reach = (size[..., 0] + size[..., 1]).clamp_min(1e-6)
    v = (0.5 + 0.5 * y / reach).clamp(0, 1)
    body = (part > 0).float()
    return torch.stack([part.float(), u * body, v * body], -1)

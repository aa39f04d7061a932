"""Things in a scene: what they are made of, and where they are at any time."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .figures import ACTIONS, Clothes, angles, figure
from .motion import glide, turn_x, turn_y, turn_z, wave
from .shapes import BOX, ROUND, Part

_SLIDE_LIMIT = 1.1  # metres


@dataclass(frozen=True)
class Actor:
    """One object or person, with everything its seed decided.

    x, z: metres on the ground; size: radius or half width, for a person its height over 1.75 m; tall: height over
    width, of what can be tall; heading: radians; speed: m/s (slides, rolls, walks) or rad/s (spins); period: seconds,
    phase: turns, amount: about 1; materials: numbers of (main, second), or of a person's `Clothes`.
    """

    id: int
    kind: str
    motion: str
    x: float
    z: float
    size: float
    tall: float
    heading: float
    speed: float
    period: float
    phase: float
    amount: float
    materials: tuple[int, ...]

    @property
    def reach(self) -> float:
        """Metres around (x, z) that it needs for itself, motion aside."""
        return {"person": 0.45, "tree": 0.6, "table": 1.2}.get(self.kind, 1.1) * (
            1.0 if self.kind == "person" else self.size
        )

    @property
    def extent(self) -> tuple[float, float]:
        """(half width, height) in metres of what it fills when it rests."""
        size, tall = self.size, self.size * self.tall
        return {
            "person": (0.3, 1.75 * size), "ball": (size, 2 * size), "box": (1.2 * size, 1.8 * size),
            "pillar": (1.2 * size, 3 * tall), "capsule": (size, 2 * (size + tall)), "tree": (0.95 * size, 1.95 * size),
            "table": (size, 0.7),
        }[self.kind]  # fmt: skip


def pose_actor(actor: Actor, times: Tensor) -> tuple[list[Part], Tensor | None]:
    """The actor's parts at `times` [T] seconds, and a person's joints [T, 18, 3]."""
    if actor.motion in ACTIONS:
        return _person(actor, times)
    still = torch.zeros_like(times)
    x, y, roll, tilt, heading = still, still, still, still, still + actor.heading
    sign = -1.0 if actor.motion.endswith("left") else 1.0
    if actor.motion.startswith(("slides", "rolls")):
        x = sign * glide(times, actor.speed, _SLIDE_LIMIT)
    if actor.motion.startswith("rolls"):
        roll = -x / actor.size
    elif actor.motion == "bounces":
        y = actor.amount * 0.6 * torch.sin(math.pi * (times / actor.period + actor.phase)).abs()
    elif actor.motion == "spins":
        heading = heading + actor.speed * times
    elif actor.motion == "floats up and down":
        y = actor.amount * (0.35 + 0.25 * wave(times, actor.period, actor.phase))
    elif actor.motion == "sways":
        tilt = 0.2 * actor.amount * wave(times, actor.period, actor.phase)
    base = torch.stack([actor.x + x, y, still + actor.z], -1)
    # A roll turns what is already turned about Y, so that a ball rolls the way it goes.
    return _body(actor, base, turn_z(roll + tilt) @ turn_y(heading)), None


def _person(actor: Actor, times: Tensor) -> tuple[list[Part], Tensor]:
    heading = torch.full_like(times, actor.heading)
    x, z = torch.full_like(times, actor.x), torch.full_like(times, actor.z)
    if actor.motion == "walks":  # on a circle, which keeps it in the set for ever
        radius = 0.9
        heading = heading + actor.speed / radius * times
        x = x + radius * (math.cos(actor.heading) - heading.cos())
        z = z + radius * (heading.sin() - math.sin(actor.heading))
    pose = angles(actor.motion, times, actor.period, actor.phase, actor.amount)
    roll = torch.zeros_like(times)
    if actor.motion == "waves":
        roll = 0.7 * actor.amount * wave(times, actor.period * 0.6, actor.phase)
    ground = torch.stack([x, torch.zeros_like(x), z], -1)
    return figure(actor.id, ground, heading, actor.size, pose, roll, Clothes(*actor.materials))


def _body(actor: Actor, base: Tensor, frame: Tensor) -> list[Part]:
    """The rigid kinds. base: [T, 3], the point on the ground; frame: [T, 3, 3]."""
    size, tall = actor.size, actor.size * actor.tall
    main, second = actor.materials

    def part(kind: int, extent: tuple[float, float, float], offset: tuple[float, float, float], material: int,
             turn: Tensor | None = None) -> Part:  # fmt: skip
        middle = pivot + frame @ torch.tensor(offset)
        return Part(kind, extent, middle, frame if turn is None else frame @ turn, material, actor.id)

    pivot = base
    if actor.kind == "ball":
        pivot = base + torch.tensor([0.0, size, 0.0])
        return [part(ROUND, (size, 0.0, 0.0), (0.0, 0.0, 0.0), main)]
    if actor.kind == "capsule":
        return [part(ROUND, (size, tall, 0.0), (0.0, size + tall, 0.0), main)]
    if actor.kind == "box":
        return [part(BOX, (size, size * 0.9, size * 1.1), (0.0, size * 0.9, 0.0), main)]
    if actor.kind == "pillar":
        return [part(BOX, (size, tall * 1.5, size), (0.0, tall * 1.5, 0.0), main)]
    if actor.kind == "table":
        legs = [
            part(ROUND, (0.05, 0.25, 0.0), (i * size * 0.85, 0.3, k * size * 0.6), second)
            for i in (-1, 1) for k in (-1, 1)
        ]  # fmt: skip
        return [part(BOX, (size, 0.05, size * 0.75), (0.0, 0.65, 0.0), main), *legs]
    lean = turn_x(torch.tensor([0.3]))
    crowns = [(0.0, 1.15, 0.0, 1.0), (0.5, 0.95, 0.2, 0.7), (-0.45, 1.0, -0.2, 0.75), (0.05, 1.55, 0.1, 0.72)]
    return [
        part(ROUND, (0.13 * size, 0.45 * size, 0.0), (0.0, 0.45 * size, 0.0), second),
        *(
            part(ROUND, (0.55 * size * r, 0.05, 0.0), (a * size, b * size, c * size), main, lean)
            for a, b, c, r in crowns
        ),
    ]

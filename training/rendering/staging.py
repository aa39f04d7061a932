"""Casting and staging: a seed becomes a scene, a scene and times become shapes, lights and a camera.

The camera starts on the +Z side and looks to -Z, so "left" in a caption is -X. Units: metres, seconds, radians.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .actors import pose_actor
from .captions import CAMERAS, Facts, LightFact, ObjectFact
from .casting import Cast, cast
from .lights import Lamp, Sky, Sun
from .materials import Materials, stack_materials
from .motion import glide, look_at, turn_x, turn_y, wave
from .shapes import PLANE, Part, Shapes, stack

_TINTS = {
    "warm": (1.0, 0.80, 0.58), "white": (1.0, 0.97, 0.93), "cool": (0.72, 0.85, 1.0), "red": (1.0, 0.35, 0.28),
    "green": (0.45, 1.0, 0.5), "blue": (0.35, 0.5, 1.0), "purple": (0.75, 0.4, 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """A scene at T times: all a ray needs to know."""

    shapes: Shapes
    materials: Materials
    sky: Sky
    lights: tuple[Sun | Lamp, ...]
    eye: Tensor  # [T, 3] metres
    view: Tensor  # [T, 3, 3] camera to world; columns right, up, backward
    joints: dict[int, Tensor]  # by person's id: [T, 18, 3] metres

    def at(self, times: Tensor) -> "World":
        """The world at the indices `times` [T'] of its own times."""
        return replace(
            self,
            shapes=self.shapes.at(times),
            lights=tuple(source.at(times) for source in self.lights),
            eye=self.eye[times],
            view=self.view[times],
            joints={id: points[times] for id, points in self.joints.items()},
        )


@dataclass(frozen=True)
class LightPlan:
    """A sun (height: elevation, turn: azimuth) or a lamp (height and distance in metres, turn: azimuth).

    rate: how fast the azimuth changes, rad/s."""

    kind: str
    tint: str
    strength: float
    turn: float
    height: float
    distance: float
    rate: float


@dataclass(frozen=True)
class Scene:
    """All that a seed decides."""

    seed: int
    facts: Facts
    cast: Cast
    walls: tuple[tuple[float, float, int], ...]  # each (azimuth its inside faces, distance from the middle, material)
    ceiling: float | None  # metres
    lights: tuple[LightPlan, ...]
    dome: tuple[tuple[float, float, float], tuple[float, float, float]]  # irradiance from above and below
    horizon: tuple[tuple[float, float, float], tuple[float, float, float]]  # the sky's own colours, horizon and zenith
    fov: float  # over the shorter side of the picture
    distance: float
    azimuth: float
    height: float
    aim: tuple[float, float, float]
    camera_speed: float
    exposure: float  # what the brightest irradiance but for highlights becomes

    def at(self, times: Tensor) -> World:
        """The scene at `times` [T] seconds."""
        parts = [self._plane(times, (0.0, 1.0, 0.0), 0.0, self.cast.ground)]
        for azimuth, distance, material in self.walls:
            inward = (math.sin(azimuth), 0.0, math.cos(azimuth))
            parts.append(self._plane(times, inward, -distance, material))
        if self.ceiling is not None:
            parts.append(self._plane(times, (0.0, -1.0, 0.0), -self.ceiling, self.walls[0][2]))
        joints = {}
        for actor in self.cast.actors:
            bodies, skeleton = pose_actor(actor, times)
            parts += bodies
            if skeleton is not None:
                joints[actor.id] = skeleton
        eye, view = self._camera(times)
        return World(
            shapes=stack(parts),
            materials=stack_materials(self.cast.materials),
            sky=Sky(*map(torch.tensor, self.dome)),
            lights=tuple(self._light(plan, times) for plan in self.lights),
            eye=eye,
            view=view,
            joints=joints,
        )

    def sky_colour(self, view: Tensor) -> Tensor:
        """The dome's colour, linear [T, P, 3], for unit vectors to the eye [T, P, 3]; fixed to the world."""
        rise = (-2.2 * view[..., 1:2]).clamp(0, 1).sqrt()
        return torch.lerp(torch.tensor(self.horizon[0]), torch.tensor(self.horizon[1]), rise)

    @staticmethod
    def _plane(times: Tensor, normal: tuple[float, float, float], offset: float, material: int) -> Part:
        up = torch.tensor(normal)
        side = torch.tensor([1.0, 0.0, 0.0]) if abs(normal[1]) > 0.5 else torch.tensor([0.0, 1.0, 0.0])
        frame = torch.stack([side, up, torch.linalg.cross(side, up)], -1)
        count = len(times)
        return Part(PLANE, (0.0, 0.0, 0.0), (up * offset).expand(count, 3), frame.expand(count, 3, 3), material, 0)

    def _light(self, plan: LightPlan, times: Tensor) -> Sun | Lamp:
        turn = plan.turn + glide(times, plan.rate, 2.5 * math.copysign(1, plan.rate)) if plan.rate else plan.turn
        turn = torch.zeros_like(times) + turn
        flat = torch.stack([turn.sin(), torch.zeros_like(turn), turn.cos()], -1)
        up, colour = torch.tensor([0.0, 1.0, 0.0]), plan.strength * torch.tensor(_TINTS[plan.tint])
        if plan.kind == "sun":
            return Sun(math.cos(plan.height) * flat + math.sin(plan.height) * up, colour)
        return Lamp(plan.distance * flat + plan.height * up, colour, 0.3)

    def _camera(self, times: Tensor) -> tuple[Tensor, Tensor]:
        move, speed, still = self.facts.camera, self.camera_speed, torch.zeros_like(times)
        sign = 1.0 if move.endswith(("right", "back", "rises")) else -1.0
        pan = -sign * glide(times, 0.35 * speed, 0.5) if move.startswith("pans") else still
        turn = sign * glide(times, 0.55 * speed, 0.8) if move.startswith("orbits") else still
        away = sign * glide(times, 1.1 * speed, 1.3) if move in ("moves forward", "moves back") else still
        rise = sign * glide(times, 0.8 * speed, 0.55) if move in ("rises", "sinks") else still
        azimuth, distance = self.azimuth + turn, self.distance + away
        aim = torch.tensor(self.aim).expand(len(times), 3)
        eye = aim + torch.stack(
            [distance * azimuth.sin(), self.height - self.aim[1] + rise, distance * azimuth.cos()], -1
        )
        view = look_at(eye, aim) @ turn_y(pan)
        if move == "shakes":
            eye = eye + 0.03 * speed * torch.stack([wave(times, 0.9), wave(times, 0.63, 0.3), still], -1)
            view = view @ turn_y(0.035 * wave(times, 0.8, 0.1)) @ turn_x(0.03 * wave(times, 0.57, 0.6))
        return eye, view


# How a shot is framed: "wide" shows the set and all who are in it; "close" shows one or two of them, the first of whom
# fills the picture, for models of so few pixels that a wide shot's people are a smudge.
FRAMINGS = ("wide", "close")


def stage(seed: int, framing: str = "wide") -> Scene:
    """The scene of a seed; the same on every machine. Raises ValueError for an unknown framing."""
    if framing not in FRAMINGS:
        raise ValueError(f"There is no framing '{framing}'; choose one of {', '.join(FRAMINGS)}.")
    close = framing == "close"
    rng = np.random.default_rng(seed)
    place = str(rng.choice(["room", "studio", "field"], p=[0.4, 0.3, 0.3]))
    fov = math.radians(rng.uniform(38, 56))
    distance = rng.uniform(1.3, 1.9) / math.tan(fov / 2)
    company = cast(rng, place, close)
    wall = company.materials[company.wall] if company.wall is not None else None
    walls: list[tuple[float, float, int]] = []
    if company.wall is not None:
        slant = rng.uniform(-0.35, 0.35)
        walls.append((slant, rng.uniform(2.6, 4.0), company.wall))
        if place == "room":
            walls += [(slant + math.pi / 2, rng.uniform(2.8, 4.2), company.wall)]
            walls += [(slant - math.pi / 2, rng.uniform(2.8, 4.2), company.side_wall)]
            walls += [(slant + math.pi, 8.0, company.wall)]
    lights = _light_plans(rng, place)
    level = rng.uniform(0.22, 0.5)
    # Light that the set throws back: a tinted floor colours what hangs over it.
    bounce = 0.5 * np.array(company.materials[company.ground].base) + (0.25 * np.array(wall.base) if wall else 0.1)
    above = np.array([0.75, 0.88, 1.1]) if place == "field" else np.array([1.0, 1.0, 1.0])
    haze, zenith = rng.uniform(0.55, 0.85), rng.uniform(0.0, 1.0)
    if place == "field":
        blue = np.array([0.10, 0.22, 0.55]) * (1 - zenith) + np.array([0.30, 0.42, 0.62]) * zenith
        pale = np.array([haze, haze * rng.uniform(0.88, 1.02), haze * rng.uniform(0.8, 1.1)])
    else:
        blue = pale = np.array(wall.base)
    camera = str(rng.choice(CAMERAS, p=[0.19, *[0.09] * 9]))
    seen = tuple(ObjectFact(actor.id, actor.kind, *look, actor.motion)
                 for actor, look in zip(company.actors, company.looks))  # fmt: skip
    facts = Facts(
        objects=seen,
        place=place,
        ground=company.ground_look[0],
        ground_texture=company.ground_look[1],
        wall=company.wall_colour,
        lights=tuple(LightFact(plan.kind, plan.tint, plan.rate != 0) for plan in lights),
        camera=camera,
    )
    azimuth, height = rng.uniform(-0.45, 0.45), rng.uniform(0.9, 2.3)
    aim = (rng.uniform(-0.25, 0.25), rng.uniform(0.65, 0.95), 0.0)
    speed, exposure = rng.uniform(0.6, 1.3), rng.uniform(0.85, 1.2)
    if close:
        hero = company.actors[0]
        half_width, tall = hero.extent
        near = max(0.5 * tall, half_width) / (rng.uniform(0.65, 0.95) * math.tan(fov / 2)) + half_width
        aim = (hero.x + 0.3 * half_width * aim[0], 0.5 * tall, hero.z)
        height = max(0.15, aim[1] + near * rng.uniform(-0.05, 0.35))
        distance, speed = near, speed * near / distance  # its moves stay as large in the picture
    return Scene(
        seed=seed,
        facts=facts,
        cast=company,
        walls=tuple(walls),
        ceiling=rng.uniform(3.0, 3.8) if place == "room" else None,
        lights=lights,
        dome=(_triple(level * above), _triple(level * bounce)),
        horizon=(_triple(pale), _triple(blue)),
        fov=fov,
        distance=distance,
        azimuth=azimuth,
        height=height,
        aim=aim,
        camera_speed=speed,
        exposure=exposure,
    )


def _light_plans(rng: np.random.Generator, place: str) -> tuple[LightPlan, ...]:
    def rate() -> float:
        return float(rng.choice([-1, 1])) * rng.uniform(0.6, 1.6) if rng.random() < 0.5 else 0.0

    tint = str(rng.choice(["warm", "white", "cool"], p=[0.4, 0.35, 0.25]))
    sunny = place == "field" or (place == "studio" and rng.random() < 0.5)
    # A key light comes from the camera's side, within 100 degrees, or the scene would be all shadow.
    turn = rng.uniform(-1.75, 1.75)
    if sunny:
        plans = [LightPlan("sun", tint, rng.uniform(0.8, 1.2), turn, rng.uniform(0.4, 1.1), 0.0, rate())]
    else:
        plans = [LightPlan("lamp", tint, rng.uniform(5, 8), turn, rng.uniform(2.0, 2.7), rng.uniform(0.9, 2.2), rate())]
    if rng.random() < 0.45:
        second = str(rng.choice([name for name in _TINTS if name != tint]))
        turn += float(rng.choice([-1, 1])) * rng.uniform(1.2, 2.4)
        plans.append(
            LightPlan("lamp", second, rng.uniform(2, 4), turn, rng.uniform(0.8, 2.4), rng.uniform(1.6, 2.4), rate())
        )
    return tuple(plans)


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    r, g, b = (float(value) for value in np.broadcast_to(values, 3))
    return r, g, b

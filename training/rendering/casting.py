"""Who is in a scene, of what materials, and where they stand."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...imaging.colour import srgb_to_linear
from .actors import Actor
from .captions import COLOURS, TEXTURES
from .materials import CHECKERED, HEAD, MARBLED, PLAIN, STRIPED, Material

_MOTIONS = {
    "person": ("stands", "walks", "waves", "dances"),
    "ball": ("stays still", "rolls to the left", "rolls to the right", "bounces", "floats up and down"),
    "box": ("stays still", "slides to the left", "slides to the right", "spins", "floats up and down"),
    "pillar": ("stays still", "spins", "sways"),
    "capsule": ("stays still", "bounces", "sways", "slides to the left", "slides to the right"),
    "tree": ("stays still", "sways"),
    "table": ("stays still", "spins"),
}
_SKIN = ((0.93, 0.76, 0.64), (0.82, 0.60, 0.46), (0.62, 0.43, 0.31), (0.42, 0.28, 0.20))
_HAIR = ((0.14, 0.11, 0.10), (0.34, 0.22, 0.14), (0.80, 0.62, 0.34), (0.58, 0.26, 0.12), (0.62, 0.62, 0.64))


@dataclass(frozen=True)
class Cast:
    """actors and their (colour, texture) looks; hero: the id of the one that the matte is pulled from, and whether it
    has hair or fur; all materials, and which of them cover the set."""

    actors: tuple[Actor, ...]
    looks: tuple[tuple[str, str], ...]
    hero: int
    hairy: bool
    materials: tuple[Material, ...]
    ground: int
    ground_look: tuple[str, str]
    wall: int | None
    side_wall: int | None
    wall_colour: str


def cast(rng: np.random.Generator, place: str, close: bool = False) -> Cast:
    """Draw everything about who and what is in a scene. `close`: one or two of them, side by side, moving slowly enough
    to stay in a picture that the first one fills."""
    materials: list[Material] = []

    def add(material: Material) -> int:
        materials.append(material)
        return len(materials) - 1

    ground_colour = _pick(rng, ("green", "brown", "grey", "yellow") if place == "field" else tuple(COLOURS))
    ground_pattern = int(rng.choice([PLAIN, CHECKERED, STRIPED, MARBLED], p=[0.4, 0.25, 0.15, 0.2]))
    ground = add(_cover(rng, ground_colour, ground_pattern, rng.uniform(0.8, 1.7), soft=True))
    wall = side = None
    wall_colour = ""
    if place != "field":
        # Mostly pale, as walls are; a saturated box of a room would drown everything in one colour.
        pale = ("white", "grey", "yellow", "pink", "white")
        choice = pale if rng.random() < 0.55 else tuple(COLOURS)
        wall_colour = _pick(rng, tuple(name for name in choice if name != ground_colour))
        wall = add(_cover(rng, wall_colour, PLAIN, 1.0))
        other = materials[wall].base
        side = add(Material(tuple(float(np.clip(c * rng.uniform(0.8, 1.15), 0.03, 0.9)) for c in other)))

    people = int(rng.choice([0, 1, 2], p=[0.4, 0.6, 0.0] if close else [0.2, 0.6, 0.2]))
    count = int(rng.integers(0, 2)) + (people == 0) if close else int(rng.integers(1, 4))
    kinds = ["person"] * people
    things = ["ball", "box", "pillar", "capsule", "tree", "table"]
    kinds += rng.choice(things, count, p=[0.27, 0.25, 0.12, 0.16, 0.1, 0.1]).tolist()
    if len(kinds) == 1 and not close:
        kinds.append("ball")
    actors: list[Actor] = []
    looks = []
    free = [name for name in COLOURS if name not in (ground_colour, wall_colour)]
    rng.shuffle(free)
    for number, kind in enumerate(kinds, start=1):
        colour = free[number - 1]
        pattern = int(rng.choice([PLAIN, CHECKERED, STRIPED, MARBLED], p=[0.46, 0.18, 0.2, 0.16]))
        actor = _place(rng, _draw(rng, number, kind), actors, close)
        if close:
            actor = replace(actor, speed=0.6 * actor.speed)
        if kind == "person":
            pattern = PLAIN if pattern in (MARBLED, CHECKERED) else pattern
            numbers = _clothes(rng, colour, pattern, add)
        else:
            if kind == "tree":
                pattern = PLAIN
            cells = rng.uniform(1.2, 2.2) / actor.size
            main = add(_cover(rng, colour, pattern, cells))
            bark = "brown" if kind == "tree" else _pick(rng, ("brown", "black", "grey"))
            numbers = (main, add(_cover(rng, bark, PLAIN, 1.0)))
        actors.append(replace(actor, materials=numbers))
        looks.append((colour, TEXTURES[pattern]))
    hero = actors[0]
    hairy = hero.kind == "person" or (hero.kind == "ball" and rng.random() < 0.7)
    return Cast(
        tuple(actors), tuple(looks), hero.id, hairy, tuple(materials),
        ground, (ground_colour, TEXTURES[ground_pattern]), wall, side, wall_colour,
    )  # fmt: skip


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _linear(rng: np.random.Generator, srgb: tuple[float, float, float], spread: float = 0.05):
    encoded = np.clip(np.array(srgb) * rng.uniform(0.92, 1.06) + rng.uniform(-spread, spread, 3), 0.12, 0.95)
    r, g, b = srgb_to_linear(torch.from_numpy(encoded)).tolist()
    return r, g, b


def _cover(rng: np.random.Generator, colour: str, pattern: int, cells: float, soft: bool = False) -> Material:
    """A material that a caption would call by that colour: the second colour is a lighter or darker neighbour, or
    near white, so that the first still names it."""
    base = _linear(rng, COLOURS[colour])
    bright = sum(base) / 3
    if soft or rng.random() < 0.4:
        factor = rng.uniform(0.35, 0.6) if bright > 0.12 else rng.uniform(2.0, 3.5)
        second = tuple(float(np.clip(c * factor, 0.02, 0.9)) for c in base)
    else:
        second = _linear(rng, COLOURS["white" if bright < 0.45 else "grey"])
    axes = [(0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)] if not soft else [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
    axis = axes[int(rng.integers(len(axes)))]
    if pattern == MARBLED:
        direction = rng.normal(size=3)
        axis = tuple(float(c) for c in direction / np.linalg.norm(direction))
    return Material(base, second, pattern, cells, axis, rng.uniform(0.1, 0.9), float(rng.choice([0.0, 0.3, 0.8])))


def _clothes(rng: np.random.Generator, colour: str, pattern: int, add) -> tuple[int, ...]:
    skin = _linear(rng, _SKIN[int(rng.integers(len(_SKIN)))], 0.02)
    hair = _linear(rng, _HAIR[int(rng.integers(len(_HAIR)))], 0.02)
    shirt = replace(_cover(rng, colour, pattern, rng.uniform(7, 11)), axis=(0.0, 1.0, 0.0), gloss=0.0)
    below = [name for name in COLOURS if name != colour]
    return (
        add(Material(skin, hair, HEAD)),
        add(Material(skin)),
        add(shirt),
        add(replace(_cover(rng, _pick(rng, tuple(below)), PLAIN, 1.0), gloss=0.0)),
        add(_cover(rng, _pick(rng, ("black", "brown", "white", "red")), PLAIN, 1.0)),
    )


def _draw(rng: np.random.Generator, number: int, kind: str) -> Actor:
    motion = _pick(rng, _MOTIONS[kind])
    size = {
        "person": rng.uniform(0.85, 1.05), "ball": rng.uniform(0.25, 0.52), "box": rng.uniform(0.24, 0.45),
        "pillar": rng.uniform(0.16, 0.28), "capsule": rng.uniform(0.18, 0.32), "tree": rng.uniform(0.8, 1.2),
        "table": rng.uniform(0.5, 0.75),
    }[kind]  # fmt: skip
    turning = kind == "person" and motion == "walks"
    return Actor(
        id=number,
        kind=kind,
        motion=motion,
        x=0.0,
        z=0.0,
        size=size,
        tall=rng.uniform(0.9, 2.2),
        # people mostly face the camera's half of the world; walkers go any way
        heading=rng.uniform(-math.pi, math.pi) if turning or kind != "person" else rng.normal(0, 0.8),
        speed=rng.uniform(1.6, 4.0) if motion == "spins" else rng.uniform(0.6, 1.4),
        period=rng.uniform(0.8, 1.4),
        phase=rng.uniform(0, 1),
        amount=rng.uniform(0.7, 1.2),
        materials=(),
    )


def _place(rng: np.random.Generator, actor: Actor, others: list[Actor], close: bool) -> Actor:
    """The actor at the roomiest of a few random places; the first, who is likely the hero, near the middle, and close
    together the second right beside it."""
    if close and others:
        away = rng.uniform(0.75, 1.0) * (actor.reach + others[0].reach) * float(rng.choice([-1, 1]))
        return replace(actor, x=others[0].x + away, z=others[0].z + rng.uniform(-0.5, 0.1))
    best, room = actor, -math.inf
    for _ in range(12):
        if others:
            trial = replace(actor, x=rng.uniform(-1.5, 1.5), z=rng.uniform(-1.7, 0.5))
        else:
            trial = replace(actor, x=rng.uniform(-0.6, 0.6), z=rng.uniform(0.1, 0.8))
        gap = min((math.hypot(trial.x - o.x, trial.z - o.z) - trial.reach - o.reach for o in others), default=1.0)
        if min(gap, 0.5) > room:
            best, room = trial, min(gap, 0.5)
    return best

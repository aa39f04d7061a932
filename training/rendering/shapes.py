"""Analytic shapes and where rays meet them.

Legend: T times, K shapes, P rays. World: metres, +Y up, right-handed. Every shape is rigid in a frame of its own, so a
surface point keeps its local coordinates for the whole shot; textures, flow and IUV all rest on that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROUND, BOX, PLANE = 0, 1, 2  # ROUND: a capsule along local Y, a sphere when its half length is 0
FAR = 60.0  # metres: where a ray that meets nothing ends, on the sky
_NEAR = 1e-3


@dataclass(frozen=True)
class Part:
    """One shape on its way into `Shapes`.

    size: ROUND (radius, half length of the axis, 0), BOX (half edges), PLANE unused: local y = 0, seen from y > 0.
    position: [T, 3]; rotation: [T, 3, 3], local to world. owner: object id, 0 for the set. dense: DensePose parts of
    the halves where the local coordinate `split` is negative and positive, (0, 0) off the body.
    """

    kind: int
    size: tuple[float, float, float]
    position: Tensor
    rotation: Tensor
    material: int
    owner: int
    dense: tuple[int, int] = (0, 0)
    split: int = 0


@dataclass(frozen=True)
class Shapes:
    """All shapes of a world, sorted by kind; fields as in `Part`, stacked."""

    rotation: Tensor  # [T, K, 3, 3]
    position: Tensor  # [T, K, 3]
    size: Tensor  # [K, 3]
    kind: Tensor  # [K]
    material: Tensor  # [K]
    owner: Tensor  # [K]
    dense: Tensor  # [K, 2]
    split: Tensor  # [K]

    def of(self, keep: Tensor) -> "Shapes":
        """The shapes where keep [K] is true."""
        return Shapes(
            self.rotation[:, keep], self.position[:, keep], self.size[keep], self.kind[keep],
            self.material[keep], self.owner[keep], self.dense[keep], self.split[keep],
        )  # fmt: skip

    def at(self, times: Tensor) -> "Shapes":
        """The same shapes with their poses taken at the indices `times` [T']."""
        return Shapes(
            self.rotation[times], self.position[times], self.size, self.kind,
            self.material, self.owner, self.dense, self.split,
        )  # fmt: skip


def stack(parts: Sequence[Part]) -> Shapes:
    """Shapes of all parts, sorted by kind."""
    parts = sorted(parts, key=lambda part: part.kind)
    return Shapes(
        rotation=torch.stack([part.rotation for part in parts], 1),
        position=torch.stack([part.position for part in parts], 1),
        size=torch.tensor([part.size for part in parts]),
        kind=torch.tensor([part.kind for part in parts]),
        material=torch.tensor([part.material for part in parts]),
        owner=torch.tensor([part.owner for part in parts]),
        dense=torch.tensor([part.dense for part in parts]),
        split=torch.tensor([part.split for part in parts]),
    )


def distances(shapes: Shapes, origin: Tensor, direction: Tensor) -> Tensor:
    """Distance along every ray to every shape, inf where it misses.

    origin: [T, 3, P] or [T, 3, 1]; direction: [T, 3, P], unit. Returns [T, K, P] metres. Shapes are seen from outside
    only: a ray that starts within one leaves it unnoticed, and a plane is open from behind.
    """
    count = len(shapes.kind)
    turn = shapes.rotation.transpose(-1, -2)  # world to local
    flat = turn.flatten(1, 2)  # [T, K, 3, 3] -> [T, 3K, 3]
    d = (flat @ direction).unflatten(1, (count, 3))  # [T, K, 3, P]
    o = (flat @ origin).unflatten(1, (count, 3)) - turn @ shapes.position[..., None]
    rounds, boxes = int((shapes.kind == ROUND).sum()), int((shapes.kind == BOX).sum())
    out = []
    if rounds:
        out.append(_rounds(o[:, :rounds], d[:, :rounds], shapes.size[:rounds, :2, None]))
    if boxes:
        span = slice(rounds, rounds + boxes)
        out.append(_boxes(o[:, span], d[:, span], shapes.size[span, :, None]))
    if rounds + boxes < count:
        span = slice(rounds + boxes, count)
        out.append(_planes(o[:, span, 1], d[:, span, 1]))
    return torch.cat(out, 1)


def _rounds(o: Tensor, d: Tensor, size: Tensor) -> Tensor:
    """A capsule is the cylinder's side between the caps and a sphere beyond them."""
    radius, half = size[:, 0], size[:, 1]
    (ox, oy, oz), (dx, dy, dz) = o.unbind(2), d.unbind(2)
    a = (1 - dy * dy).clamp_min(1e-8)
    b = ox * dx + oz * dz
    c = ox * ox + oz * oz - radius * radius
    side = b * b - a * c  # negative: the ray misses even the endless cylinder
    near = (-b - side.clamp_min(0).sqrt()) / a
    y = oy + near * dy
    centre = oy - y.clamp(-half, half)
    b = b + centre * dy
    cap = b * b - c - centre * centre
    beyond = y.abs() > half
    near = torch.where(beyond, -b - cap.clamp_min(0).sqrt(), near)
    miss = (side < 0) | (beyond & (cap < 0)) | (near < _NEAR)
    return near.masked_fill_(miss, torch.inf)


def _boxes(o: Tensor, d: Tensor, size: Tensor) -> Tensor:
    inverse = torch.where(d.abs() < 1e-9, 1e-9, d).reciprocal()
    middle, reach = -o * inverse, inverse.abs() * size
    near, far = (middle - reach).amax(2), (middle + reach).amin(2)
    return near.masked_fill((near > far) | (near < _NEAR), torch.inf)


def _planes(height: Tensor, fall: Tensor) -> Tensor:
    near = height / -fall.clamp_max(-1e-9)
    return near.masked_fill((height <= 0) | (fall >= 0) | (near < _NEAR) | (near > FAR), torch.inf)


@dataclass(frozen=True)
class Surface:
    """What each ray meets first. On the sky (hit false) index is 0 and means nothing, and normal looks back."""

    hit: Tensor  # [T, P] bool
    index: Tensor  # [T, P] which shape
    distance: Tensor  # [T, P] metres along the ray, FAR on the sky
    point: Tensor  # [T, P, 3] world, metres
    local: Tensor  # [T, P, 3] in the shape's own frame
    normal: Tensor  # [T, P, 3] world, unit, outward
    facet: Tensor  # [T, P, 3] the normal in the shape's own frame
    view: Tensor  # [T, P, 3] unit, from the surface to the eye

    def of(self, rays: Tensor) -> "Surface":
        """What the rays named by `rays`, indices or a mask over P, have met."""
        return Surface(**{name: value[:, rays] for name, value in vars(self).items()})


def trace(shapes: Shapes, origin: Tensor, direction: Tensor) -> Surface:
    """The first surface along every ray; arguments as in `distances`."""
    distance, index = distances(shapes, origin, direction).min(1)
    hit = distance.isfinite()
    distance, index = distance.masked_fill(~hit, FAR), index.masked_fill(~hit, 0)
    point = (origin + distance[:, None] * direction).transpose(1, 2)
    view = -direction.transpose(1, 2)
    rotation, position = gather(shapes, index)
    local = (rotation * (point - position)[..., None]).sum(-2)  # the transpose turns world to local
    facet = _facets(shapes, index, local)
    normal = (rotation * facet[..., None, :]).sum(-1)
    normal = torch.where(hit[..., None], normal, view)
    return Surface(hit, index, distance, point, local, normal, facet, view)


def gather(shapes: Shapes, index: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation [T, P, 3, 3] and position [T, P, 3] of the shapes named by index [T, P]."""
    times = torch.arange(len(index))[:, None]
    return shapes.rotation[times, index], shapes.position[times, index]


def _facets(shapes: Shapes, index: Tensor, local: Tensor) -> Tensor:
    """The outward unit normal in each shape's own frame."""
    size, kind = shapes.size[index], shapes.kind[index][..., None]
    x, y, z = local.unbind(-1)
    y = y - y.clamp(-size[..., 1], size[..., 1])
    rounded = torch.nn.functional.normalize(torch.stack([x, y, z], -1), dim=-1)
    relative = local / size.clamp_min(1e-6)
    face = torch.nn.functional.one_hot(relative.abs().argmax(-1), 3) * relative.sign()
    up = torch.tensor([0.0, 1.0, 0.0])
    return torch.where(kind == ROUND, rounded, torch.where(kind == BOX, face, up))

"""What layers are called in OpenEXR files: what we write for Nuke, Blender and Arnold, and what we recognise.

A channel is named LAYER.CHANNEL, the picture's own channels R, G, B, A have no layer (OpenEXR, Technical Introduction).
Only R, G, B are colour: everything else is data and never gets a curve. Nuke keeps letters, digits and `_` of a name
and reads one dot, so all names here keep to that, but for Blender's, which start with the view layer.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

# Layer to the encoding of its picture in ComfyUI (as in `layers`, and `metres`: true distances), in the order of the
# nodes' sockets.
DELIVERED = {
    "rgb": "colour",
    "albedo": "colour",
    "irradiance": "colour",
    "normal": "normal",
    "alpha": "mask",
    "fg": "colour",
    "bg": "colour",
    "depth": "depth",
    "flow": "flow",
    "densepose": "densepose",
    "skeleton": "skeleton",
    "segmentation": "segmentation",
    "residual": "colour",
    "depth_metres": "metres",
}

_RGB, _XYZ = ("R", "G", "B"), ("X", "Y", "Z")
_CHANNELS = {
    "colour": _RGB, "normal": _XYZ, "mask": ("A",), "depth": ("Z",), "metres": ("Z",), "flow": ("u", "v"),
    "densepose": ("I", "U", "V"), "skeleton": _RGB, "segmentation": _RGB,
}  # fmt: skip

# Where a preset's name differs from the layer's own; "" is the picture itself. A view layer's name goes before all.
_NUKE = {"rgb": "", "normal": "N", "depth": "inverse_depth", "depth_metres": "depth", "flow": "forward"}
_RENAMED = {
    "nuke": _NUKE,
    "blender": {
        **_NUKE, "rgb": "Combined", "albedo": "DiffCol", "irradiance": "DiffDir", "normal": "Normal",
        "depth_metres": "Depth",
    },
    "arnold": {**_NUKE, "albedo": "diffuse_albedo", "depth_metres": ""},
}  # fmt: skip
_VIEW_LAYER = {"blender": "ViewLayer"}
PRESETS = tuple(_RENAMED)

# What other programs call our layers, lower case, best first. Ours come first, so that a file of ours never misleads.
_KNOWN_AS = {
    "rgb": ("", "combined", "rgba", "rgb", "beauty"),
    "albedo": ("albedo", "diffuse_albedo", "diffcol", "basecolor", "base_color"),
    "irradiance": ("irradiance", "diffdir"),
    "normal": ("n", "normal", "normals"),
    "alpha": ("alpha", "matte", "fg", "", "combined"),
    "fg": ("fg", "foreground"),
    "bg": ("bg", "background"),
    "depth": ("inverse_depth",),
    "flow": ("forward", "flow"),
    "densepose": ("densepose",),
    "skeleton": ("skeleton",),
    "segmentation": ("segmentation",),
    "residual": ("residual",),
    "depth_metres": ("depth", "z", ""),
}
# How the channels of one kind of layer may be spelt, best first.
_SPELT = {
    _RGB: (_RGB, ("r", "g", "b"), ("red", "green", "blue")),
    _XYZ: (_XYZ, ("x", "y", "z"), _RGB),  # normals as R, G, B are still -1..1
    ("A",): (("A",), ("a",), ("alpha",)),
    ("Z",): (("Z",), ("z",), ("V",)),  # Blender also names a pass of one value V
    ("u", "v"): (("u", "v"), ("U", "V"), ("X", "Y")),
    ("I", "U", "V"): (("I", "U", "V"),),
}


@dataclass(frozen=True)
class Channels:
    """Where a layer lies in a file. part: its number. prefix: what stands before the dot, "" for none. names: the
    channels in their order. alpha: the A beside R, G, B, if there is one. encoding: as in `layers`, or `metres`, or
    `data` for numbers that no layer of ours holds."""

    part: int
    prefix: str
    names: tuple[str, ...]
    encoding: str
    alpha: str | None = None


def channel_names(preset: str, layer: str, alpha: bool = False) -> tuple[str, ...]:
    """The names of a layer's channels in their order, with its A last if `alpha`.

    Raises ValueError for an unknown preset or layer."""
    if preset not in _RENAMED:
        raise ValueError(f"Unknown channel names {preset!r}: use one of {', '.join(PRESETS)}.")
    if layer not in DELIVERED:
        raise ValueError(f"Unknown layer {layer!r}: use one of {', '.join(DELIVERED)}.")
    parts = [part for part in (_VIEW_LAYER.get(preset), _RENAMED[preset].get(layer, layer)) if part]
    channels = _CHANNELS[DELIVERED[layer]] + (("A",) if alpha else ())
    return tuple(".".join([*parts, channel]) for channel in channels)


def _groups(part_channels: Iterable[Collection[str]]) -> dict[tuple[int, str], list[str]]:
    """(part, prefix) to the last parts of the channel names."""
    groups: dict[tuple[int, str], list[str]] = {}
    for part, names in enumerate(part_channels):
        for name in names:
            prefix, _, channel = name.rpartition(".")
            groups.setdefault((part, prefix), []).append(channel)
    return groups


def _spelling(wanted: tuple[str, ...], there: Collection[str]) -> tuple[str, ...] | None:
    return next((spelt for spelt in _SPELT[wanted] if set(spelt) <= set(there)), None)


def _channels(part: int, prefix: str, names: tuple[str, ...], encoding: str, there: Collection[str]) -> Channels:
    before = f"{prefix}." if prefix else ""
    alpha = next((a for a in ("A", "a", "alpha") if a in there), None) if len(names) == 3 else None
    return Channels(part, prefix, tuple(before + name for name in names), encoding, alpha and before + alpha)


def find_layers(part_channels: Iterable[Collection[str]]) -> dict[str, Channels]:
    """Our layers in a file, whoever wrote it: `part_channels` are the channel names of each part.

    A view layer before the name (Blender) is not minded, nor is the case. Layers that are not there are left out.
    """
    groups, found = _groups(part_channels), {}
    for layer, encoding in DELIVERED.items():
        ranked = [
            (known.index(name), part, prefix, spelt)
            for known in (_KNOWN_AS[layer],)
            for (part, prefix), there in groups.items()
            if (name := prefix.rpartition(".")[2].lower()) in known
            and (spelt := _spelling(_CHANNELS[encoding], there))
        ]
        if ranked:
            _, part, prefix, spelt = min(ranked)
            found[layer] = _channels(part, prefix, spelt, encoding, groups[part, prefix])
    return found


def find_other(part_channels: Iterable[Collection[str]], name: str) -> Channels:
    """A layer by its name in the file, R, G, B are colour, all else is data.

    Raises ValueError naming those there are.
    """
    groups = _groups(part_channels)
    place = next((place for place in groups if place[1] == name), None)
    if place is None:
        named = ", ".join(sorted({prefix for _, prefix in groups if prefix})) or "none with a name"
        raise ValueError(f"There is no layer {name!r} in the file: it holds {named}.")
    there = groups[place]
    for wanted, encoding in ((_RGB, "colour"), (_XYZ, "data")):
        if spelt := _spelling(wanted, there):
            return _channels(*place, spelt, encoding, there)
    return _channels(*place, tuple(there[:3]), "data", ())

"""The layers of a shot in one multilayer OpenEXR file a frame, for Nuke, Blender and Arnold pipelines.

Colour is scene-linear half, data is 32-bit float. `colorInteropID` (ASWF Color Interop Forum) says which space the
colour is in. Only channels named R, G, B count as colour, so data that must use these names lies in a part of its own,
tagged `data`. Motion counts v upwards, as Nuke does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checks import check_pixels
from ..colour import srgb_to_linear
from ..compositing.composite import PREMULTIPLIED, STRAIGHT
from ..encodings.layers import ENCODINGS
from ..frames import common_size
from .exr_file import HALF_MAX, Part, exr_bytes, exr_library, read_parts
from .layer_names import DELIVERED, channel_names
from .timecode import Timecode
from .versions import of_another_clip

# zip: blocks of 16 lines; zips: single lines, which Nuke reads fastest; piz: for grain; dwaa: lossy, for colour alone.
COMPRESSIONS = ("zip", "zips", "piz", "dwaa")
SPACES = ("lin_rec709_scene", "lin_ap1_scene", "lin_ap0_scene", "lin_p3d65_scene", "lin_rec2020_scene")
DATA = "data"
OURS = "strata/"  # before the names of attributes that are no standard's
REACH, ALPHA_IS = OURS + "flow_reach", OURS + "alpha"
PARTS_OF_A_BODY = 24  # what densepose's first channel is divided by in pictures


@dataclass(frozen=True)
class Window:
    """Where the pictures lie in their plate: the plate's size in pixels, and the place of their left upper corner."""

    width: int
    height: int
    left: int = 0
    top: int = 0


@dataclass(frozen=True)
class Delivery:
    """How layers are stored.

    preset: whose channel names. compression: of COMPRESSIONS; with dwaa data goes into a part of its own, as zip.
    split: colour and data in two parts. space: what linear space the colour is in, of SPACES; nothing is converted
    but the curve. encoded: colour arrives sRGB-encoded, not linear. premultiplied: colour with alpha is stored times
    its alpha. reach: pixels a frame of full colour in the flow layer. timecode: the first frame's. comments and
    attributes: text; attribute names get our prefix. window: None where the pictures are the whole plate.
    """

    preset: str = "nuke"
    compression: str = "zip"
    split: bool = False
    space: str = "lin_rec709_scene"
    encoded: bool = True
    premultiplied: bool = False
    reach: float = 1.0
    rate: Fraction = Fraction(24)
    timecode: Timecode | None = None
    comments: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    window: Window | None = None

    def __post_init__(self):
        if self.compression not in COMPRESSIONS:
            raise ValueError(f"Unknown compression {self.compression!r}: use one of {', '.join(COMPRESSIONS)}.")
        if self.space not in SPACES:
            raise ValueError(f"Unknown colour space {self.space!r}: use one of {', '.join(SPACES)}.")


def check_layers(layers: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Frames, height and width that layers, [F, H, W, C] by name, have in common; a still goes with a clip.

    Raises ValueError in one sentence for none, for unknown names, broken pixels and sizes or lengths that differ.
    """
    if not layers:
        raise ValueError("There is no layer to save: connect at least one.")
    for name, images in layers.items():
        if name not in DELIVERED:
            raise ValueError(f"Unknown layer {name!r}: use one of {', '.join(DELIVERED)}.")
        check_pixels(f"The {name} layer", images)
    return common_size(layers)


def too_bright_for_half(layers: Mapping[str, Tensor], delivery: Delivery) -> set[str]:
    """Colour layers, [F, H, W, C], in which a value exceeds 65504, so that all their frames go as 32-bit float."""
    return {
        name
        for name, images in layers.items()
        if DELIVERED[name] == "colour" and _peak(images, delivery.encoded) > HALF_MAX
    }


def layer_parts(layers: Mapping[str, Tensor], delivery: Delivery, number: int, wide: set[str]) -> list[Part]:
    """One frame as the parts of a file.

    layers: [H, W, C] by name, float; C as in a ComfyUI IMAGE or, for alpha, a MASK with C = 1; a colour's fourth
    channel is its straight alpha. number: 0 for the first frame, for the timecode. wide: colour layers to store as
    32-bit float. Raises ImportError without the library.
    """
    library = exr_library()
    colour: dict[str, np.ndarray] = {}
    data: dict[str, np.ndarray] = {}
    own_part: dict[str, np.ndarray] = {}
    for layer, picture in layers.items():
        values = _stored(layer, picture.float(), delivery).cpu().numpy()
        names = channel_names(delivery.preset, layer, alpha=values.shape[-1] == 4)
        if DELIVERED[layer] == "colour":
            values = values if layer in wide else values.astype(np.float16)
            place = colour
        else:
            place = own_part if names[0].endswith("R") else data
        place.update((name, values[..., i]) for i, name in enumerate(names))
    header = _header(delivery, number, next(iter(layers.values())).shape[:2])
    if not (delivery.split or delivery.compression == "dwaa"):
        main, rest = {**colour, **data}, own_part
    else:
        main, rest = colour, {**data, **own_part}
    lossless = "zip" if delivery.compression == "dwaa" else delivery.compression
    kinds = [
        ("colour", main, delivery.compression, delivery.space if colour else DATA),
        ("data", rest, lossless, DATA),
    ]
    present = [kind for kind in kinds if kind[1]]
    return [
        Part(
            name if len(present) > 1 else "",
            {**header, "compression": getattr(library, f"{compression.upper()}_COMPRESSION"), "colorInteropID": space},
            channels,
        )
        for name, channels, compression, space in present
    ]


def layer_frame(layers: Mapping[str, Tensor], delivery: Delivery, number: int, wide: set[str]) -> bytes:
    """One frame, as `layer_parts` takes it, as a whole file."""
    return exr_bytes(layer_parts(layers, delivery, number, wide))


def is_frame(path: Path, parts: Sequence[Part]) -> bool:
    """Whether a whole file with the channels and size of these parts lies there.

    Raises ValueError in one sentence for a whole file with others: it is of another clip."""
    try:
        there = read_parts(path)
    except (ValueError, OSError):
        return False
    size = next(iter(parts[0].channels.values())).shape
    same = [set(part.channels) for part in there] == [set(part.channels) for part in parts] and all(
        next(iter(part.channels.values())).shape == size for part in there
    )
    if not same:
        raise of_another_clip(path)
    return True


def _peak(images: Tensor, encoded: bool) -> float:
    peak = max(frame[..., :3].abs().max() for frame in images).float()
    return float(srgb_to_linear(peak) if encoded else peak)


def _stored(layer: str, picture: Tensor, delivery: Delivery) -> Tensor:
    """[H, W, C] as ComfyUI has it to what the file holds."""
    encoding, rgb = DELIVERED[layer], picture[..., :3].expand(*picture.shape[:2], 3)
    if encoding == "metres":
        return picture[..., :1]
    if encoding == "mask":  # not three times first: a mean of equal values is not always that value
        return ENCODINGS[encoding].exr_values(picture[..., :3])
    if encoding == "flow":
        return ENCODINGS[encoding].exr_values(rgb) * delivery.reach
    if encoding == "densepose":
        return rgb * rgb.new_tensor([PARTS_OF_A_BODY, 1, 1])
    if encoding != "colour":
        return ENCODINGS[encoding].exr_values(rgb)
    linear = srgb_to_linear(rgb) if delivery.encoded else rgb
    if picture.shape[-1] < 4:
        return linear
    alpha = picture[..., 3:]
    return torch.cat([linear * alpha if delivery.premultiplied else linear, alpha], dim=-1)


def _header(delivery: Delivery, number: int, size: tuple[int, int]) -> dict[str, object]:
    """Attributes that all parts share. size: height and width of the pictures."""
    height, width = size
    window = delivery.window or Window(width, height)
    header = {
        "framesPerSecond": delivery.rate,
        "dataWindow": _box(window.left, window.top, width, height),
        "displayWindow": _box(0, 0, window.width, window.height),
        REACH: float(delivery.reach),
        ALPHA_IS: PREMULTIPLIED if delivery.premultiplied else STRAIGHT,
        **{OURS + name: text for name, text in delivery.attributes.items()},
    }
    if delivery.comments:
        header["comments"] = delivery.comments
    if delivery.timecode is not None:
        header["timeCode"] = _stored_timecode(delivery.timecode.plus(number))
    return header


def _box(left: int, top: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """OpenEXR's boxes name their first and last pixel."""
    return np.array([left, top], np.int32), np.array([left + width - 1, top + height - 1], np.int32)


def _stored_timecode(timecode: Timecode):
    label = exr_library().TimeCode()
    label.hours, label.minutes, label.seconds, frame = timecode.fields()
    # The code has two bits for the tens of frames: beyond 30 a second it counts pairs and marks the second of a pair.
    pairs = timecode.rate > 30
    label.frame, label.fieldPhase = (frame // 2, bool(frame % 2)) if pairs else (frame, False)
    label.dropFrame = timecode.drop
    return label

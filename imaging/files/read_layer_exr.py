"""The layers of a shot out of multilayer OpenEXR files, whoever wrote them: the way back from `layer_exr`."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..colour import linear_to_srgb
from ..compositing.composite import PREMULTIPLIED
from ..encodings.depth import warmth_to_colours
from ..encodings.flow import flow_to_colours
from .exr_file import Part, read_parts
from .layer_exr import ALPHA_IS, DATA, PARTS_OF_A_BODY, REACH, SPACES
from .layer_names import Channels, find_layers, find_other
from .timecode import Timecode


@dataclass(frozen=True)
class LayerClip:
    """Layers out of files. layers: [F, H, W, 3] float32 by name, display-referred or linear colour, data as in
    ComfyUI's pictures of them. rate, timecode: of the first frame, None where it says none. reach: pixels a frame of
    full colour in `flow`. channels: every layer of ours in the files, read or not. spaces: the parts' colour tags."""

    layers: dict[str, Tensor]
    rate: Fraction | None
    timecode: Timecode | None
    reach: float
    channels: dict[str, Channels]
    spaces: tuple[str, ...]


def read_layers(
    paths: Sequence[Path],
    wanted: Sequence[str] | None = None,
    *,
    other: str = "",
    display: bool = True,
    after_frame: Callable[[], None] = lambda: None,
) -> LayerClip:
    """The layers of one shot out of its frames, whoever wrote them.

    wanted: names of `layer_names.DELIVERED` (None: all there are; what the files lack is left out). other: the name in
    the file of one more layer, returned as "other". display: colour comes sRGB-encoded; otherwise linear, as stored.
    Colour that we stored premultiplied comes straight again; that of others stays as it is. The pictures have the
    display window's size. after_frame: called once a frame.
    Raises ValueError in one sentence for damaged files, frames that differ, and colour that is not linear Rec.709
    where `display` asks to encode it; ImportError without the library.
    """
    first = read_parts(paths[0])
    found = find_layers([part.channels for part in first])
    chosen = {name: channels for name, channels in found.items() if wanted is None or name in wanted}
    if other:
        chosen["other"] = find_other([part.channels for part in first], other)
    for name, channels in chosen.items():
        if display and channels.encoding == "colour":
            _check_space(paths[0], name, first[channels.part])
    stacks: dict[str, Tensor] = {}
    for i, path in enumerate(paths):
        parts = first if i == 0 else read_parts(path)
        for name, channels in chosen.items():
            picture = _picture(path, parts, channels, display)
            stack = stacks.setdefault(name, picture.new_zeros(len(paths), *picture.shape))
            if picture.shape != stack.shape[1:]:
                raise ValueError(
                    f"{path} is {picture.shape[1]}x{picture.shape[0]} pixels, but {paths[0]} is {stack.shape[2]}x"
                    f"{stack.shape[1]}; frames of one shot need one size."
                )
            stack[i] = picture
        after_frame()
    header = first[0].header
    rate, reach = header.get("framesPerSecond"), header.get(REACH)
    if "flow" in stacks:
        stacks["flow"], reach = flow_to_colours(stacks["flow"], reach and float(reach))
    return LayerClip(
        {name: _three_channels(stack) for name, stack in stacks.items()},
        rate,
        _read_timecode(header.get("timeCode"), rate),
        float(reach or 1.0),
        found,
        tuple(part.header.get("colorInteropID", "unknown") for part in first),
    )


def _read_timecode(label, rate: Fraction | None) -> Timecode | None:
    """A file's timeCode attribute; None where it, or the rate to count it by, is missing or makes no sense."""
    if label is None or rate is None:
        return None
    frame = 2 * label.frame + label.fieldPhase if rate > 30 else label.frame  # see layer_exr
    mark = ";" if label.dropFrame else ":"
    with suppress(ValueError):
        return Timecode.parse(f"{label.hours:02}:{label.minutes:02}:{label.seconds:02}{mark}{frame:02}", rate)
    return None


def _check_space(path: Path, layer: str, part: Part) -> None:
    space = part.header.get("colorInteropID", "unknown")
    if space not in (SPACES[0], "unknown", DATA):
        raise ValueError(
            f"The {layer} of {path} is in {space}, which has other primaries than sRGB; read it linear, as stored, and "
            "convert it to Rec.709."
        )


def _picture(path: Path, parts: list[Part], channels: Channels, display: bool) -> Tensor:
    """One layer as ComfyUI has it, [H, W, C]; flow in pixels with y down."""
    try:
        part = parts[channels.part]
        values = torch.from_numpy(np.stack([part.plane(name) for name in channels.names], axis=-1))
    except (IndexError, KeyError) as error:
        raise ValueError(
            f"{path} lacks the channels {', '.join(channels.names)} that the first frame has; every frame needs them."
        ) from error
    if channels.encoding == "colour":
        if channels.alpha and part.header.get(ALPHA_IS) == PREMULTIPLIED:
            alpha = torch.from_numpy(part.plane(channels.alpha))[..., None]
            values = torch.where(alpha > 0, values / alpha.clamp_min(1e-8), values)
        data = part.header.get("colorInteropID") == DATA
        return linear_to_srgb(values) if display and not data else values
    try:
        return _PICTURES[channels.encoding](values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


_PICTURES: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda vectors: 0.5 * vectors + 0.5,
    "mask": lambda alpha: alpha,
    "depth": warmth_to_colours,
    "flow": lambda motion: motion * motion.new_tensor([1.0, -1.0]),
    "densepose": lambda body: body / body.new_tensor([PARTS_OF_A_BODY, 1, 1]),
    "skeleton": lambda drawing: drawing,
    "segmentation": lambda colours: colours,
    "metres": lambda depth: depth,
    DATA: lambda values: values,
}


def _three_channels(images: Tensor) -> Tensor:
    """[F, H, W, 1] three times, [F, H, W, 2] with an empty third."""
    if images.shape[-1] == 2:
        return torch.nn.functional.pad(images, (0, 1))
    return images.expand(*images.shape[:3], 3)

"""The sockets of the nodes that save and load layers: one for each layer we know, under the name it has in files.

A fixed list, not slots that grow: a socket's name says what the picture is, so nobody has to choose an encoding or type
a channel name for it, and a wire put into the wrong socket is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from comfy_api.latest import io
from torch import Tensor

from ..imaging.files.layer_names import DELIVERED

_NOTES = {
    "rgb": "The picture itself, the plate. A fourth channel is saved as its alpha.",
    "normal": "Camera-space normals, 0.5 = zero, from Strata Decode Layers.",
    "alpha": "The matte: a MASK, white is foreground, or a gray picture.",
    "fg": "The foreground. A fourth channel is saved as its alpha.",
    "depth": "Depth as colours, near red, far blue.",
    "flow": "Motion as colours, from Strata Decode Layers or Encode Flow.",
    "densepose": "Body part and place on it as colours.",
    "skeleton": "Joints and limbs on black. Data: no colour transform.",
    "segmentation": "A flat colour for every object. Data: no colour transform.",
    "residual": "What albedo x irradiance leaves of the plate; may be negative.",
    "depth_metres": "True depth as float, from Strata Decode Depth with form 'metres'.",
}


def layer_note(layer: str) -> str:
    """What a layer is, in one or two sentences."""
    return _NOTES.get(layer, f"The {layer}.")


def layer_inputs(layers: Iterable[str], note: Callable[[str], str] = layer_note) -> list[io.Input]:
    """An optional socket for each layer; `note` says what it is."""
    return [
        io.MultiType.Input(layer, optional=True, tooltip=note(layer),
                           types=[io.Image] + ([io.Mask] if DELIVERED[layer] == "mask" else []))
        for layer in layers
    ]


def connected_layers(inputs: dict) -> dict[str, Tensor]:
    """The layers among a node's inputs as [F, H, W, C]; a MASK has C = 1."""
    given = {layer: inputs[layer] for layer in DELIVERED if inputs.get(layer) is not None}
    return {layer: images.unsqueeze(-1) if images.ndim == 3 else images for layer, images in given.items()}

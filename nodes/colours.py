"""What the colour and compositing nodes ask about the pictures on their sockets."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.colour import LINEAR


def colours_input() -> io.Combo.Input:
    """Whether pictures are encoded or scene-linear: names of `imaging.colour.SPACES`."""
    return io.Combo.Input(
        "colours", options=["sRGB", LINEAR], default="sRGB",
        tooltip="What the pictures are and become: sRGB as everywhere in ComfyUI, or scene-linear (of an EXR). The "
                "work itself is done in linear light.")

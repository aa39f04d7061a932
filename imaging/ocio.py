"""Colour spaces of an OpenColorIO config, through the optional library (the `ocio` extra)."""

import difflib
import os
from collections.abc import Callable

import torch
from torch import Tensor

from .frames import at, by_frame

BUILT_IN = ("ocio://cg-config-latest", "ocio://studio-config-latest")  # ACES, in the library itself


def convert_with_ocio(
    images: Tensor, source: str, target: str, config: str | None = None, after_frame: Callable[[], None] = lambda: None
) -> Tensor:
    """Colours of one named space in another: [F, H, W, 3|4] float to float32 of the same shape, unclamped.

    source, target: colour spaces, roles or aliases of the config; whether they are linear or encoded is the config's
    matter. config: one of BUILT_IN or the path of a config.ocio, None for the file that the environment variable OCIO
    names, without one BUILT_IN's first. A fourth channel is alpha, data, and stays as it is. Frames go one by one.
    Raises ImportError in one sentence without the library, ValueError for a config that cannot be read or a space that
    it does not have.
    """
    ocio = _library()
    config = config or os.environ.get("OCIO") or BUILT_IN[0]
    try:
        loaded = ocio.Config.CreateFromFile(config)
    except (ocio.Exception, ocio.ExceptionMissingFile) as error:
        raise ValueError(
            f"{config} could not be read as an OpenColorIO config ({str(error).rstrip('.')}); check the path or the "
            f"variable OCIO, or use {BUILT_IN[0]}."
        ) from error
    for space in (source, target):
        if loaded.getColorSpace(space) is None:
            raise ValueError(_unknown(space, config, [known.getName() for known in loaded.getColorSpaces()]))
    try:
        # Lossless, since the library's default takes a fast power that is off by 1e-4.
        processor = loaded.getProcessor(source, target).getOptimizedCPUProcessor(ocio.OPTIMIZATION_LOSSLESS)
    except (ocio.Exception, ocio.ExceptionMissingFile) as error:
        raise ValueError(
            f"{config} has no way from {source!r} to {target!r} ({str(error).rstrip('.')}); choose other spaces."
        ) from error

    def make(number: int) -> tuple[Tensor]:
        picture = at(images, number)
        colours = picture[..., :3].cpu().clone(memory_format=torch.contiguous_format)
        processor.applyRGB(colours.numpy())  # in place
        return (torch.cat((colours, picture[..., 3:]), dim=-1),)

    return by_frame(len(images), make, after_frame)[0]


def _unknown(space: str, config: str, names: list[str]) -> str:
    near = difflib.get_close_matches(space, names, n=3, cutoff=0.3) or names
    return f"{config} has no colour space {space!r}; use one of its names, such as {', '.join(near[:6])}."


def _library():
    try:
        import PyOpenColorIO
    except ImportError as error:
        raise ImportError(
            "Colour spaces of a config need the OpenColorIO library, which is not installed; run `pip install "
            "opencolorio` in this Python, or use the built-in spaces."
        ) from error
    return PyOpenColorIO

"""What the nodes of the compositor's desk do with pictures that are not as they should be, and with disks that refuse:
right, or refused in one sentence with nothing half-written. Every node, every socket."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import folder_paths
import torch
from torch import Tensor

from ....nodes.alpha_video import SaveAlphaVideo
from ....nodes.colour_space import ColourSpaceNode
from ....nodes.colours import LINEAR, SRGB
from ....nodes.compositor import Compositor
from ....nodes.contact_sheet import ContactSheet
from ....nodes.decontaminate import Decontaminate
from ....nodes.despill import Despill
from ....nodes.guided_upsample import GuidedUpsample
from ....nodes.highlights import CompressHighlights, RestoreHighlights
from ....nodes.layer_exr import SaveLayersExr
from ....nodes.layer_viewer import LayerViewer
from ....nodes.lights import AddEnvironmentLight, AddLight
from ....nodes.normal_map import NormalMap
from ....nodes.rebuild import Rebuild
from ....nodes.refine_matte import RefineMatte
from ....nodes.relight import ALBEDO, RATIO, RelightShot
from ....nodes.save_layers import SaveLayers
from ....nodes.wipe import Wipe
from ...disks import disk_of
from . import tiny
from .compositing import layer
from .layer_files import WITH_EXR
from .lights import LAMP, PLAIN, SURFACE

FRAMES, HEIGHT, WIDTH = 2, 8, 12
WILD = torch.tensor([-3.0, 0.0, 0.5, 1.0, 50.0])  # what HDR plates hold, with what sharpening leaves below black


def image() -> Tensor:
    """[F, H, W, 3] in 0..1."""
    return torch.rand(FRAMES, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(1))


def mask() -> Tensor:
    """[F, H, W] in 0..1."""
    return image()[..., 0]


def relight(mode: str, normal: Tensor, light_mask: Tensor, depth: Tensor, panorama: Tensor, **more):
    """Strata Light and Environment Light into Strata Relight."""
    lights = AddLight.execute(LAMP, **PLAIN, mask=light_mask).result[0]
    lights = AddEnvironmentLight.execute(panorama, LINEAR, 0.0, 0.0, 1.0, 0.0, lights=lights).result[0]
    of_mode = {"albedo", "residual"} & more.keys()
    choice = {"mode": mode, "limit": 3.0} if mode == RATIO else {"mode": mode, "residual_gain": 1.0}
    return RelightShot.execute(normal, lights, choice | {name: more.pop(name) for name in of_mode}, depth=depth + 1,
                               **{**SURFACE, "specular": 0.04, "keep_light": 0.5, "colours": SRGB}, **more)


def guided(plate: Tensor, **layers: Tensor):
    """Strata Guided Upsample, of layers half as large as the plate."""
    small = {name: clip[:, ::2, ::2] for name, clip in layers.items()}
    return GuidedUpsample.execute(plate, "its own layer", 1, 0.01, SRGB, **small)


# A node's name, how it is run on the pictures of its sockets, and which of those are masks.
NODES: dict[str, tuple[Callable, str, str]] = {
    "Layer Compositor": (
        lambda foreground, background, original, alpha: Compositor.execute(
            SRGB, {"layer0": layer(foreground, alpha)}, background, original),
        "foreground background original", "alpha"),
    "Decontaminate": (
        lambda **given: Decontaminate.execute(colours=SRGB, hold=0.03, **given),
        "plate background foreground", "alpha"),
    "Despill": (lambda foreground: Despill.execute(foreground, SRGB, "green", "average", 1.0, 1.0), "foreground", ""),
    "Refine Matte": (lambda alpha: RefineMatte.execute(alpha, 0.1, 0.9, 2, 2, 1, -0.5, 1.0), "", "alpha"),
    "Colour Space": (
        lambda image: ColourSpaceNode.execute(image, {"spaces": "built in", "source": SRGB, "target": "ACEScg (AP1)"}),
        "image", ""),
    "Compress Highlights": (lambda plate: CompressHighlights.execute(plate, SRGB, 0.8), "plate", ""),
    "Restore Highlights": (lambda layer, plate: RestoreHighlights.execute(layer, plate, SRGB, 0.8), "layer plate", ""),
    "Relight": (lambda **given: relight(ALBEDO, **given), "normal albedo residual plate irradiance panorama",
                "light_mask depth mask"),
    "Relight by ratio": (lambda **given: relight(RATIO, **given), "normal plate irradiance panorama",
                         "light_mask depth mask"),
    "Rebuild": (lambda **given: Rebuild.execute(fit_gamma=True, per_channel=False, colours=SRGB, layers=SRGB, **given),
                "plate albedo irradiance", ""),
    "Normal Map": (lambda normal: NormalMap.execute(normal, "OpenGL", "DirectX", "as it is", 0.0, 0.0, 0.0, 6, 4),
                   "normal", ""),
    "Guided Upsample": (guided, "plate normal irradiance albedo", "alpha"),
    "Contact Sheet": (lambda **given: ContactSheet.execute(4, **given), "rgb normal", "alpha"),
    "Wipe": (lambda a, b: Wipe.execute(a, b, "still", 0.5), "a b", ""),
    "Layer Viewer": (lambda **given: LayerViewer.execute(24.0, "640", **given), "rgb normal", "alpha"),
    "Save Alpha Video": (
        lambda **given: SaveAlphaVideo.execute("bad/video", codec="ffv1", alpha_mode="straight", frame_rate=24.0,
                                               **given), "images", "alpha"),
    "Save Layers": (lambda **given: SaveLayers.execute("bad/still", "png", **given), "rgb normal", "alpha"),
}
if WITH_EXR:
    NODES["Save Layers EXR"] = (
        lambda **given: SaveLayersExr.execute("bad/exr", "nuke", "zip", SRGB, "one", 24.0, "", **given), "rgb normal",
        "alpha")
OF_ANY_SIZE = ("Contact Sheet", "Layer Viewer", "Guided Upsample")  # pictures of other sizes are what they are for
OF_ANY_LENGTH = ("Contact Sheet", "Layer Viewer", "Wipe")


@dataclass(frozen=True)
class Socket:
    """One socket of a node, and good pictures for all of its sockets."""

    node: str
    name: str
    good: dict[str, Tensor]

    @property
    def picture(self) -> Tensor:
        return self.good[self.name]

    def run(self, picture: Tensor | None = None):
        """The node, with this in the socket."""
        changed = {} if picture is None else {self.name: picture}
        return NODES[self.node][0](**(self.good | changed))

    def refuses(self, error: type[Exception], *words: str, picture: Tensor | None = None) -> str:
        """The one sentence that it is refused with, which must hold `words`."""
        return tiny.raises(error, *words, call=lambda: self.run(picture))


def sockets() -> list[Socket]:
    """Every socket of every node."""
    every = []
    for node, (_, images, masks) in NODES.items():
        good = {name: image() for name in images.split()} | {name: mask() for name in masks.split()}
        every += [Socket(node, name, good) for name in good]
    return every


SAVERS = [next(socket for socket in sockets() if socket.node == node) for node in NODES if node.startswith("Save")]


def saved() -> dict[Path, bytes]:
    """Everything that was saved, shown or begun, with what is in it."""
    folders = (folder_paths.get_output_directory(), folder_paths.get_temp_directory())
    return {path: path.read_bytes() for folder in folders for path in Path(folder).rglob("*") if path.is_file()}


def tensors(out) -> list[Tensor]:
    """The pictures that a node gave; what it did not make stops its users with a sentence and is none."""
    return [result for result in out.result or () if isinstance(result, Tensor)]


def check_broken_pixels():
    """A NaN or an infinite pixel in any socket is refused by name, but shown by the viewer; nothing is saved."""
    before, refused = saved(), 0
    for socket in sockets():
        for value in (torch.nan, torch.inf):
            broken = socket.picture.clone()
            broken[:, 0, 0] = value
            if socket.node == "Layer Viewer":
                assert socket.run(broken).ui["strata_layers"]
            else:
                socket.refuses(ValueError, "NaN or infinite pixels", picture=broken)
                refused += 1
    made = saved().keys() - before.keys()
    assert all(path.suffix == ".half" for path in made), f"something was saved: {made}"
    return f"{refused} refused"


def check_sizes_and_lengths():
    """A picture of another size, and a clip of another length, is refused with both sizes or lengths."""
    refused = 0
    for socket in sockets():
        alone = len(socket.good) == 1 or socket.name == "panorama"
        changes = {"size": socket.picture[:, :, 1:], "length": torch.cat([socket.picture, socket.picture[:1]])}
        for what, changed in changes.items():
            if alone or socket.node in (OF_ANY_SIZE if what == "size" else OF_ANY_LENGTH):
                socket.run(changed)
            else:
                socket.refuses(ValueError, what, picture=changed)
                refused += 1
    return f"{refused} refused"


def check_stills_go_with_clips():
    """A still in any socket holds for the whole clip: what comes out is as long as without it."""
    for socket in sockets():
        if (socket.node, socket.name) != ("Guided Upsample", "plate"):  # the plate is the clip itself
            lengths = {len(clip) for clip in tensors(socket.run(socket.picture[:1]))}
            one = len(socket.good) == 1 or socket.node == "Contact Sheet"
            assert lengths <= ({1} if one else {FRAMES}), (socket.node, socket.name, lengths)


def check_fourth_channels():
    """A fourth channel is alpha or left out, never an error; two channels are refused in one sentence."""
    for socket in sockets():
        if socket.picture.ndim == 4:
            out = socket.run(torch.cat([socket.picture, mask()[..., None]], dim=-1))
            assert all(bool(torch.isfinite(clip).all()) for clip in tensors(out)), (socket.node, socket.name)
            socket.refuses(ValueError, "channels", picture=socket.picture[..., :2])


def check_values_beyond_white_and_black():
    """Colours below 0 and far above 1 pass and stay finite; an alpha outside 0..1 is clamped, which a saver says, or
    refused with the node that repairs it."""
    said = []
    for socket in sockets():
        count = socket.picture.numel()
        wild = WILD.repeat(count // len(WILD) + 1)[:count].view_as(socket.picture)
        if socket.name == "alpha" and socket.node in ("Layer Compositor", "Decontaminate"):
            said.append(socket.refuses(ValueError, "goes from -3 to 50", "Strata Refine Matte", picture=wild))
        elif socket.name == "depth":
            said.append(socket.refuses(ValueError, "0 m or less", picture=wild))
        else:
            out = socket.run(wild)
            assert all(bool(torch.isfinite(clip).all()) for clip in tensors(out)), (socket.node, socket.name)
            if socket.node.startswith("Save") and (socket.node != "Save Layers EXR" or socket.name == "alpha"):
                assert "clamped" in str(out.ui.as_dict()), (socket.node, socket.name)
    return " ".join(dict.fromkeys(said))


def check_a_full_disk():
    """What does not fit is said in one sentence; no part of it stays, and what was saved before is as it was."""
    said = []
    for socket in (*SAVERS, next(socket for socket in sockets() if socket.node == "Layer Viewer")):
        socket.run()
        before = saved()
        with disk_of(60):
            said.append(socket.refuses(OSError, "Could not write", "free some space"))
        assert saved() == before, socket.node
    return " ".join(said)


def check_a_folder_that_takes_no_files():
    """The same of an output folder that may not be written to, and of a file in the way of a folder."""
    root, said = folder_paths.get_output_directory(), []
    blocked = Path(root) / "in the way"
    blocked.write_text("mine")
    for folder in (str(blocked), "/proc/self"):
        if os.path.exists(folder):  # only Linux has a folder that refuses even root
            folder_paths.set_output_directory(folder)
            try:
                said += [socket.refuses(OSError, "Could not write") for socket in SAVERS]
            finally:
                folder_paths.set_output_directory(root)
    assert blocked.read_text() == "mine"
    return " ".join(said)


def check_existing_files_stay():
    """Saving again makes a new version; the files of the first are as they were."""
    for socket in SAVERS:
        socket.run()
        before = saved()
        socket.run()
        after = saved()
        assert len(after) > len(before) and before.items() <= after.items(), socket.node

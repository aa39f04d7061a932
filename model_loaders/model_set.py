"""The files that make up a model, found by looking into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..joint.streams import Family
from .detect import Detected, detect

BUNDLED = {"tiny": Path(__file__).parent / "tiny"}

_BACKBONE, _LAYERS = ".wan.safetensors", ".layers.safetensors"  # the halves of one checkpoint

_Found = tuple[Path, Detected]


@dataclass(frozen=True)
class ModelSet:
    """Where the parts of a model lie; `adapters` is the layer file, of any kind. The text encoder may be absent: the
    empty prompt can do without."""

    backbone: Path
    adapters: Path
    vae: Path
    text_encoder: Path | None


def find_models(where: str, family: Family, *, backbone: str | None = None, adapters: str | None = None,
                vae: str | None = None, text_encoder: str | None = None) -> ModelSet:
    """The parts of a model for a family: those named, and the others from `where`, the name of a bundled model or a
    folder that is searched through (ComfyUI's `models` folder is one).

    Raises FileNotFoundError for a part that is nowhere, ValueError for one that could be several files.
    """
    folder = BUNDLED.get(where, Path(where).expanduser())
    if not folder.is_dir() and not (backbone and adapters and vae):
        raise FileNotFoundError(f"There is no model '{where}': give a bundled one ({', '.join(BUNDLED)}) or the folder "
                                "that holds its files.")
    found = _look_into(folder, family) if folder.is_dir() else {}
    # Layers first: they say how wide the backbone is.
    layers = _choose(where, "adapters", adapters, found.get("adapters", []), f"adapters of the {family.name} family")
    backbones = _backbones(found.get("backbone", []), family, layers, folder)
    vaes = _narrow(found.get("vae", []), lambda held: held.channels == family.latents.channels)
    return ModelSet(
        backbone=_choose(where, "backbone", backbone, backbones, "backbone"),
        adapters=layers,
        vae=_choose(where, "vae", vae, vaes, "vae"),
        text_encoder=_choose(where, "text encoder", text_encoder, found.get("text encoder", [])),
    )


def _choose(where: str, kind: str, named: str | None, found: list[_Found], what: str | None = None) -> Path | None:
    """The one file of a kind; `what` words it where there has to be one."""
    if named:
        return Path(named).expanduser()
    option = "--" + kind.replace(" ", "-")
    if len(found) > 1:
        names = ", ".join(path.name for path, _ in found)
        raise ValueError(f"'{where}' holds {len(found)} files that could be the {kind} ({names}): "
                         f"say which with {option}.")
    if not found and what:
        raise FileNotFoundError(f"'{where}' holds no {what}: say where it is with {option}.")
    return found[0][0] if found else None


def _backbones(found: list[_Found], family: Family, layers: Path, folder: Path) -> list[_Found]:
    """Those of several that fit the layers' width and the latents' channels; of these the one beside the layers, or
    NAME.wan to NAME.layers, or else those that were not trained whole with layers of their own."""
    if len(found) > 1:
        width = detect(layers).width
        found = _narrow(found, lambda held: held.width == width)
        found = _narrow(found, lambda held: held.channels == family.latents.channels)
        owned = {_name(path) for path in folder.rglob(f"*{_LAYERS}")}
        for mine in (lambda path: path.parent == layers.parent, lambda path: _name(path) == _name(layers),
                     lambda path: _name(path) not in owned):
            if chosen := [(path, held) for path, held in found if mine(path)]:
                return chosen
    return found


def _name(path: Path) -> str:
    """What `strata convert` calls a checkpoint whose two halves it writes."""
    return path.name.removesuffix(_LAYERS).removesuffix(_BACKBONE)


def _narrow(found: list[_Found], fits: Callable[[Detected], bool]) -> list[_Found]:
    """Those of several that fit; all, where none does, so that the error is about a file that there is."""
    return [(path, held) for path, held in found if fits(held)] or found


def _look_into(folder: Path, family: Family) -> dict[str, list[_Found]]:
    found: dict[str, list[_Found]] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            held = detect(path)
        except (ValueError, OSError):
            continue  # a file that nobody asked for: damaged, or a checkpoint that a training has just removed
        if held.family is None or held.family.name == family.name:
            kind = "adapters" if held.kind == "layers" else held.kind
            found.setdefault(kind, []).append((path, held))
    return found

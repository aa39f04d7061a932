"""The files that make up a model, found by looking into them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..joint.streams import Family
from .detect import detect

BUNDLED = {"tiny": Path(__file__).parent / "tiny"}


@dataclass(frozen=True)
class ModelSet:
    """Where the parts of a model lie. The text encoder may be absent: the empty prompt can do without."""

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
    named = {"backbone": backbone, "adapters": adapters, "vae": vae, "text encoder": text_encoder}
    if not folder.is_dir() and not (backbone and adapters and vae):
        raise FileNotFoundError(f"There is no model '{where}': give a bundled one ({', '.join(BUNDLED)}) or the folder "
                                "that holds its files.")
    found = _look_into(folder, family) if folder.is_dir() else {}
    parts = {}
    for kind, path in named.items():
        candidates = [Path(path).expanduser()] if path else found.get(kind, [])
        option = "--" + kind.replace(" ", "-")
        if len(candidates) > 1:
            names = ", ".join(c.name for c in candidates)
            raise ValueError(f"'{where}' holds {len(candidates)} files that could be the {kind} ({names}): "
                             f"say which with {option}.")
        if not candidates and kind != "text encoder":
            what = f"{kind} of the {family.name} family" if kind == "adapters" else kind
            raise FileNotFoundError(f"'{where}' holds no {what}: say where it is with {option}.")
        parts[kind.replace(" ", "_")] = candidates[0] if candidates else None
    return ModelSet(**parts)


def _look_into(folder: Path, family: Family) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            what = detect(path)
        except (ValueError, OSError):
            continue  # a file that nobody asked for: damaged, or a checkpoint that a training has just removed
        if what.family is None or what.family.name == family.name:
            found.setdefault(what.kind, []).append(path)
    return found

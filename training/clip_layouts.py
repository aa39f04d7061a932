"""Where the clips of a user's own data lie: a folder by clip, a folder by layer, or a table.

    by clip    WHERE/NAME/LAYER.mp4, WHERE/NAME/prompt.txt
    by layer   WHERE/LAYER/NAME.mp4, WHERE/prompt/NAME.txt
    table      WHERE.csv, a column for each layer, and `name` and `prompt` if wanted; paths relative to the table

Where a family has a text stream, its text lies as the prompt does, under the stream's name: caption.txt. In place of
the .mp4 may stand any file that `read_clip` knows, or a folder that holds a sequence. No pixel is read.
"""

from __future__ import annotations

import csv
import difflib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..imaging.files.clips import EXR, STILLS, VIDEOS
from ..joint.streams import Family
from ..model_loaders.safetensors_file import name_some

_SUFFIXES = (*VIDEOS, *STILLS, EXR)
_PROMPT = "prompt"
_NAME = "name"


@dataclass(frozen=True)
class Listing:
    """One clip as it lies on disk.

    files: what was found for each layer; more than one path for a layer is a fault that reading the clip reports.
    prompt: the text, or the file that holds it. texts: the same of the family's text streams, by name.
    """

    name: str
    files: dict[str, tuple[Path, ...]]
    prompt: str | Path = ""
    texts: Mapping[str, str | Path] = field(default_factory=dict)


def find_clips(where: Path, family: Family) -> tuple[list[Listing], list[str]]:
    """The clips at `where` in the order of their names (of a table's lines), and warnings about what was passed over.

    Folders and files whose name starts with a dot are not looked at. Raises FileNotFoundError or ValueError in one
    sentence when there is no clip, when the two folder layouts are mixed, and for a table that is not as it should be.
    """
    if not where.exists():
        raise FileNotFoundError(f"There is nothing at '{where}', but a folder of clips or a .csv is needed; "
                                "check the path.")
    if where.is_dir():
        return _in_folder(where, family)
    if where.suffix.lower() != ".csv":
        raise ValueError(f"'{where}' is neither a folder of clips nor a .csv; give one of the two.")
    return _in_table(where, family), []


def _in_folder(where: Path, family: Family) -> tuple[list[Listing], list[str]]:
    entries = _visible(where)
    layers = [entry for entry in entries if entry.is_dir() and entry.name in family.pictures]
    others = [entry for entry in entries if entry.is_dir() and entry.name not in family.pictures]
    ignored = [entry for entry in entries if not entry.is_dir()]
    if not layers:
        clips = [_clip_folder(folder, family, ignored) for folder in others]
    else:
        for folder in others:
            if any(_title(entry) in family.pictures for entry in _visible(folder)):
                raise ValueError(f"'{where}' holds both a folder of a layer ({layers[0].name}) and one of a clip "
                                 f"({folder.name}), but all clips must lie the same way; move one kind elsewhere.")
        ignored += [folder for folder in others if folder.name not in (_PROMPT, *family.texts)]
        clips = _layer_folders(where, layers, family, ignored)
    warnings = _about_ignored(where, family, ignored)
    if not clips:
        raise ValueError(f"'{where}' holds no clip, but a folder for each is needed, with {family.pictures[0]}.mp4 or "
                         f"other layers ({', '.join(family.pictures)}) in it.")
    return clips, warnings


def _clip_folder(folder: Path, family: Family, ignored: list[Path]) -> Listing:
    files, texts = defaultdict(tuple), {}
    for entry in _visible(folder):
        if _title(entry) in family.pictures:
            files[_title(entry)] += (entry,)
        elif entry.suffix == ".txt" and entry.stem in (_PROMPT, *family.texts):
            texts[entry.stem] = entry
        else:
            ignored.append(entry)
    return Listing(printable(folder.name), dict(files), texts.pop(_PROMPT, ""), texts)


def _layer_folders(where: Path, layers: list[Path], family: Family, ignored: list[Path]) -> list[Listing]:
    files = defaultdict(lambda: defaultdict(tuple))  # clip -> layer -> paths
    for folder in layers:
        for entry in _visible(folder):
            if _title(entry) is None:
                ignored.append(entry)
            else:
                files[_title(entry)][folder.name] += (entry,)
    texts = defaultdict(dict)  # clip -> kind -> path
    for kind in (_PROMPT, *family.texts):
        for entry in _visible(where / kind) if (where / kind).is_dir() else ():
            if entry.suffix == ".txt" and entry.stem in files:
                texts[entry.stem][kind] = entry
            else:
                ignored.append(entry)
    return [Listing(printable(name), dict(files[name]), texts[name].pop(_PROMPT, ""), texts[name])
            for name in sorted(files)]


def _in_table(table: Path, family: Family) -> list[Listing]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:  # -sig: Excel's own mark at the start
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except UnicodeDecodeError:
        raise ValueError(f"'{table}' is not UTF-8 text; save it as 'CSV UTF-8'.") from None
    except csv.Error as error:
        raise ValueError(f"'{table}' could not be read as a table ({error}); save it as CSV again.") from None
    if len(rows) < 2:
        raise ValueError(f"'{table}' holds no clip, but a line of column names and a line for each clip are needed.")
    (_, columns), *rows = rows
    _check_columns(table, columns, family)
    clips = []
    for line, row in rows:
        if len(row) > len(columns):
            raise ValueError(f"Line {line} of '{table}' has {len(row)} cells for {len(columns)} columns; put a text "
                             'that contains commas in "quotes".')
        cells = dict(zip(columns, row))
        files = {layer: (table.parent / cells[layer],) for layer in family.pictures if cells.get(layer)}
        texts = {name: cells[name] for name in family.texts if cells.get(name)}
        clips.append(Listing(cells.get(_NAME) or f"line {line}", files, cells.get(_PROMPT, ""), texts))
    return clips


def _check_columns(table: Path, columns: list[str], family: Family) -> None:
    texts = (*family.texts, _PROMPT)
    allowed = f"{', '.join((*family.pictures, *texts))} and {_NAME}, with commas between them"
    unknown = [column for column in columns if column not in (*family.pictures, *texts, _NAME)]
    if unknown:
        raise ValueError(f"'{table}' has columns that the {family.name} family does not know "
                         f"({', '.join(map(repr, unknown))}); the columns there may be are {allowed}.")
    if len(set(columns)) < len(columns):
        raise ValueError(f"'{table}' has two columns of one name ({', '.join(columns)}); rename or remove one.")
    if not set(columns) & set(family.pictures):
        raise ValueError(f"'{table}' has no column of a layer; the columns there may be are {allowed}.")


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _title(entry: Path) -> str | None:
    """The name without suffix of what can be a clip's layer, None for any other file."""
    if entry.is_dir():
        return entry.name
    return entry.stem if entry.suffix.lower() in _SUFFIXES else None


def printable(text: str) -> str:
    """A text with file names in it as valid unicode, which names need not be on Linux, but logs and caches need."""
    return text.encode(errors="replace").decode()


def _about_ignored(where: Path, family: Family, ignored: list[Path]) -> list[str]:
    """One sentence for each name that may be meant for a layer, and one for the rest together."""
    groups, warnings, rest = defaultdict(list), [], []
    for path in ignored:
        groups[path.name].append(path)
    for name, paths in groups.items():
        stem = Path(name).stem
        near = difflib.get_close_matches(stem, (*family.pictures, _PROMPT), 1, cutoff=0.7)
        if not near:
            rest.append(name)
            continue
        more = f" and {len(paths) - 1} more of this name are" if len(paths) > 1 else " is"
        hint = f"; did you mean '{near[0]}'?" if near[0] != stem else "."
        kinds = ", ".join(suffix[1:] for suffix in _SUFFIXES)
        warnings.append(f"'{paths[0].relative_to(where).as_posix()}'{more} ignored: neither a layer of the "
                        f"{family.name} family ({', '.join(family.pictures)}) as a folder or {kinds}, nor a prompt"
                        f"{hint}")
    if rest:
        warnings.append(f"Ignored in '{where}', being no layers: {name_some(rest, 8)}.")
    return warnings

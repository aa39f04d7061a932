"""Fixture folders of any of the published systems, each replayed by the module that knows its layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from .result import Result
from .unityvideo import replay_unityvideo
from .unividx import replay_unividx
from .univigu import replay_univigu


def replay(folder: str | Path, device: str = "cpu") -> Iterator[Result]:
    """Replay every case of a fixture folder. Raises ValueError when the folder holds none that we know."""
    folder = Path(folder)
    about = next((json.loads(path.read_text()) for name in ("manifest.json", "meta.json")
                  if (path := folder / name).is_file()), {})
    for key, system in (("families", replay_unividx), ("modalities", replay_unityvideo), ("vocab", replay_univigu)):
        if key in about:
            yield from system(folder, device)
            return
    raise ValueError(f"'{folder}' holds no fixtures that this version replays (no manifest.json or meta.json that "
                     "names families, modalities or vocab).")

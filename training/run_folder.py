"""The folder of a run: its results, log, pictures and checkpoints, and what becomes of them when the disk is full."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from ..imaging.atomic import replace_file
from ..joint.families import WAN
from ..joint.streams import Task
from ..model_loaders.layer_files import save_prompts
from ..model_loaders.layer_metadata import layer_metadata
from ..model_loaders.safetensors_file import replace_tensors
from .checkpoints import State, load_state, save_state
from .config import CONFIG, TrainConfig, config_text

LOG, CHECKPOINTS, PICTURES, CACHE = "log.jsonl", "checkpoints", "pictures", "cache"


class RunFolder:
    """What a run leaves behind. Every process reads it and only the first, with `writes`, changes it: in the others the
    methods that write a file do nothing.

    `saved` is the step of the newest checkpoint, 0 without one. `say` hears of a disk that is full.
    """

    def __init__(self, path: Path, config: TrainConfig, *, writes: bool, say: Callable[[str], None]):
        self.path, self.config, self.saved = path, config, 0
        self._family, self._writes, self._say = config.resolve_family(), writes, say
        self._disk_refused = False

    @property
    def _kind(self) -> str:
        """What the file of the family's layers is called among the results."""
        return "adapters" if self._family.file_adapters else "layers"

    @property
    def store(self) -> Path:
        """Where the encoded clips and prompts are kept."""
        return Path(self.config.data.cache) if self.config.data.cache else self.path / CACHE

    def results(self) -> dict[str, Path]:
        """The files that a finished run has made, by what they are; nothing in the processes that do not write."""
        if not self._writes:
            return {}
        made = {} if self._family.name == WAN.name else {self._kind: self.path / f"{self._family.name}.safetensors"}
        if self.config.model.train == "all":
            made["backbone"] = self.path / "wan.safetensors"
        return made | {"log": self.path / LOG, "config": self.path / CONFIG}

    def claim(self) -> None:
        """Raise OSError now, not after hours of encoding, when the results cannot be written."""
        if self._writes and not (self.path / LOG).is_file():
            replace_file(self.path / LOG, b"")

    def last_state(self) -> State | None:
        """The newest checkpoint that can be read, or None. Raises ValueError when there are some and none can be."""
        state = load_state(self.path / CHECKPOINTS, self._say)
        self.saved = state.step if state else 0
        return state

    def begin(self) -> None:
        """Write the config down, and drop what a run that was cut off logged after its last checkpoint, which is now
        done again. Raises OSError."""
        if not self._writes:
            return
        replace_file(self.path / CONFIG, config_text(self.config).encode())
        log = self.path / LOG
        if log.is_file():
            kept = [line for line in log.read_text(encoding="utf-8").splitlines() if _step_of(line) <= self.saved]
            replace_file(log, "".join(line + "\n" for line in kept).encode())

    # ---- what must be there in the end: OSError, which `outlasting_a_full_disk` makes a warning ----

    @contextmanager
    def outlasting_a_full_disk(self) -> Iterator[None]:
        """Inside, a disk that refuses is said, and the training goes on."""
        try:
            yield
        except OSError as error:
            self._say(f"Warning: {error} The newest checkpoint is that of step {self.saved}.")

    def save(self, state: State) -> None:
        """Write a checkpoint."""
        if self._writes:
            save_state(self.path / CHECKPOINTS, state, self.config.run.keep)
        self.saved = state.step

    def export(self, weights: Mapping[str, Mapping[str, Tensor]], prompts: Mapping[str, Tensor],
               vocabulary: Mapping[str, Tensor]) -> None:
        """Write the family's layers in the published layout, with what else is needed to use them. weights: of the
        "layers" and of the "backbone", by name; prompts [512, E] as `save_prompts` takes them; vocabulary: the tensor
        of bytes that holds it, where there is one."""
        if not self._writes:
            return
        results = self.results()
        if self._kind in results:
            layers = _for_file(weights["layers"]) | dict(vocabulary)
            replace_tensors(results[self._kind], layers, layer_metadata(self._family))
            save_prompts(results[self._kind], prompts)
        if "backbone" in results:
            replace_tensors(results["backbone"], _for_file(weights["backbone"]))

    # ---- what a run can do without ----

    def log(self, entry: dict) -> None:
        """Add a line, which begins with its "step"."""
        if self._writes:
            with self._doing_without(), (self.path / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    @contextmanager
    def picture(self, step: int, task: Task, suffix: str = ".png") -> Iterator[Path]:
        """Where to write a picture, or a text, inside of the `with`."""
        with self._doing_without():
            yield self.path / PICTURES / f"step_{step:07}_{task}{suffix}"

    @contextmanager
    def _doing_without(self) -> Iterator[None]:
        """Inside, a disk that refuses is said once."""
        try:
            yield
        except OSError as error:
            if not self._disk_refused:
                self._say(f"Warning: {error.strerror or error}; the log and the pictures are no longer written.")
            self._disk_refused = True


def _for_file(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # float16 has three bits more than bfloat16, and no weight comes near its limits.
    return {name: value.detach().half().cpu() for name, value in tensors.items()}


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # a line that a kill cut in half
        return math.inf

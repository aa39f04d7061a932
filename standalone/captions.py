"""The host of `strata caption`: clips in, what they show in words out, with no ComfyUI about."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..imaging.atomic import replace_file
from ..imaging.encodings.layers import encode
from ..imaging.files.clip_search import search_clips
from ..imaging.files.clips import count_frames, read_clip
from ..imaging.sizes.fit import Fit
from ..imaging.sizes.shot_windows import FITS, choose_frames, fit_clip, merge_captions, windows
from ..joint.attention import get_attention
from ..joint.families import FAMILIES
from ..joint.sampling import Engine, Texts, sample_text
from ..joint.streams import Task
from ..joint.text_flow import TextSolver, caption_solver, random_tokens, text_grid
from ..joint.transformer import Host
from ..model_loaders.device import check_device
from ..model_loaders.model_set import ModelSet
from .loading import embed_prompts, load_engine, load_layer_file, no_context, say, working_dtype

CAPTIONER = next(family for family in FAMILIES.values() if family.texts)
SAMPLERS = ("jump", "published")
LONG = ("sample", "windows")


@dataclass(frozen=True)
class TextDraw:
    """What a text is made from: noise `ids` [1, S], the times `grid` [n + 1], and the solver of its n steps."""

    ids: Tensor
    grid: Tensor
    solver: TextSolver

    @classmethod
    def caption(cls, sampler: str, steps: int, length: int, vocabulary: int, generator: torch.Generator) -> TextDraw:
        """For the caption of given pictures: `sampler` "jump" draws the jumps first and skips forwards in which no
        token jumps, "published" draws as the release does. They are equally good: the distribution is one."""
        grid, ids = text_grid(steps), random_tokens(1, length, vocabulary, generator)
        return cls(ids, grid, caption_solver(grid, length, generator, published=sampler == "published"))

    @property
    def forwards(self) -> int:
        """How many of the steps need the network."""
        return sum(map(self._needs_forward, range(self.solver.steps)))

    def sample(self, engine: Engine, task: Task, clean: Tensor, texts: Texts, bar: tqdm) -> Tensor:
        """The text [1, S] of the pictures in `clean` [1, P, C, F, Y, X]; `bar` counts forwards."""
        return sample_text(engine, task, clean, self.ids, texts, self.solver, self.grid,
                           callback=lambda i, _: bar.update(self._needs_forward(i)))

    def _needs_forward(self, step: int) -> bool:
        wanted = self.solver.wanted(step)
        return wanted is None or bool(wanted.any())


def forward_bar(forwards: int, name: str) -> tqdm:
    """A progress bar over forwards, where stderr is a terminal."""
    return tqdm(total=forwards, desc=name, unit="forward", disable=None)


@dataclass(frozen=True)
class CaptionSettings:
    """How clips are captioned. `steps`, `length` (tokens), `size` (height, width) and `frames` None take the family's
    own. `fit`: how a clip is brought to the size, one of `shot_windows.FITS`. `long`: what is done with a clip of more
    frames, which are chosen evenly ("sample"), or all looked at in windows of that length ("windows"). `hint`: what is
    known of the clips; it needs a text encoder."""

    steps: int | None = None
    length: int | None = None
    seed: int = 1
    hint: str = ""
    fit: str = "cover"
    size: tuple[int, int] | None = None
    frames: int | None = None
    long: str = "sample"
    sampler: str = "jump"
    device: str = "cpu"
    attention: str = "sdpa"

    def check(self) -> None:
        """Raise ValueError for a setting that cannot be."""
        for name, value, choices in (("fit", self.fit, FITS), ("long", self.long, LONG),
                                     ("sampler", self.sampler, SAMPLERS)):
            if value not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}, not {value!r}.")
        if self.frames is not None and not (0 < self.frames <= CAPTIONER.frames and self.frames % 4 == 1):
            raise ValueError(f"A caption reads 1, 5, 9, ... {CAPTIONER.frames} frames at once, not {self.frames}: give "
                             "one of these.")
        if self.fit == "whole" and self.size:
            raise ValueError("A clip that is taken whole keeps its own size: leave the size out, or fit by cover or "
                             "crop.")
        check_device(self.device)
        get_attention(self.attention)


@dataclass(frozen=True)
class Caption:
    """What a clip shows. `text` may be empty: the model may say nothing. By window (one, unless a long clip was read in
    windows): `tokens`, all that were made, padding too, and `frames`, the numbers of those read. `size`: height and
    width as the model saw them. `forwards` of the network it took, and `seconds`."""

    path: Path
    text: str
    tokens: list[list[int]]
    frames: list[list[int]]
    size: tuple[int, int]
    forwards: int
    seconds: float

    def as_json(self) -> dict:
        """What `--json` prints, under these names but `caption`."""
        return {"path": str(self.path), "caption": self.text, "tokens": self.tokens, "frames": self.frames,
                "size": list(self.size), "forwards": self.forwards, "seconds": self.seconds}


@dataclass(frozen=True)
class Failure:
    """A clip without a caption, and one sentence that says why."""

    path: Path
    reason: str


class Captioner:
    """A model that is ready to caption.

    Raises ValueError, OSError or ImportError with one sentence for what is wrong with a setting, a file or the
    machine."""

    def __init__(self, models: ModelSet, settings: CaptionSettings):
        settings.check()
        self.settings, hint = settings, settings.hint.strip()
        loaded = load_layer_file(models, CAPTIONER, settings.device)
        family, self.vocabulary = loaded.family, loaded.vocabulary
        self.family, self.task = family, family.task(family.texts, family.pictures)
        # Before the backbone: the encoder needs the room.
        rows = embed_prompts(models, family, settings.device, [hint])[0] if hint else None
        self.engine, self.vae = load_engine(models, loaded, settings.device, Host(get_attention(settings.attention)))
        self.texts = Texts(no_context(self.engine, settings.device) if rows is None else rows)

    def caption(self, path: Path) -> Caption:
        """The caption of one clip. Raises ValueError or OSError in one sentence for a clip that cannot be read or
        fitted, ImportError for EXR without the OpenEXR library."""
        s, started = self.settings, time.monotonic()
        count, most = count_frames(path), s.frames or self.family.frames
        if not count:
            raise ValueError(f"{path} holds no pictures, but at least one is needed; export it again.")
        chosen = [list(window) for window in windows(count, most)] if s.long == "windows" else [
            choose_frames(count, most)]
        tokens = self.family.stream(self.family.texts[0]).tokens
        generator = torch.Generator(s.device).manual_seed(s.seed)
        draws = [TextDraw.caption(s.sampler, s.steps or tokens.steps, s.length or tokens.length,
                                  self.engine.experts.vocabulary, generator) for _ in chosen]
        forwards, made = sum(draw.forwards for draw in draws), []
        with forward_bar(forwards, path.name) as bar:
            for draw, numbers in zip(draws, chosen):
                images = self._read(path, numbers)
                ids = draw.sample(self.engine, self.task, self._latents(images), self.texts, bar)
                made.append(ids[0].tolist())
        text = merge_captions([self.vocabulary.decode(ids) for ids in made])
        return Caption(path, text, made, chosen, tuple(images.shape[1:3]), forwards,
                       round(time.monotonic() - started, 3))

    def _read(self, path: Path, numbers: list[int]) -> Tensor:
        """Those frames [F, H, W, 3] of a clip in 0..1, in the size that they are looked at."""
        height, width = self.settings.size or (self.family.height, self.family.width)
        return fit_clip(read_clip(path, keep=set(numbers)).images, height, width, self.settings.fit).clamp(0, 1)

    def _latents(self, images: Tensor) -> Tensor:
        """Frames [F, H, W, 3] as the task's latents [1, 1, C, T, h, w]."""
        family, stream = self.family, self.family.stream(self.family.pictures[0])
        pixels = Fit(*images.shape[:3], family.latents.cell).pad(encode(stream.encoding, images))
        latents = self.vae.encode(pixels, normalised=family.latents.normalised)
        return latents[None, None].to(self.settings.device, working_dtype(self.settings.device))


def caption_clips(places: Iterable[Path], settings: CaptionSettings, models: ModelSet, *, sidecar: bool = False,
                  overwrite: bool = False) -> Iterator[Caption | Failure]:
    """The caption of each clip at `places`, in turn; a clip without one costs only itself. See `search_clips`.

    sidecar: also write it beside the clip, as `sidecar_path` says; a clip that has one already is passed over unless
    `overwrite`, so that the same call goes on where it was interrupted. An empty caption is not written. The model is
    loaded once, when the first clip needs it. Raises as `Captioner`."""
    captioner, found, taken = None, {}, set()
    for place in places:
        try:
            found |= dict.fromkeys(search_clips(place))
        except (ValueError, OSError) as error:
            yield Failure(place, str(error))
    for path in found:
        beside = sidecar_path(path)
        if sidecar and beside in taken:
            yield Failure(path, f"{path}: {beside.name} is the caption of the clip before already; rename one of them.")
            continue
        taken.add(beside)
        if sidecar and beside.exists() and not overwrite:
            say(f"{path} has its caption already: {beside.name} is kept; --overwrite makes it anew.")
            continue
        captioner = captioner or Captioner(models, settings)
        try:
            caption = captioner.caption(path)
        except (ValueError, OSError) as error:
            yield Failure(path, str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        yield caption
        if sidecar and not caption.text:
            say(f"{path} got an empty caption; {beside.name} is not written.")
        elif sidecar:
            try:
                replace_file(beside, f"{caption.text}\n".encode())
            except OSError as error:
                yield Failure(path, str(error))


def sidecar_path(clip: Path) -> Path:
    """Where the caption of a clip lies: SHOT.txt beside SHOT.mp4 or the folder SHOT of its frames."""
    clip = Path(os.path.abspath(clip))  # "." has no name
    return clip.with_name(f"{clip.name if clip.is_dir() else clip.stem}.txt")

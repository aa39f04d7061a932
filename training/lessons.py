"""What a run learns from: which clips, task, noise and texts each step is given.

All of it is a function of the seed and the step's number, so a run that goes on needs no state of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..joint.families import parse_task
from ..joint.streams import Family, Task
from ..model_loaders.layer_files import stored_prompts
from ..model_loaders.text import TEXT_LENGTH
from ..model_loaders.vae import WanVae
from .batches import Batches, seed_of
from .clips import ClipSource, OwnClips, SyntheticShots
from .config import Data, TrainConfig
from .latents import CachedClip, LatentCache, file_key
from .objective import Draw, draw
from .previews import preview_task
from .texts import Texts


def open_source(data: Data, family: Family, say: Callable[[str], None]) -> ClipSource:
    """The clips that a config names. Raises ValueError or OSError for a place where none can be."""
    size = (data.frames, data.height, data.width)
    if data.clips:
        return OwnClips(family, data.clips, *size, say=say)
    return SyntheticShots(family, data.synthetic, *size)


class Lessons:
    """The clips of a source and their prompts, encoded once, and what every step sees of them.

    Made in all processes of a run at once: they share the work of encoding, wait for each other and agree on the clips
    that can be used.
    """

    def __init__(self, config: TrainConfig, family: Family, source: ClipSource, vae: WanVae, *, text_dim: int,
                 store: Path, accelerator, say: Callable[[str], None]):
        """text_dim: the width of the texts that the backbone takes. store: the folder of what is encoded. say: hears of
        what the user should know, in the first process. Raises ValueError or OSError in one sentence."""
        self.config, self.family = config, family
        self.rank = accelerator.process_index
        self.cache = LatentCache(source, vae, file_key(config.model.vae), store)
        usable = _encode_clips(self.cache, accelerator, say)
        about = {i: self.cache.describe(i) for i in usable}
        self.usable = _leave_out_idle(config, family, source, {i: layers for i, (layers, _) in about.items()}, say)
        together = config.optimiser.batch * accelerator.num_processes
        self.batches = Batches([about[i][0] for i in self.usable], together, config.run.seed)
        self.texts = _encode_texts(config, {about[i][1] for i in self.usable}, text_dim, store, accelerator, say)

    @property
    def clips_hash(self) -> str:
        """What tells these clips from others."""
        return hashlib.sha256("\n".join(self.cache.stem(i) for i in self.usable).encode()).hexdigest()

    def example(self, number: int) -> tuple[Draw, Tensor, Tensor, Tensor]:
        """What the network sees in micro-step `number`: a draw, clean latents and noise [N, M, C, F, Y, X], texts
        [N, 512, E] or [1, 512, E]; float32, on the CPU. Raises ValueError when no clip of it can be read any more."""
        batch, seed = self.config.optimiser.batch, self.config.run.seed
        wanted = self.batches[number][self.rank * batch:(self.rank + 1) * batch]
        clips = [clip for i in wanted if (clip := self.cache.get(self.usable[i]))]
        if not clips:
            step = number // self.config.optimiser.accumulation + 1
            raise ValueError(f"None of the clips of step {step} can be read any more: see the lines above, "
                             "mend them and go on with --resume.")
        # One draw for all processes, as published; the noise is each one's own.
        drawn = draw(self.family, torch.Generator().manual_seed(seed_of(seed, "task", number)), self.config.tasks,
                     clips[0].latents)
        clean = self._stack(clips)
        own = torch.Generator().manual_seed(seed_of(seed, "noise", number, self.rank))
        noise = torch.randn(clean.shape, generator=own)
        return drawn, clean, noise, self.texts.context([clip.prompt if drawn.text else "" for clip in clips])

    def preview(self) -> tuple[Task, dict[str, Tensor], Tensor]:
        """What a picture shows: a task, the true latents [C, F, Y, X] of a clip by layer, and its text [1, 512, E]."""
        clip = next(clip for i in self.usable if (clip := self.cache.get(i)))
        task = preview_task(self.family, set(clip.latents))
        return task, clip.latents, self.texts.context([clip.prompt if task.uses_text else ""])

    def _stack(self, clips: list[CachedClip]) -> Tensor:
        """Latents [N, M, C, F, Y, X] of clips with the same layers; 0 where a layer is absent."""
        shape = next(iter(clips[0].latents.values())).shape
        clean = torch.zeros(len(clips), len(self.family.streams), *shape)
        for n, clip in enumerate(clips):
            for layer, latents in clip.latents.items():
                clean[n, self.family.index(layer)] = latents
        return clean


def _encode_clips(cache: LatentCache, accelerator, say: Callable[[str], None]) -> list[int]:
    """Fill the cache; returns the clips that all processes can use."""
    from accelerate.utils import gather_object

    cache.prepare(accelerator.process_index, accelerator.num_processes)
    accelerator.wait_for_everyone()
    # Where the disk took no note of them, a process knows only of the bad clips in its own share.
    usable = sorted(set.intersection(*map(set, gather_object([cache.usable]))))
    if not usable:
        raise ValueError(f"None of the {len(cache)} clips can be used: see the lines above.")
    if len(usable) < len(cache):
        say(f"{len(cache) - len(usable)} of {len(cache)} clips cannot be used and are left out.")
    return usable


def _leave_out_idle(config: TrainConfig, family: Family, source: ClipSource, clips: Mapping[int, Collection[str]],
                    say: Callable[[str], None]) -> list[int]:
    """Those of the clips, given with their layers, that have one which a task of the config generates."""
    if not config.tasks:
        return list(clips)
    targets = {layer for name in config.tasks for layer in parse_task(family, name).targets}
    for i, layers in clips.items():
        if not targets & set(layers):
            say(f"Skipped: Clip '{source.name(i)}' has only {', '.join(sorted(layers))}, which no task of [tasks] "
                "generates.")
    useful = [i for i, layers in clips.items() if targets & set(layers)]
    if not useful:
        raise ValueError(f"The tasks of [tasks] generate {', '.join(sorted(targets))}, but no clip has one of them: "
                         "add tasks or clips.")
    return useful


def _encode_texts(config: TrainConfig, prompts: set[str], text_dim: int, store: Path, accelerator,
                  say: Callable[[str], None]) -> Texts:
    model = config.model
    empty = stored_prompts(model.start).get("") if model.start else None
    if empty is None and not model.text_encoder:
        if not config.new_backbone:
            raise ValueError("No embedding of the empty prompt is stored beside [model] start, so a text_encoder "
                             "(umt5_xxl) is needed: name it in [model].")
        empty = _draw_empty_prompt(text_dim, config.run.seed)
    if not model.text_encoder:
        say("There is no [model] text_encoder: every task is trained with the empty prompt.")
    texts = Texts(empty, model.text_encoder, store, str(accelerator.device))
    if accelerator.is_main_process:
        texts.prepare(prompts)
    accelerator.wait_for_everyone()
    texts.prepare([])  # the other processes read what the first one made
    width = texts.empty.shape[-1]
    if width != text_dim:
        raise ValueError(f"The texts are embedded in {width} numbers and the backbone takes {text_dim}: give the "
                         "text_encoder (umt5_xxl) or the start that belongs to this backbone.")
    return texts


def _draw_empty_prompt(width: int, seed: int) -> Tensor:
    """An embedding [1, 512, E] for a backbone that never met a text encoder: any constant will do."""
    generator = torch.Generator().manual_seed(seed_of(seed, "empty prompt"))
    rows = torch.zeros(1, TEXT_LENGTH, width)
    rows[0, 0] = torch.randn(width, generator=generator)
    return rows

"""What a run learns from: which clips, task, noise and texts each step is given.

All of it is a function of the seed and the step's number, so a run that goes on needs no state of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..joint.streams import Family, Task
from ..model_loaders.layer_files import stored_prompts
from ..model_loaders.text import TEXT_LENGTH
from ..model_loaders.vae import WanVae
from ..model_loaders.vocabulary import Vocabulary
from .batches import Batches, seed_of
from .clips import ClipSource, OwnClips, SyntheticShots
from .config import Data, TrainConfig
from .latents import CachedClip, LatentCache, file_key
from .objective import Draw, Lesson, draw, learnable, noised_text
from .previews import preview_task
from .texts import Texts


def open_source(data: Data, family: Family, say: Callable[[str], None]) -> ClipSource:
    """The clips that a config names. Raises ValueError or OSError for a place where none can be."""
    size = (data.frames, data.height, data.width)
    if data.clips:
        return OwnClips(family, data.clips, *size, say=say)
    return SyntheticShots(family, data.synthetic, *size, framing=data.framing, folder=data.shots)


class Lessons:
    """The clips of a source and their texts, encoded once, and what every step sees of them.

    Made in all processes of a run at once: they share the work of encoding, wait for each other and agree on the clips
    that can be used.
    """

    def __init__(self, config: TrainConfig, family: Family, source: ClipSource, vae: WanVae, *, text_dim: int,
                 vocabulary: Vocabulary | None, store: Path, accelerator, say: Callable[[str], None]):
        """text_dim: the width of the texts that the backbone takes. vocabulary: of the family's text stream. store: the
        folder of what is encoded. say: hears of what the user should know, in the first process. Raises ValueError or
        OSError in one sentence."""
        self.config, self.family, self.vocabulary = config, family, vocabulary
        self.rank = accelerator.process_index
        self.cache = LatentCache(source, vae, file_key(config.model.vae), store,
                                 normalised=family.latents.normalised)
        usable = _encode_clips(self.cache, accelerator, say)
        about = {i: self.cache.describe(i) for i in usable}
        present = {i: frozenset(layers | texts.keys()) for i, (layers, _, texts) in about.items()}
        if vocabulary is not None:
            self._leave_out_unreadable(source, {i: (prompt, texts) for i, (_, prompt, texts) in about.items()}, present,
                                       say)
        self.usable = _leave_out_idle(config, family, source, present, say)
        together = config.optimiser.batch * accelerator.num_processes
        self.batches = Batches([present[i] for i in self.usable], together, config.run.seed)
        prompts = {about[i][1] for i in self.usable}
        self.texts = _encode_texts(config, family, prompts, text_dim, store, accelerator, say)

    @property
    def clips_hash(self) -> str:
        """What tells these clips from others."""
        return hashlib.sha256("\n".join(self.cache.stem(i) for i in self.usable).encode()).hexdigest()

    def example(self, number: int) -> tuple[Draw, Lesson]:
        """What the network sees in micro-step `number`; float32, on the CPU. Raises ValueError when no clip of it can
        be read any more."""
        batch, seed = self.config.optimiser.batch, self.config.run.seed
        stage = self.config.stage(number // self.config.optimiser.accumulation)
        wanted = self.batches[number][self.rank * batch:(self.rank + 1) * batch]
        clips = [clip for i in wanted if (clip := self.cache.get(self.usable[i]))]
        if not clips:
            step = number // self.config.optimiser.accumulation + 1
            raise ValueError(f"None of the clips of step {step} can be read any more: see the lines above, "
                             "mend them and go on with --resume.")
        # One draw for all processes, as published; the noise is each one's own.
        drawn = draw(self.family, torch.Generator().manual_seed(seed_of(seed, "task", number)), stage.tasks,
                     {*clips[0].latents, *clips[0].texts}, stage.drop, len(clips))
        clean = self._stack(clips)
        own = torch.Generator().manual_seed(seed_of(seed, "noise", number, self.rank))
        noise = torch.randn(clean.shape, generator=own)
        lesson = Lesson(clean, noise, self._context(drawn, [clip.prompt for clip in clips]), self.texts.own)
        return drawn, lesson if self.vocabulary is None else self._with_text(lesson, drawn, clips, stage.learn, own)

    def _context(self, drawn: Draw, prompts: list[str]) -> Tensor:
        if drawn.reads == "zeros":
            return torch.zeros_like(self.texts.empty[:, :1])
        return self.texts.context(prompts if drawn.reads == "prompt" else [""])

    def _with_text(self, lesson: Lesson, drawn: Draw, clips: list[CachedClip], learn: str,
                   generator: torch.Generator) -> Lesson:
        rows = [self._stream_ids(self._learned_text(clip.prompt, clip.texts, learn)) for clip in clips]
        ids = torch.tensor([self.vocabulary.pad(row, self.text_length) for row in rows])
        noisy = noised_text(ids, drawn, self.vocabulary.size, generator)
        return lesson._replace(ids=ids, noisy_ids=noisy, lengths=tuple(map(len, rows)))

    def _learned_text(self, prompt: str, texts: Mapping[str, str], learn: str) -> str:
        """What the family's text stream learns of a clip."""
        return prompt if learn == "prompt" else texts[self.family.texts[0]]

    def _stream_ids(self, text: str) -> list[int]:
        """A text as ids. Raises ValueError for one that does not fit into the stream."""
        return self.vocabulary.encode(text, self.text_length)

    def _leave_out_unreadable(self, source: ClipSource, said: Mapping[int, tuple[str, Mapping[str, str]]],
                              present: dict[int, frozenset[str]], say: Callable[[str], None]) -> None:
        """Take clips out of `present` of which a stage learns a text that the stream cannot hold, saying why."""
        learned = {stage.learn for stage in self.config.all_stages}
        for i, (prompt, texts) in said.items():
            try:
                for learn in learned if texts else ():
                    self._stream_ids(self._learned_text(prompt, texts, learn))
            except ValueError as error:
                say(f"Skipped: Clip '{source.name(i)}': {error}")
                present.pop(i)
        if not present:
            raise ValueError("The text of no clip can be learned: see the lines above.")

    @property
    def text_length(self) -> int:
        """Tokens of the family's text stream."""
        return self.family.stream(self.family.texts[0]).tokens.length

    def preview(self) -> tuple[Task, CachedClip, Tensor]:
        """What a picture shows: a task, a clip, and the text [1, W, E] that it reads."""
        clip = next(clip for i in self.usable if (clip := self.cache.get(i)))
        task = preview_task(self.family, {*clip.latents, *clip.texts})
        reads = "prompt" if task.uses_text else self.family.no_prompt
        return task, clip, self._context(Draw(task, (0,), reads), [clip.prompt])

    def _stack(self, clips: list[CachedClip]) -> Tensor:
        """Latents [N, P, C, F, Y, X] of clips with the same layers; 0 where a layer is absent."""
        shape = next(iter(clips[0].latents.values())).shape
        clean = torch.zeros(len(clips), len(self.family.pictures), *shape)
        for n, clip in enumerate(clips):
            for layer, latents in clip.latents.items():
                clean[n, self.family.pictures.index(layer)] = latents
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
    """Those of the clips, given with their layers, from which a task of every stage can be learned."""
    useful = []
    for i, layers in clips.items():
        lacking = next((stage for stage in config.all_stages if not learnable(family, stage.tasks, layers)), None)
        if lacking is None:
            useful.append(i)
        else:
            which = "[tasks]" if lacking.tasks else f"the {family.name} family"
            say(f"Skipped: Clip '{source.name(i)}' has only {', '.join(sorted(layers))}, from which no task of {which} "
                "can be learned.")
    if not useful:
        raise ValueError("No clip has the layers of one of the tasks: see the lines above; add tasks or clips.")
    return useful


def _encode_texts(config: TrainConfig, family: Family, prompts: set[str], text_dim: int, store: Path, accelerator,
                  say: Callable[[str], None]) -> Texts:
    model = config.model
    wanted = ["", *(stream.name for stream in family.streams if stream.prompt)]
    known = stored_prompts(model.start) if model.start else {}
    lacking = [name for name in wanted if name not in known]
    if lacking and not model.text_encoder:
        if not config.new_backbone:
            raise ValueError("No embedding of the empty prompt (and of each stream's own) is stored beside [model] "
                             "start, so a text_encoder (umt5_xxl) is needed: name it in [model].")
        known |= {name: _draw_prompt(text_dim, config.run.seed, name) for name in lacking}
    if not model.text_encoder:
        say("There is no [model] text_encoder: every task is trained with the empty prompt.")
    texts = Texts(family, known, model.text_encoder, store, str(accelerator.device))
    if accelerator.is_main_process:
        texts.prepare(prompts)
    accelerator.wait_for_everyone()
    texts.prepare([])  # the other processes read what the first one made
    width = texts.empty.shape[-1]
    if width != text_dim:
        raise ValueError(f"The texts are embedded in {width} numbers and the backbone takes {text_dim}: give the "
                         "text_encoder (umt5_xxl) or the start that belongs to this backbone.")
    return texts


def _draw_prompt(width: int, seed: int, name: str) -> Tensor:
    """An embedding [1, 512, E] for a backbone that never met a text encoder: any constant will do."""
    generator = torch.Generator().manual_seed(seed_of(seed, f"{name or 'empty'} prompt"))
    rows = torch.zeros(1, TEXT_LENGTH, width)
    rows[0, 0] = torch.randn(width, generator=generator)
    return rows

"""`strata train`: a run from its config to adapters in the published layout, that a kill at any moment cannot spoil.

Everything random is a function of the seed and the step, and a checkpoint holds the rest, so a run that was cut off
goes on to the very weights that it would have reached (same machine, same number of processes).
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..imaging.atomic import replace_file
from ..joint.attention import get_attention
from ..joint.transformer import Host
from ..model_loaders.adapter_metadata import adapter_metadata
from ..model_loaders.adapters import load_adapters, load_empty_prompt, save_empty_prompt
from ..model_loaders.backbone import load_backbone
from ..model_loaders.safetensors_file import load_tensors, replace_tensors
from ..model_loaders.text import TEXT_LENGTH
from ..model_loaders.vae import load_vae
from .batches import Batches, seed_of
from .checkpoints import State, load_state, optimiser_moments, restore_moments, save_state
from .clips import ClipSource, OwnClips, SyntheticShots
from .config import CONFIG, TrainConfig, config_text
from .latents import CachedClip, LatentCache, file_key
from .lora import TrainableAdapters
from .new_backbone import make_backbone, wan_sizes
from .objective import draw, training_levels
from .previews import preview_task, write_preview
from .texts import Texts
from .trainee import CheckpointedHost, RunningMean, Trainee

LOG, CHECKPOINTS, PICTURES, CACHE = "log.jsonl", "checkpoints", "pictures", "cache"


def say(text: str) -> None:
    """Talk goes to stderr, above the progress bar."""
    tqdm.write(text, file=sys.stderr)


def train(config: TrainConfig, out: Path, *, cpu: bool = False) -> dict[str, Path]:
    """Run, or go on with, the training in folder `out`; returns the files that it made, by what they are, and nothing
    in the processes beside the first.

    Ctrl-C and a termination signal end it after the step at hand: KeyboardInterrupt, once a checkpoint lies there.
    Raises ValueError, OSError or ImportError in one sentence for what is wrong with the config, a file or the machine;
    the checkpoints stay.
    """
    return Trainer(config, out, cpu=cpu).run()


class Trainer:
    """One run: its network, its clips, and where it stands."""

    def __init__(self, config: TrainConfig, out: Path, *, cpu: bool = False):
        try:
            from accelerate import Accelerator, InitProcessGroupKwargs
        except ImportError as error:
            raise ImportError("Training needs accelerate: pip install 'comfyui-strata[train]'.") from error
        self.config, self.out = config, out
        self.store = Path(config.data.cache) if config.data.cache else out / CACHE
        self.family = config.resolve_family()
        # A frozen backbone is held and run in bf16 whole, as in the published training; one that learns needs float32
        # weights, and autocast.
        in_half = config.run.mixed_precision == "bf16" and config.model.train == "adapters"
        self.dtype = torch.bfloat16 if in_half else torch.float32
        precision = "no" if in_half else config.run.mixed_precision
        # Processes wait for the slowest to encode its clips, and the first the texts: torch gives up after minutes.
        kwargs = InitProcessGroupKwargs(timeout=timedelta(days=1))
        self.accelerator = Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[kwargs])
        self.leads = self.accelerator.is_main_process
        self.say: Callable[[str], None] = say if self.leads else lambda text: None
        self.step = 0
        self._disk_refused = False

        if self.leads:
            self._claim_folder()
        source = self._make_source()  # before the weights, which take minutes: its path may be wrong
        self.trainee = self._make_trainee()
        self.learned = self.trainee.learned()
        self.optimiser = torch.optim.AdamW(self.learned.values(), lr=config.optimiser.learning_rate,
                                           weight_decay=config.optimiser.weight_decay)
        self.trainee.to(self.accelerator.device)
        self.mean = RunningMean(self.learned, config.optimiser.ema) if config.optimiser.ema else None
        self.network = self.accelerator.prepare(self.trainee)  # in several processes, a wrapper that adds up gradients

        self.vae = load_vae(config.model.vae, device=str(self.accelerator.device))
        self.cache, usable = self._make_cache(source)
        world = self.accelerator.num_processes
        about = [self.cache.describe(i) for i in usable]
        self.batches = Batches([layers for layers, _ in about], config.optimiser.batch * world, config.run.seed)
        self.usable, prompts = usable, {prompt for _, prompt in about}
        self.clips_hash = hashlib.sha256("\n".join(self.cache.stem(i) for i in usable).encode()).hexdigest()
        self.texts = self._make_texts(prompts)

    # ---- what it is made of ----

    def _make_trainee(self) -> Trainee:
        config = self.config
        if config.new_backbone is not None:
            sizes = wan_sizes(config.new_backbone, self.family)
            backbone = make_backbone(sizes, seed_of(config.run.seed, "backbone"))
        else:
            backbone = load_backbone(config.model.backbone, dtype=self.dtype)
        adapters = TrainableAdapters(self.family, backbone.config, config.model.rank,
                                     seed_of(config.run.seed, "adapters"))
        if config.model.start:
            load_adapters(config.model.start, family=self.family)  # only to refuse what is none, or another family's
            adapters.load(load_tensors(config.model.start))
        host = CheckpointedHost if config.run.gradient_checkpointing else Host
        return Trainee(backbone, adapters, training_levels(self.family.flow),
                       all_weights=config.model.train == "all", host=host(get_attention()))

    def _claim_folder(self) -> None:
        """Raise OSError now, not after hours of encoding, when the results cannot be written."""
        if not (self.out / LOG).is_file():
            replace_file(self.out / LOG, b"")

    def _make_source(self) -> ClipSource:
        data = self.config.data
        size = (data.frames, data.height, data.width)
        if data.clips:
            return OwnClips(self.family, data.clips, *size, say=self.say)
        return SyntheticShots(self.family, data.synthetic, *size)

    def _make_cache(self, source: ClipSource) -> tuple[LatentCache, list[int]]:
        """The cache, with the clips of `source` in it, and those of them that all processes can use."""
        from accelerate.utils import gather_object

        world = self.accelerator.num_processes
        cache = LatentCache(source, self.vae, file_key(self.config.model.vae), self.store)
        cache.prepare(self.accelerator.process_index, world)
        self.accelerator.wait_for_everyone()
        # Where the disk took no note of them, a process knows only of the bad clips in its own share.
        usable = sorted(set.intersection(*map(set, gather_object([cache.usable]))))
        if not usable:
            raise ValueError(f"None of the {len(cache)} clips can be used: see the lines above.")
        if len(usable) < len(cache):
            self.say(f"{len(cache) - len(usable)} of {len(cache)} clips cannot be used and are left out.")
        return cache, usable

    def _make_texts(self, prompts: set[str]) -> Texts:
        model, device = self.config.model, str(self.accelerator.device)
        empty = load_empty_prompt(model.start) if model.start else None
        if empty is None and not model.text_encoder:
            if not self.config.new_backbone:
                raise ValueError("No embedding of the empty prompt is stored beside [model] start, so a text_encoder "
                                 "(umt5_xxl) is needed: name it in [model].")
            empty = self._draw_empty_prompt()
        if not model.text_encoder:
            self.say("There is no [model] text_encoder: every task is trained with the empty prompt.")
        texts = Texts(empty, model.text_encoder, self.store, device)
        if self.leads:
            texts.prepare(prompts)
        self.accelerator.wait_for_everyone()
        texts.prepare([])  # the other processes read what the first one made
        width, wanted = texts.empty.shape[-1], self.trainee.backbone.config.text_dim
        if width != wanted:
            raise ValueError(f"The texts are embedded in {width} numbers and the backbone takes {wanted}: give the "
                             "text_encoder (umt5_xxl) or the start that belongs to this backbone.")
        return texts

    def _draw_empty_prompt(self) -> Tensor:
        """An embedding [1, 512, E] for a backbone that never met a text encoder: any constant will do."""
        width = self.trainee.backbone.config.text_dim
        draw_ = torch.Generator().manual_seed(seed_of(self.config.run.seed, "empty prompt"))
        rows = torch.zeros(1, TEXT_LENGTH, width)
        rows[0, 0] = torch.randn(width, generator=draw_)
        return rows

    # ---- the loop ----

    def run(self) -> dict[str, Path]:
        """Train to the last step; returns what was made, by what it is."""
        self._resume()
        if self.leads:
            replace_file(self.out / CONFIG, config_text(self.config).encode())
            self._cut_log()
        steps, run = self.config.optimiser.steps, self.config.run
        losses: list[float] = []
        saved, since = self.step, time.monotonic()
        with _stop_signals() as stopped, tqdm(total=steps, initial=self.step, desc="Training", unit="step",
                                              disable=None if self.leads else True) as bar:
            while self.step < steps and not self._agreed(stopped()):
                loss, norm, tasks = self._step()
                losses.append(loss)
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                if self.step % run.log_every == 0 or self.step == steps:
                    seconds, since = time.monotonic() - since, time.monotonic()
                    self._log({"step": self.step, "loss": sum(losses) / len(losses), "last_loss": loss,
                               "gradient_norm": norm, "learning_rate": self._rate(self.step), "tasks": tasks,
                               "steps_per_second": len(losses) / seconds})
                    losses = []
                if self.step % run.save_every == 0 and self.step < steps:
                    saved = self._save(saved)
                if run.pictures_every and (self.step % run.pictures_every == 0 or self.step == steps):
                    self._picture()
        if self.step > saved:
            saved = self._save(saved, export=False)
        if self.leads:  # always: an earlier run may have been cut off between its last checkpoint and this
            self._export()
        if self.step > saved:
            raise OSError(f"The last checkpoint of this run is that of step {saved}: free some space and go on with "
                          "--resume.")
        if self.step < steps:
            self.say(f"Stopped after step {self.step} of {steps}; go on with --resume.")
            raise KeyboardInterrupt  # for callers a stopped run is not a finished one
        return self._made() if self.leads else {}

    def _step(self) -> tuple[float, float, list[str]]:
        """One optimiser step: its loss, the norm of its gradients, and the tasks that it learned."""
        options, accelerator = self.config.optimiser, self.accelerator
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(self.step + 1)
        total, tasks = torch.zeros((), device=accelerator.device), []
        for part in range(options.accumulation):
            number = self.step * options.accumulation + part
            drawn, clean, noise, context = self._example(number)
            last = part == options.accumulation - 1
            with nullcontext() if last else accelerator.no_sync(self.network):
                loss = self.network(drawn, clean, noise, context) / options.accumulation
                accelerator.backward(loss)
            total += loss.detach()
            tasks.append(str(drawn.task))
        loss = float(accelerator.reduce(total, "mean"))
        limit = options.clip_norm or math.inf  # an infinite limit only measures
        norm = float(torch.nn.utils.clip_grad_norm_(self.learned.values(), limit))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ValueError(f"The loss is not finite in step {self.step + 1} (tasks {', '.join(tasks)}): the last "
                             "checkpoint is whole; lower the learning rate or set clip_norm, and go on with --resume.")
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        if self.mean:
            self.mean.update(self.learned, self.step)
        return loss, norm, tasks

    def _example(self, number: int):
        """What the network sees in micro-step `number`: a draw, clean latents and noise [N, M, C, F, Y, X], texts."""
        config, accelerator = self.config, self.accelerator
        rank, batch, seed = accelerator.process_index, config.optimiser.batch, config.run.seed
        wanted = self.batches[number][rank * batch:(rank + 1) * batch]
        clips = [clip for i in wanted if (clip := self.cache.get(self.usable[i]))]
        if not clips:
            raise ValueError(f"None of the clips of step {self.step + 1} can be read any more: see the lines above, "
                             "mend them and go on with --resume.")
        # One draw for all processes, as published; the noise is each one's own.
        drawn = draw(self.family, torch.Generator().manual_seed(seed_of(seed, "task", number)), config.tasks,
                     clips[0].latents)
        clean = self._stack(clips)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed_of(seed, "noise", number, rank)))
        context = self.texts.context([clip.prompt if drawn.text else "" for clip in clips])
        return drawn, *(value.to(accelerator.device, self.dtype) for value in (clean, noise, context))

    def _stack(self, clips: list[CachedClip]) -> Tensor:
        """Latents [N, M, C, F, Y, X] of clips with the same layers; 0 where a layer is absent."""
        shape = next(iter(clips[0].latents.values())).shape
        clean = torch.zeros(len(clips), len(self.family.streams), *shape)
        for n, clip in enumerate(clips):
            for layer, latents in clip.latents.items():
                clean[n, self.family.index(layer)] = latents
        return clean

    def _rate(self, step: int) -> float:
        """The learning rate of step 1, 2, ...: a linear warm-up, then a cosine down to the final one."""
        o = self.config.optimiser
        if step <= o.warmup:
            return o.learning_rate * step / o.warmup
        share = (step - o.warmup) / max(1, o.steps - o.warmup)
        return o.final_learning_rate + (o.learning_rate - o.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * share))

    def _agreed(self, stop: bool) -> bool:
        """Whether any process was told to stop: all must leave the loop at the same step."""
        if self.accelerator.num_processes == 1:
            return stop
        return bool(self.accelerator.reduce(torch.tensor(float(stop), device=self.accelerator.device), "sum") > 0)

    # ---- what it leaves behind ----

    def _resume(self) -> None:
        state = load_state(self.out / CHECKPOINTS, self.say)
        if state is None:
            return
        if state.weights.keys() != self.learned.keys() or any(
                state.weights[name].shape != value.shape for name, value in self.learned.items()):
            raise ValueError(f"The checkpoints in {self.out} are of another model: begin anew in another folder.")
        if bool(state.mean) != bool(self.mean):
            raise ValueError("[optimiser] ema was switched on or off since the checkpoint: set it as it was.")
        if state.clips != self.clips_hash:
            self.say("Warning: the clips have changed since the checkpoint, so the run goes on with others.")
        with torch.no_grad():
            for name, value in self.learned.items():
                value.copy_(state.weights[name])
                if self.mean:
                    self.mean.values[name].copy_(state.mean[name])
        restore_moments(self.optimiser, self.learned, state)
        self.step = state.step
        self.say(f"Going on from step {self.step}.")

    def _save(self, before: int, *, export: bool = True) -> int:
        """A checkpoint and the files for use; returns the step of the newest checkpoint, until now `before`. A full
        disk is said, and the training goes on."""
        if not self.leads:
            return self.step
        first, second = optimiser_moments(self.optimiser, self.learned)
        state = State(self.step, self.learned, first, second, self.mean.values if self.mean else {}, self.clips_hash)
        done = before
        try:
            save_state(self.out / CHECKPOINTS, state, self.config.run.keep)
            done = self.step
            if export:
                self._export()
        except OSError as error:
            self.say(f"Warning: {error} The newest checkpoint is that of step {done}.")
        return done

    def _export(self) -> None:
        """The adapters in the published layout, with what else is needed to use them."""
        # float16 has three bits more than bfloat16, and no weight comes near its limits.
        values = self.mean.values if self.mean else self.learned
        adapters = {name: values.get(f"adapters/{name}", value) for name, value in self.trainee.adapters.tensors()}
        path = self._made()["adapters"]
        replace_tensors(path, _for_file(adapters), adapter_metadata(self.family))
        save_empty_prompt(path, self.texts.empty[0])
        if self.config.model.train == "all":
            state = self.trainee.backbone.state_dict()
            replace_tensors(self._made()["backbone"],
                            _for_file({name: values.get(f"backbone/{name}", value) for name, value in state.items()}))

    def _made(self) -> dict[str, Path]:
        made = {"adapters": self.out / f"{self.family.name}.safetensors"}
        if self.config.model.train == "all":
            made["backbone"] = self.out / "wan.safetensors"
        return made | {"log": self.out / LOG, "config": self.out / CONFIG}

    def _picture(self) -> None:
        if not self.leads:
            return
        clip = next(clip for i in self.usable if (clip := self.cache.get(i)))
        task = preview_task(self.family, set(clip.latents))
        context = self.texts.context([clip.prompt if task.uses_text else ""])
        context = context.to(self.accelerator.device, self.dtype)
        path = self.out / PICTURES / f"step_{self.step:07}_{task}.png"
        with self.mean.in_place(self.learned) if self.mean else nullcontext(), torch.inference_mode():
            try:
                write_preview(path, self.trainee.engine(), self.vae, task, clip.latents, context,
                              self.config.run.picture_steps)
            except OSError as error:
                self._refused(error)

    def _log(self, entry: dict) -> None:
        if self.leads:
            try:
                with (self.out / LOG).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            except OSError as error:
                self._refused(error)

    def _refused(self, error: OSError) -> None:
        if not self._disk_refused:
            self.say(f"Warning: {error.strerror or error}; the log and the pictures are no longer written.")
        self._disk_refused = True

    def _cut_log(self) -> None:
        """Drop what a run that was cut off logged after its last checkpoint, which is now done again."""
        path = self.out / LOG
        if path.is_file():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= self.step]
            replace_file(path, "".join(line + "\n" for line in kept).encode())


def _for_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().half().cpu() for name, value in tensors.items()}


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # a line that a kill cut in half
        return math.inf


@contextmanager
def _stop_signals():
    """Inside, the first Ctrl-C or termination only makes the yielded function say True; a second one interrupts."""
    asked = False

    def ask(number, frame) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        say("Stopping after this step ...")

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield lambda: asked
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

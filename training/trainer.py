"""`strata train`: a run from its config to adapters in the published layout, that a kill at any moment cannot spoil.

Everything random is a function of the seed and the step, and a checkpoint holds the rest, so a run that was cut off
goes on to the very weights that it would have reached (same machine, same number of processes; on a GPU as far as its
kernels repeat themselves).
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..joint.attention import get_attention
from ..joint.channels import check_channels
from ..joint.experts import Experts
from ..joint.sampling import Texts
from ..joint.streams import Family
from ..joint.transformer import Host
from ..joint.wan import WanModel
from ..model_loaders.backbone import load_backbone
from ..model_loaders.layer_files import check_fits, load_layers
from ..model_loaders.safetensors_file import load_tensors
from ..model_loaders.vae import load_vae
from ..model_loaders.vocabulary import Vocabulary
from .batches import seed_of
from .checkpoints import State, optimiser_moments, restore_moments
from .clips import say
from .config import TrainConfig
from .lessons import Lessons, open_source
from .lora import TrainableAdapters
from .new_backbone import make_backbone, wan_sizes
from .new_parts import make_experts
from .objective import Draw, Lesson, training_levels
from .previews import write_preview, write_text_preview
from .run_folder import RunFolder
from .trainee import CheckpointedHost, RunningMean, Trainee
from .words import learned_vocabulary


def train(config: TrainConfig, out: Path, *, cpu: bool = False) -> dict[str, Path]:
    """Run, or go on with, the training in folder `out`; returns the files that it made, by what they are, and nothing
    in the processes beside the first.

    Ctrl-C and a termination signal end it after the step at hand: KeyboardInterrupt, once a checkpoint lies there.
    Raises ValueError, OSError or ImportError in one sentence for what is wrong with the config, a file or the machine;
    the checkpoints stay.
    """
    return Trainer(config, out, cpu=cpu).run()


class Trainer:
    """One run: its network, its lessons, its folder, and where it stands."""

    def __init__(self, config: TrainConfig, out: Path, *, cpu: bool = False):
        try:
            from accelerate import Accelerator, InitProcessGroupKwargs
        except ImportError as error:
            raise ImportError("Training needs accelerate: pip install 'comfyui-strata[train]'.") from error
        self.config, self.step = config, 0
        family = config.resolve_family()
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

        self.folder = RunFolder(out, config, writes=self.leads, say=self.say)
        self.folder.claim()
        source = open_source(config.data, family, self.say)  # first, since its path may be wrong
        self.vocabulary = learned_vocabulary(config, family)
        self.trainee = _make_trainee(config, family, self.vocabulary, self.dtype).to(self.accelerator.device)
        self.learned = self.trainee.learned()
        self.optimiser = _make_optimiser(self.learned, config)
        self.mean = RunningMean(self.learned, config.optimiser.ema) if config.optimiser.ema else None
        self.network = self.accelerator.prepare(self.trainee)  # in several processes, a wrapper that adds up gradients
        self.vae = load_vae(config.model.vae, device=str(self.accelerator.device), channels=family.latents.channels)
        self.lessons = Lessons(config, family, source, self.vae, text_dim=self.trainee.backbone.config.text_dim,
                               vocabulary=self.vocabulary, store=self.folder.store, accelerator=self.accelerator,
                               say=self.say)

    def run(self) -> dict[str, Path]:
        """Train to the last step; returns what was made, by what it is."""
        self._resume()
        self.folder.begin()
        steps, run = self.config.optimiser.steps, self.config.run
        losses: list[float] = []
        since = time.monotonic()
        with _stop_signals() as stopped, tqdm(total=steps, initial=self.step, desc="Training", unit="step",
                                              disable=None if self.leads else True) as bar:
            while self.step < steps and not self._agreed(stopped()):
                loss, norm, tasks = self._step()
                losses.append(loss)
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                if self.step % run.log_every == 0 or self.step == steps:
                    seconds, since = time.monotonic() - since, time.monotonic()
                    self.folder.log({"step": self.step, "loss": sum(losses) / len(losses), "last_loss": loss,
                                     "gradient_norm": norm, "learning_rate": self._rate(self.step), "tasks": tasks,
                                     "steps_per_second": len(losses) / seconds})
                    losses = []
                if self.step % run.save_every == 0 and self.step < steps:
                    with self.folder.outlasting_a_full_disk():
                        self._save()
                        self._export()
                if run.pictures_every and (self.step % run.pictures_every == 0 or self.step == steps):
                    self._picture()
        if self.step > self.folder.saved:
            with self.folder.outlasting_a_full_disk():
                self._save()
        self._export()  # always: an earlier run may have been cut off between its last checkpoint and this
        if self.step > self.folder.saved:
            raise OSError(f"The last checkpoint of this run is that of step {self.folder.saved}: free some space and "
                          "go on with --resume.")
        if self.step < steps:
            self.say(f"Stopped after step {self.step} of {steps}; go on with --resume.")
            raise KeyboardInterrupt  # for callers a stopped run is not a finished one
        return self.folder.results()

    # ---- a step ----

    def _step(self) -> tuple[float, float, list[str]]:
        """One optimiser step: its loss, the norm of its gradients, and the tasks that it learned."""
        options, accelerator = self.config.optimiser, self.accelerator
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(self.step + 1) * group["factor"]
        total, tasks = torch.zeros((), device=accelerator.device), []
        for part in range(options.accumulation):
            drawn, lesson = self._example(self.step * options.accumulation + part)
            last = part == options.accumulation - 1
            with nullcontext() if last else accelerator.no_sync(self.network):
                loss = self.network(drawn, lesson) / options.accumulation
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

    def _example(self, number: int) -> tuple[Draw, Lesson]:
        """`Lessons.example` where the network is, in its dtype."""
        drawn, lesson = self.lessons.example(number)
        device, ids = self.accelerator.device, {}
        if lesson.ids is not None:
            ids = {"ids": lesson.ids.to(device), "noisy_ids": lesson.noisy_ids.to(device)}
        return drawn, lesson._replace(
            clean=self._sent(lesson.clean), noise=self._sent(lesson.noise), context=self._sent(lesson.context),
            own={name: self._sent(text) for name, text in lesson.own.items()}, **ids)

    def _sent(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.accelerator.device, self.dtype)

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

    # ---- into the folder, and out of it ----

    def _resume(self) -> None:
        state = self.folder.last_state()
        if state is None:
            return
        if state.weights.keys() != self.learned.keys() or any(
                state.weights[name].shape != value.shape for name, value in self.learned.items()):
            raise ValueError(f"The checkpoints in {self.folder.path} are of another model: begin anew in another "
                             "folder.")
        variant = str(self.trainee.family.variant)
        if state.variant != variant:  # of some, the weights have the same shapes
            raise ValueError(f"The checkpoints in {self.folder.path} are of another variant ({state.variant}) than the "
                             f"config's ({variant}): set [variant] as it was, or begin anew in another folder.")
        if bool(state.mean) != bool(self.mean):
            raise ValueError("[optimiser] ema was switched on or off since the checkpoint: set it as it was.")
        if state.clips != self.lessons.clips_hash:
            self.say("Warning: the clips have changed since the checkpoint, so the run goes on with others.")
        with torch.no_grad():
            for name, value in self.learned.items():
                value.copy_(state.weights[name])
                if self.mean:
                    self.mean.values[name].copy_(state.mean[name])
        restore_moments(self.optimiser, self.learned, state)
        self.step = state.step
        self.say(f"Going on from step {self.step}.")

    def _save(self) -> None:
        first, second = optimiser_moments(self.optimiser, self.learned)
        mean = self.mean.values if self.mean else {}
        self.folder.save(State(self.step, self.learned, first, second, mean, self.lessons.clips_hash,
                               str(self.trainee.family.variant)))

    def _export(self) -> None:
        weights = self.trainee.weights(self.mean.values if self.mean else self.learned)
        texts = self.lessons.texts
        prompts = {name: text[0] for name, text in {"": texts.empty, **texts.own}.items()}
        self.folder.export(weights, prompts, {} if self.vocabulary is None else self.vocabulary.tensors())

    def _picture(self) -> None:
        if not self.leads:
            return
        task, clip, context = self.lessons.preview()
        steps, lessons = self.config.run.picture_steps, self.lessons
        texts = Texts(self._sent(context), {name: self._sent(text) for name, text in lessons.texts.own.items()})
        with self.mean.in_place(self.learned) if self.mean else nullcontext(), torch.inference_mode():
            engine = self.trainee.engine()
            if set(task.targets) <= set(task.family.texts):
                with self.folder.picture(self.step, task, ".txt") as path:
                    write_text_preview(path, engine, task, clip.latents, clip.texts[task.targets[0]], texts,
                                       self.vocabulary, lessons.text_length, steps)
            else:
                with self.folder.picture(self.step, task) as path:
                    write_preview(path, engine, self.vae, task, clip.latents, texts, steps)


def _make_trainee(config: TrainConfig, family: Family, vocabulary: Vocabulary | None, dtype: torch.dtype) -> Trainee:
    if config.new_backbone is not None:
        sizes = wan_sizes(config.new_backbone, family)
        backbone = make_backbone(sizes, seed_of(config.run.seed, "backbone"))
    else:
        backbone = load_backbone(config.model.backbone, dtype=dtype)
    check_channels(family, family.latents.channels, backbone.config.in_dim, backbone.config.out_dim)
    if family.file_adapters:
        added = TrainableAdapters(family, backbone.config, config.model.rank, seed_of(config.run.seed, "adapters"))
        if config.model.start:
            added.load(_read_start(Path(config.model.start), family))
    else:
        added = _own_parts(config, family, backbone, vocabulary)
    host = CheckpointedHost if config.run.gradient_checkpointing else Host
    return Trainee(family, backbone, added, training_levels(family.flow), all_weights=config.model.train == "all",
                   host=host(get_attention()))


def _own_parts(config: TrainConfig, family: Family, backbone: WanModel, vocabulary: Vocabulary | None) -> Experts:
    if not config.model.start:
        size = 0 if vocabulary is None else vocabulary.size
        return make_experts(family, backbone, size, seed_of(config.run.seed, "own parts"))
    loaded = load_layers(config.model.start, family=family, dtype=torch.float32)
    _check_variant(Path(config.model.start), loaded.family, family)
    sizes = backbone.config
    check_fits(loaded, sizes.num_layers, sizes.dim, sizes.ffn_dim)
    return loaded.experts


def _make_optimiser(learned: Mapping[str, torch.nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; what streams have of their own learns by a factor faster, as published."""
    options = config.optimiser
    own = [value for name, value in learned.items() if name.startswith("own/")]
    others = [value for name, value in learned.items() if not name.startswith("own/")]
    groups = [{"params": values, "factor": factor} for values, factor in ((others, 1.0), (own, options.added_factor))
              if values]
    return torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay)


def _read_start(path: Path, family: Family) -> dict[str, Tensor]:
    """The tensors of an adapter file. Raises ValueError for what is none, and for another family or variant."""
    _check_variant(path, load_layers(path, family=family).family, family)
    return load_tensors(path)


def _check_variant(path: Path, held: Family, family: Family) -> None:
    if held.variant != family.variant:
        raise ValueError(f"'{path.name}' holds the variant {held.variant}, but the config asks for {family.variant}: "
                         "give [variant] the file's choices, or another [model] start.")


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

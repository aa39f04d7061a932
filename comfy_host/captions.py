"""A clip's caption, and a video with its caption, through ComfyUI's own sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import comfy.sample
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ..imaging.checks import check_pixels
from ..imaging.sizes.fit import Fit
from ..imaging.sizes.shot_windows import choose_frames, fit_clip, merge_captions, windows
from ..joint.flow import schedule
from ..joint.sampling import effective_guidance
from ..joint.streams import TextSpec, TokenSpec
from ..joint.text_flow import caption_solver, joint_solver, random_tokens, text_grid
from ..model_loaders.vocabulary import Vocabulary
from .attach import joint_model
from .forward import JointModel
from .latents import encode_row
from .text_sampling import GivenText, PicturesWithText, TextOfPictures, TextSampler
from .texts import encode_texts

TRACES = 10  # steps of a text that its trace shows

Say = Callable[[str], None]


@dataclass(frozen=True)
class Caption:
    """A text that was made: its words, its token ids, and what it was like at some of the steps, a line each."""

    text: str
    ids: tuple[int, ...]
    trace: str


@dataclass(frozen=True)
class TextJob:
    """How a text is made: steps (0: the family's), tokens (0: the family's), the seed, and whether draw for draw as
    published or with the fewest forwards."""

    steps: int = 0
    length: int = 0
    seed: int = 1
    published: bool = False


def text_model(model) -> tuple[JointModel, TokenSpec]:
    """What a MODEL with text carries, and its text. Raises ValueError for one without, and for context windows."""
    joint = joint_model(model)
    if not joint.family.texts:
        raise ValueError(f"This MODEL makes the layers {', '.join(joint.family.layers)} and no text: choose a file of "
                         "Uni-ViGU in Strata Load Layers.")
    if model.model_options.get("context_handler") is not None:
        raise ValueError("Context windows would give every part of the clip a text of its own: take them off this "
                         "MODEL, and let Strata Caption cut a long clip into windows.")
    return joint, joint.family.stream(joint.family.texts[0]).tokens


def caption_shot(model, vae, images: Tensor, job: TextJob, *, fit: str, size: tuple[int, int], most: int,
                 windowed: bool, hint=None, say: Say = lambda text: None) -> Caption:
    """The caption of a shot of any size and length, IMAGE [F, H, W, C] in 0..1.

    `fit`: how it is brought to `size` (height, width), as `fit_clip` has it. Of more than `most` frames as many are
    taken evenly, or, `windowed`, the shot is cut into windows whose captions are joined. Raises as `caption_clip`."""
    text_model(model)
    check_pixels("The clip", images)
    parts = windows(len(images), most) if windowed else [choose_frames(len(images), most)]
    made = [caption_clip(model, vae, fit_clip(images[list(part)], *size, fit), job, hint, say) for part in parts]
    if len(made) == 1:
        return made[0]
    trace = "\n".join(f"frames {part[0]}-{part[-1]}\n{caption.trace}" for part, caption in zip(parts, made))
    return Caption(merge_captions([caption.text for caption in made]), sum((c.ids for c in made), ()), trace)


@torch.inference_mode()
def caption_clip(model, vae, images: Tensor, job: TextJob, hint=None, say: Say = lambda text: None) -> Caption:
    """The caption of a clip, IMAGE [F, H, W, C] in 0..1, of any size; frames are cut to 4n+1.

    `hint`: a CONDITIONING that the network reads beside it; without one it reads zeros, as published. `say` gets the
    text as it grows. Raises ValueError for a MODEL without text, a foreign VAE and bad pixels."""
    joint, tokens = text_model(model)
    family = joint.family
    check_pixels("The clip", images)
    images = images[:(len(images) - 1) // 4 * 4 + 1, ..., :3]
    fit = Fit(*images.shape[:3], family.latents.cell)
    latent = encode_row(vae, fit.pad(images.expand(*images.shape[:3], 3)), fit, family).unsqueeze(0)
    grid = text_grid(job.steps or tokens.steps)
    generator, ids = _noise_text(model, joint, tokens, job)
    solver = caption_solver(grid, ids.shape[1], generator, published=job.published)
    running = _Running(joint.vocabulary, solver.steps, say, comfy.utils.ProgressBar(solver.steps))
    sampler = TextOfPictures(ids, solver, grid, running.seen)
    _sample(model, sampler, torch.zeros_like(latent), torch.tensor([1.0, 0.0]), latent, hint or _zeros(model),
            None, 1.0, job.seed, torch.zeros_like(latent[:, :1]), None)
    return running.caption(sampler.ids)


@torch.inference_mode()
def video_with_caption(model, clip, vae, prompt: str, size: tuple[int, int, int], job: TextJob, cfg: float = 0.0, *,
                       given_words: bool = False, as_published: bool = True,
                       say: Say = lambda text: None) -> tuple[Tensor, Caption, str]:
    """A video of `size` (frames, height, width), IMAGE [F, H, W, 3], with its caption, and in words how it was made.

    With `given_words` the prompt's own tokens are the caption, given; otherwise a caption is made beside the video.
    `cfg` 0 takes the family's; guidance steers away from the empty prompt. `as_published`: prompts are embedded as the
    authors' release does, not as UMT5 is meant. Raises ValueError for a MODEL without text, and for words that are no
    caption: none at all, too many, or unknown to the vocabulary."""
    joint, tokens = text_model(model)
    family = joint.family
    steps = job.steps or family.flow.steps
    cfg = effective_guidance(cfg or family.guidance, not prompt.strip())
    shift = model.get_model_object("model_sampling").shift
    fit = Fit(*size, family.latents.cell)
    if given_words:
        words = joint.vocabulary.encode(prompt, job.length or tokens.length)
    embedded = encode_texts(clip, [prompt, ""], family.text if as_published else TextSpec())
    generator, ids, noise = _noise_video(model, joint, tokens, job, (1, family.latents.channels, *fit.latent))
    running = _Running(joint.vocabulary, steps, say)
    if given_words:
        sampler = GivenText(torch.tensor([words]))
    else:
        solver = joint_solver(steps, ids.shape[1], generator, published=job.published)
        sampler = PicturesWithText(ids, solver, running.seen)
    positive, negative = ([[text, {}]] for text in embedded.split(1))
    latent = _sample(model, sampler, noise, schedule(steps, shift), torch.zeros_like(noise), positive, negative, cfg,
                     job.seed, None, _previews(model, steps))
    pixels = fit.crop(vae.decode(latent)[0])
    return pixels.clamp(0, 1), running.caption(sampler.ids), f"{steps} steps, shift {shift:g}, cfg {cfg:g}"


class _Running:
    """A text while it is made."""

    def __init__(self, vocabulary: Vocabulary, steps: int, say: Say, bar: comfy.utils.ProgressBar | None = None):
        self.vocabulary, self.steps, self.say, self.bar = vocabulary, steps, say, bar
        self.shown, self.lines = "", []

    def seen(self, step: int, ids: Tensor) -> None:
        """Called with the text before each step."""
        text = self.vocabulary.decode(ids[0].tolist())
        if step % max(1, self.steps // TRACES) == 0:
            self.lines.append(f"step {step}: {text}")
        if text != self.shown:
            self.say(text)
            self.shown = text
        if self.bar is not None:
            self.bar.update_absolute(step + 1, self.steps)

    def caption(self, ids: Tensor) -> Caption:
        """What became of it."""
        ids = ids[0].tolist()
        text = self.vocabulary.decode(ids)
        return Caption(text, tuple(ids), "\n".join([*self.lines, f"done: {text}"]))


def _generator(model, job: TextJob) -> torch.Generator:
    """The published samplers draw where their logits are, ours on the CPU: the same seed is the same everywhere."""
    return torch.Generator(model.load_device if job.published else "cpu").manual_seed(job.seed)


def _noise_text(model, joint: JointModel, tokens: TokenSpec, job: TextJob) -> tuple[torch.Generator, Tensor]:
    generator = _generator(model, job)
    return generator, random_tokens(1, job.length or tokens.length, joint.vocabulary.size, generator)


def _noise_video(model, joint: JointModel, tokens: TokenSpec, job: TextJob,
                 shape: Sequence[int]) -> tuple[torch.Generator, Tensor, Tensor]:
    """The generator of the text, its noise, and that of the video, which the published code draws from the same one."""
    generator = _generator(model, job)
    noise = (torch.randn(shape, generator=generator, device=generator.device).cpu() if job.published
             else comfy.sample.prepare_noise(torch.zeros(shape), job.seed))
    return generator, random_tokens(1, job.length or tokens.length, joint.vocabulary.size, generator), noise


def _zeros(model) -> list:
    """A text of one row of zeros, which stands for any number of equal rows (see `joint_forward`)."""
    return [[torch.zeros(1, 1, model.model.diffusion_model.text_embedding[0].in_features), {}]]


def _previews(model, steps: int):
    """The stock callback, shown latents as its tables know them."""
    callback = latent_preview.prepare_callback(model, steps)
    known = getattr(model.get_model_object("latent_format"), "strata_previous", None)
    return callback if known is None else lambda step, x0, x, total: callback(step, known.process_in(x0), x, total)


def _sample(model, sampler: TextSampler, noise: Tensor, sigmas: Tensor, latent: Tensor, positive, negative, cfg: float,
            seed: int, mask: Tensor | None, callback) -> Tensor:
    return comfy.sample.sample_custom(model, noise, cfg, sampler, sigmas, positive, negative or positive, latent,
                                      noise_mask=mask, callback=callback, seed=seed, disable_pbar=callback is None)

"""Text inside ComfyUI: SAMPLERs that step token ids, since no stock one does.

Each is an ordinary SAMPLER, so loading, offloading, wrappers, attention overrides and interrupts work as for any other.
The ids go to the forward, and the logits come back, through the sampling's `Plan`.
"""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.samplers
from comfy.k_diffusion.sampling import sample_euler
from torch import Tensor

from ..joint.streams import Role
from ..joint.text_flow import TextSolver, sample_tokens
from .forward import KEY, TextStep

Seen = Callable[[int, Tensor], None]  # (step, its text [N, S])


class TextSampler(comfy.samplers.KSAMPLER):
    """Brings a text along, `ids` [clips, S] in this `role`; after the sampling `ids` is what became of it."""

    def __init__(self, role: Role, ids: Tensor):
        super().__init__(self.run)
        self.role, self.ids = role, ids

    def run(self, model, x: Tensor, sigmas: Tensor, extra_args: dict, callback, disable) -> Tensor:
        """The sampling, as k-diffusion's functions have it: the latents x along the sigmas."""
        raise NotImplementedError

    def look(self, model, x: Tensor, sigma: Tensor, options: dict, time: float = 0.0,
             wanted: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """One look of the network: the denoised latents, and the logits of a text that is made (`TextStep`)."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        plan = options["model_options"]["transformer_options"][KEY]
        plan.text = TextStep(self.ids, self.role, time, wanted)
        denoised = model(x, sigma, **options)
        logits = plan.text.logits
        if self.role is Role.TARGET and logits is None:
            raise ValueError("Another node skipped the network in a step that the text needs: take what skips steps, "
                             "such as EasyCache, off this MODEL.")
        return denoised, None if logits is None else logits.to(self.ids.device)


class GivenText(TextSampler):
    """Euler, for pictures of a text that is given."""

    def __init__(self, ids: Tensor):
        super().__init__(Role.CONDITION, ids)

    def run(self, model, x: Tensor, sigmas: Tensor, extra_args: dict, callback, disable) -> Tensor:
        def look(x: Tensor, sigma: Tensor, **options) -> Tensor:
            return self.look(model, x, sigma, options)[0]

        return sample_euler(look, x, sigmas, extra_args, callback, disable)


class TextOfPictures(TextSampler):
    """The text of pictures that are given, of noise `ids`, along the times `grid` of the solver; `joint.sample_tokens`
    inside ComfyUI. The sigmas of the sampling are not read."""

    def __init__(self, ids: Tensor, solver: TextSolver, grid: Tensor, seen: Seen):
        super().__init__(Role.TARGET, ids)
        self.solver, self.grid, self.seen = solver, grid, seen

    def run(self, model, x: Tensor, sigmas: Tensor, extra_args: dict, callback, disable) -> Tensor:
        clean = x.new_zeros(len(x))

        def logits(ids: Tensor, time: float, wanted: Tensor | None) -> Tensor:
            self.ids = ids
            return self.look(model, x, clean, extra_args, time, wanted)[1]

        self.ids = sample_tokens(logits, self.ids, self.solver, self.grid, self.seen)
        return x


class PicturesWithText(TextSampler):
    """Euler, and the text in lock step, of noise `ids`; in the end the finished pictures and text are looked at once
    more, and every token becomes its likeliest (specs/univigu.md §6.3). As `joint.sampling.sample_with_text`."""

    def __init__(self, ids: Tensor, solver: TextSolver, seen: Seen):
        super().__init__(Role.TARGET, ids)
        self.solver, self.seen = solver, seen

    def run(self, model, x: Tensor, sigmas: Tensor, extra_args: dict, callback, disable) -> Tensor:
        done = 0

        def look(x: Tensor, sigma: Tensor, **options) -> Tensor:
            nonlocal done
            self.seen(done, self.ids)
            denoised, logits = self.look(model, x, sigma, options, 1000 * float(sigma[0]), self.solver.wanted(done))
            self.ids = self.solver.step(done, self.ids, logits)
            done += 1
            return denoised

        x = sample_euler(look, x, sigmas, extra_args, callback, disable)
        _, logits = self.look(model, x, x.new_zeros(len(x)), extra_args)
        self.ids = logits.argmax(dim=-1)
        return x

"""The condition mask is ComfyUI's own `noise_mask`: three methods of a Wan BaseModel, patched so that they chain.

Row r of a LATENT is picture r % P of clip r // P. Mask 1 is generated, 0 is given, -1 (a whole row) is absent: it takes
no part. A row may be masked as a whole, by frame or by region.
"""

from __future__ import annotations

from collections.abc import Callable

import comfy.conds
import torch
import torch.nn.functional as F
from torch import Tensor

from ..joint.flow import condition_sigma, network_time
from ..joint.streams import Family


class PromptCond(comfy.conds.CONDCrossAttn):
    """Text that is not repeated to the batch, so that keys and values are made once per distinct prompt.

    The forward maps rows to texts: one text for all, or several (one a layer) that the rows go through in turn."""

    def process_cond(self, batch_size, **kwargs):
        """Keep the texts as they were given."""
        return self._copy_with(self.cond)


def condition_patches(model, family: Family) -> dict[str, Callable]:
    """The object patches `extra_conds`, `process_timestep` and `scale_latent_inpaint` for a MODEL.

    Each calls what it found in its place, so patches of other packs keep working on either side; only our own of an
    earlier Load Layers give way, or times would be rounded as that family wants, too."""
    previous_conds, previous_timestep = (
        getattr(found, "strata_previous", found)
        for found in map(model.get_model_object, ("extra_conds", "process_timestep")))
    held = condition_sigma(family.flow)

    def extra_conds(**kwargs):
        conds = previous_conds(**kwargs)
        text = kwargs.get("cross_attn")
        if text is not None:
            conds["c_crossattn"] = PromptCond(text)
        mask = kwargs.get("denoise_mask")
        if mask is not None:
            # Shaped like noise, so that area conditions and context windows cut it as they cut the latent.
            conds["denoise_mask"] = comfy.conds.CONDNoiseShape(mask[:, :1])
        return conds

    def process_timestep(timestep, x=None, denoise_mask=None, **kwargs):
        timestep = previous_timestep(timestep, x=x, **kwargs)
        if denoise_mask is None or family.flow.condition_time == "targets":
            return network_time(timestep / 1000, family.flow)
        generated = finest_needed(token_mask(denoise_mask))  # [rows, P]
        time = torch.where(generated, timestep.view(-1, 1), timestep.new_tensor(1000 * held))
        return network_time(time / 1000, family.flow)

    def scale_latent_inpaint(noise, latent_image, **kwargs):
        # `hold_conditions` put the right noise into the given parts.
        return (1 - held) * latent_image + held * noise

    extra_conds.strata_previous, process_timestep.strata_previous = previous_conds, previous_timestep
    return {"extra_conds": extra_conds, "process_timestep": process_timestep,
            "scale_latent_inpaint": scale_latent_inpaint}


def token_mask(mask: Tensor) -> Tensor:
    """Which tokens hold anything to generate: mask [rows, 1, T, h, w] -> bool [rows, T, ceil(h/2), ceil(w/2)]."""
    return F.max_pool2d((mask[:, 0] > 0).float(), 2, ceil_mode=True) > 0


def finest_needed(tokens: Tensor) -> Tensor:
    """[rows, T, h, w] as coarsely as it allows for all rows: [rows, 1], [rows, T] or [rows, T*h*w].

    Times per token cost memory in every block, so they are used only where a region is masked."""
    frames = tokens[:, :, :1, :1]
    if not torch.equal(tokens, frames.expand_as(tokens)):
        return tokens.flatten(1)
    frames = frames.flatten(1)
    return frames[:, :1] if torch.equal(frames, frames[:, :1].expand_as(frames)) else frames

"""Streams along the channels of one sequence, where a family's variant says joint = "channel_concat".

The backbone then has a patch embedding and a head of its own: M*(C+1) channels in, M*C out. There is one stream's
number of tokens, with the time and text of the first target; conditions enter at their own small sigma, as ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .streams import Family, Role

# What the channel after a stream's own says. An ABSENT stream is zeros, which alone could be a dark target.
ROLE_VALUES = {Role.CONDITION: 1.0, Role.TARGET: 0.0, Role.ABSENT: -1.0}


def join_channels(latents: Tensor, roles: Sequence[Role]) -> Tensor:
    """latents [N, M, C, F, Y, X] -> [N, M*(C+1), F, Y, X]: each stream's channels and one that tells its role."""
    absent = torch.tensor([role is Role.ABSENT for role in roles], device=latents.device).view(-1, 1, 1, 1, 1)
    told = latents.new_tensor([ROLE_VALUES[role] for role in roles]).view(-1, 1, 1, 1, 1)
    told = told.expand(*latents.shape[:2], 1, *latents.shape[3:])
    return torch.cat((latents.masked_fill(absent, 0), told), dim=2).flatten(1, 2)


def split_channels(velocity: Tensor, streams: int, rows: Sequence[int]) -> tuple[Tensor, ...]:
    """velocity [N, M*C, F, Y, X] of all `streams` -> that of each of `rows`, [N, C, F, Y, X]."""
    parts = velocity.unflatten(1, (streams, -1)).unbind(1)
    return tuple(parts[row] for row in rows)


def backbone_channels(family: Family, channels: int) -> tuple[int, int]:
    """Channels in and out of a backbone for this family, whose streams' latents have `channels`."""
    if family.variant.joint == "attention":
        return channels, channels
    streams = len(family.streams)
    return streams * (channels + 1), streams * channels


def check_channels(family: Family, channels: int, in_dim: int, out_dim: int) -> None:
    """Raise ValueError unless a backbone with these channels in and out is one for this family, whose streams' latents
    have `channels`."""
    wanted = backbone_channels(family, channels)
    if (in_dim, out_dim) != wanted:
        raise ValueError(f"The backbone has {in_dim} channels in and {out_dim} out, but the {family.name} family with "
                         f"joint = {family.variant.joint} needs {wanted[0]} and {wanted[1]}: give the backbone that "
                         "its adapters belong to.")

"""Variants of a family: the same streams joined, adapted or gated in another way than published.

A variant is part of a family's data and travels in the metadata of its file, so that whoever runs the family runs its
variant. The published values are the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

# Published first. Those of families whose layers are adapters on a frozen backbone ...
ADAPTER_CHOICES: dict[str, tuple[str, str]] = {
    "gating": ("targets", "always"),
    "adapters": ("per_stream", "shared"),
    "joint": ("attention", "channel_concat"),
    "ffn": ("last", "per_stream"),
    "condition_attention": ("all", "conditions"),
    "plate": ("bare", "own"),
}
# ... and of those whose layers stand beside the picture, some of them absent.
PRESENCE_CHOICES: dict[str, tuple[str, str]] = {
    "condition_time": ("targets", "own"),
    "modulation": ("shared", "per_stream"),
    "together": ("two", "all"),
    "sentences": ("own", "none"),
    "latents": ("wan2.2", "wan2.1"),
}
CHOICES = ADAPTER_CHOICES | PRESENCE_CHOICES
# The one combination in which streams lie along the channels.
ONE_SEQUENCE = {"gating": "always", "adapters": "shared", "joint": "channel_concat"}
SHARED = "shared"  # the name of the one adapter that all streams share


@dataclass(frozen=True)
class Variant:
    """How the streams of a family are joined and adapted.

    `gating`: a stream's adapters act while it is a TARGET, or "always". `adapters`: one a stream, or one "shared" by
    all. `ffn`: the feed-forward adapter of the stream that was injected "last" acts on every row, as published, or
    that of each stream on its own tokens, gated like its attention adapters ("per_stream"). `condition_attention`:
    conditions attend to "all", or to "conditions" only: their keys and values are then the same at every step.
    `plate`: the plate of `alpha` runs on the "bare" backbone, as published, or the adapter that its file holds for it
    acts ("own"). `joint`: streams meet in "attention", or lie along the channels of one sequence ("channel_concat", see
    `channels.py`), in which there are no tokens of one stream to adapt, gate or attend apart.

    Of UnityVideo, whose published weights and paper differ (specs/unityvideo.md A1): `condition_time`: the network is
    told the time of the "targets" of what is given (the release), or its "own", 0 (the paper). `modulation`: the rows
    of the time are "shared" by all streams (the release), or a vector "per_stream" is added to it first (the paper).
    `together`: "two" layers at once (the release), or "all" (the paper). `sentences`: every layer beside rgb
    reads its "own" fixed one (both), or "none" and the user's prompt instead. `latents`: of which VAE, "wan2.2" (both),
    or "wan2.1", for a backbone of 16 channels.

    Raises ValueError for any other value, and for choices that exclude each other.
    """

    gating: str = "targets"
    adapters: str = "per_stream"
    joint: str = "attention"
    ffn: str = "last"
    condition_attention: str = "all"
    plate: str = "bare"
    condition_time: str = "targets"
    modulation: str = "shared"
    together: str = "two"
    sentences: str = "own"
    latents: str = "wan2.2"

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"A variant's {name} is one of {', '.join(allowed)}, not {value!r}.")
        if self.joint == "channel_concat" and self.changes() != ONE_SEQUENCE:
            raise ValueError("joint = channel_concat puts all streams into one sequence, so it goes with gating = "
                             f"always, adapters = shared, ffn = last and condition_attention = all, not {self}.")
        if self.plate == "own" and self.adapters == "shared":
            raise ValueError("plate = own goes with adapters = per_stream: an adapter that all streams share acts on "
                             "the plate as well.")

    def __str__(self) -> str:
        """What is not as published, such as "gating = always, ffn = per_stream"."""
        return ", ".join(f"{name} = {value}" for name, value in self.changes().items()) or "as published"

    def changes(self) -> dict[str, str]:
        """The choices that are not the published ones."""
        return {field.name: getattr(self, field.name) for field in fields(self)
                if getattr(self, field.name) != field.default}

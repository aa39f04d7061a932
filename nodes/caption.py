"""Strata Caption: what a clip shows, in words."""

from __future__ import annotations

from comfy_api.latest import io

from ..comfy_host.captions import Caption, TextJob, caption_shot
from .saying import say

FITS = {"cover and crop": "cover", "crop only": "crop", "as it is": "whole"}
SAMPLE, WINDOWS = "sample frames evenly", "windows, captions joined"
FEWER, PUBLISHED = "exact, fewer forwards", "as published"
NO_TEXT = "(no text)"


def sampler_input() -> io.Input:
    """How token ids are drawn."""
    return io.Combo.Input("sampler", options=[FEWER, PUBLISHED], advanced=True,
                          tooltip="Both draw from the same distribution; 'as published' looks at the clip in every "
                                  "step, also where no word changes, and repeats the authors' draws.")


def caption_outputs(caption: Caption) -> tuple[str, str, str]:
    """The text, its token ids as text, and its trace."""
    return caption.text, " ".join(map(str, caption.ids)), caption.trace


class CaptionClip(io.ComfyNode):
    """Caption a clip. A list of clips gives a list of captions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataCaption",
            display_name="Strata Caption",
            category="Strata",
            description="Writes what a clip shows, with Uni-ViGU's layers. Needs no text encoder.",
            search_aliases=["caption", "describe", "video to text", "uni-vigu", "prompt from video"],
            inputs=[
                io.Model.Input("model", tooltip="From Strata Load Layers with a file of Uni-ViGU."),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE."),
                io.Image.Input("images", tooltip="One clip: all its frames in a batch. A list of batches is a list of "
                                                 "clips."),
                io.Conditioning.Input("hint", optional=True,
                                      tooltip="What you know of the clip, from a CLIP Text Encode (UMT5). Open is "
                                              "the published way."),
                io.Int.Input("seed", default=1, min=0, max=2**64 - 1, control_after_generate=True,
                             tooltip="The same seed gives the same words."),
                io.Int.Input("steps", default=0, min=0, max=1000, tooltip="0 takes the published number (100)."),
                io.Int.Input("length", default=0, min=0, max=1024, tooltip="Tokens of text; 0 takes the published "
                                                                           "number (256)."),
                io.Combo.Input("fit", options=list(FITS),
                               tooltip="How the clip is brought to the size below. 'crop only' is what the published "
                                       "code does: it keeps the middle, and refuses smaller clips."),
                io.Int.Input("width", default=832, min=16, max=8192, advanced=True,
                             tooltip="Pixels. The published model knows 832x480."),
                io.Int.Input("height", default=480, min=16, max=8192, advanced=True, tooltip="Pixels."),
                io.Int.Input("max_frames", default=81, min=1, max=4096, advanced=True,
                             tooltip="Frames that are looked at together, cut to 4n+1. The published model knows 81."),
                io.Combo.Input("long_clips", options=[SAMPLE, WINDOWS], advanced=True,
                               tooltip="What to do with more frames: take some of them, or caption one stretch after "
                                       "the other and join the sentences."),
                sampler_input(),
            ],
            outputs=[
                io.String.Output("caption", tooltip="For any prompt input."),
                io.String.Output("tokens", tooltip="The token ids, with blanks between."),
                io.String.Output("trace", tooltip="The text at some of the steps, a line each."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, vae, images, seed: int, steps: int, length: int, fit: str, width: int, height: int,
                max_frames: int, long_clips: str, sampler: str, hint=None) -> io.NodeOutput:
        job = TextJob(steps, length, seed, sampler == PUBLISHED)
        caption = caption_shot(model, vae, images, job, fit=FITS[fit], size=(height, width), most=max_frames,
                               windowed=long_clips == WINDOWS, hint=hint, say=lambda text: say(cls, text or NO_TEXT))
        return io.NodeOutput(*caption_outputs(caption), ui=say(cls, caption.text or NO_TEXT))

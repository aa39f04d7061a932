"""Strata Video + Caption: a video from words, with its caption made beside it or given."""

from __future__ import annotations

from comfy_api.latest import io

from ..comfy_host.captions import TextJob, video_with_caption
from .caption import NO_TEXT, PUBLISHED, caption_outputs, sampler_input
from .saying import say

TOGETHER, GIVEN = "video and caption together", "video from these words"
UMT5 = "umt5"


class VideoCaption(io.ComfyNode):
    """Make a video, and its caption with it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataVideoCaption",
            display_name="Strata Video + Caption",
            category="Strata",
            description="Makes a video of a prompt with Uni-ViGU's layers, and a caption that says what came of it.",
            search_aliases=["text to video", "uni-vigu"],
            inputs=[
                io.Model.Input("model", tooltip="From Strata Load Layers with a file of Uni-ViGU."),
                io.Clip.Input("clip", tooltip="UMT5."),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE."),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True, tooltip="What the video shows."),
                io.Combo.Input("mode", options=[TOGETHER, GIVEN],
                               tooltip="Make a caption beside the video, more detailed than the prompt, or take the "
                                       "prompt's own words for it, which the video then follows."),
                io.Int.Input("width", default=832, min=16, max=8192, step=16, tooltip="Pixels."),
                io.Int.Input("height", default=480, min=16, max=8192, step=16, tooltip="Pixels."),
                io.Int.Input("length", default=81, min=1, max=4096, step=4, tooltip="Frames."),
                io.Int.Input("seed", default=1, min=0, max=2**64 - 1, control_after_generate=True,
                             tooltip="The same seed gives the same video and words."),
                io.Int.Input("steps", default=0, min=0, max=1000, tooltip="0 takes the published number (100)."),
                io.Float.Input("cfg", default=0.0, min=0.0, max=100.0, step=0.1,
                               tooltip="How strongly the prompt steers, away from an empty one; 0 takes the published "
                                       "value (5)."),
                io.Int.Input("caption_length", default=0, min=0, max=1024, advanced=True,
                             tooltip="Tokens of the caption; 0 takes the published number (256)."),
                io.Combo.Input("text_encoding", options=[PUBLISHED, UMT5], advanced=True,
                               tooltip="The published code runs UMT5 in a way of its own, which the model was shown "
                                       "with; 'umt5' is what CLIP Text Encode gives."),
                sampler_input(),
            ],
            outputs=[
                io.Image.Output("video", tooltip="The frames."),
                io.String.Output("caption", tooltip="What the video shows, for any prompt input."),
                io.String.Output("tokens", tooltip="The token ids, with blanks between."),
                io.String.Output("trace", tooltip="The text at some of the steps, a line each."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, clip, vae, prompt: str, mode: str, width: int, height: int, length: int, seed: int,
                steps: int, cfg: float, caption_length: int, text_encoding: str, sampler: str) -> io.NodeOutput:
        job = TextJob(steps, caption_length, seed, sampler == PUBLISHED)
        video, caption, said = video_with_caption(
            model, clip, vae, prompt, (length, height, width), job, cfg, given_words=mode == GIVEN,
            as_published=text_encoding == PUBLISHED, say=lambda text: say(cls, text or NO_TEXT))
        return io.NodeOutput(video, *caption_outputs(caption), ui=say(cls, f"{said}\n{caption.text or NO_TEXT}"))

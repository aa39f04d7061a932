"""Strata Joint Sampler: the whole sampling in one node, with the family's own defaults."""

from __future__ import annotations

from comfy_api.latest import io

from ..comfy_host.sample import sample_joint
from .saying import say


class JointSampler(io.ComfyNode):
    """Sample a joint LATENT. A stock KSampler does the same on the same MODEL and LATENT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataJointSampler",
            display_name="Strata Joint Sampler",
            category="Strata",
            description="Makes all layers that are not given, together. Settings left at 0 are the family's own.",
            inputs=[
                io.Model.Input("model", tooltip="A model from Strata Load Layers."),
                io.Latent.Input("latent", tooltip="From Strata Condition Mask."),
                io.Conditioning.Input("positive", optional=True,
                                      tooltip="What the shot shows. Leave it open, or its prompt empty, for tasks that "
                                              "need no text."),
                io.Conditioning.Input("negative", optional=True,
                                      tooltip="What to steer away from; only read when cfg is not 1."),
                io.Int.Input("seed", default=1, min=0, max=2**64 - 1, control_after_generate=True,
                             tooltip="The same seed gives the same layers."),
                io.Int.Input("steps", default=0, min=0, max=1000,
                             tooltip="Sampling steps; 0 takes the family's own (50; unity 20)."),
                io.Float.Input("cfg", default=0.0, min=0.0, max=100.0, step=0.1,
                               tooltip="How strongly the prompt steers; 0 takes the family's own (intrinsic 5, alpha "
                                       "and unity 1). With an empty prompt it is always 1, in half the time."),
            ],
            outputs=[io.Latent.Output(tooltip="All layers; given ones exactly as they were.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, latent: dict, seed: int, steps: int, cfg: float, positive=None,
                negative=None) -> io.NodeOutput:
        result, said = sample_joint(model, latent, positive, negative, seed, steps, cfg)
        return io.NodeOutput(result, ui=say(cls, said))

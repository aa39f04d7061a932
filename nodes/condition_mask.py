"""Strata Condition Mask: what is connected is given, the rest is generated."""

from __future__ import annotations

from comfy_api.latest import io

from ..comfy_host.choices import chosen_task, generate_choices
from ..comfy_host.latents import KEY, build_latent
from ..joint.families import FAMILIES, get_family, vary
from ..joint.streams import Family
from ..joint.variants import Variant
from .saying import say


def joined_families() -> list[Family]:
    """The families whose streams are all pictures; those with text have nodes of their own."""
    return [family for family in FAMILIES.values() if not family.texts]


def family_inputs(family: Family) -> list[io.Input]:
    """A picture and a mask input for every layer of a family, pictures first, then the size to use without any, and
    where not all layers take part, which to generate.

    The size stands here and not beside the family for two reasons: each family has its own, and ComfyUI's frontend
    (seen in 1.49) fails to make a node whose choice holds sockets and no widget."""
    pictures = [
        io.MultiType.Input(stream.name, optional=True,
                           types=[io.Image, io.Latent] + ([io.Mask] if stream.encoding == "mask" else []),
                           tooltip=f"The {stream.name} of the shot, if you have it; open, it is generated.")
        for stream in family.streams
    ]
    masks = [
        io.Mask.Input(f"{layer}_mask", optional=True,
                      tooltip=f"White where {layer} shall be generated although it is connected: a region, or, with a "
                              "mask per frame, whole frames.")
        for layer in family.layers
    ]
    size = [
        io.Int.Input("width", default=family.width, min=16, max=8192, step=1,
                     tooltip="Pixels. Used when no layer is connected; a connected one keeps its own size."),
        io.Int.Input("height", default=family.height, min=16, max=8192, step=1,
                     tooltip="Pixels. Used when no layer is connected."),
        io.Int.Input("length", default=family.frames, min=1, max=4096, step=1,
                     tooltip=f"Frames. Used when no layer is connected; the published models like {family.frames}."),
    ]
    choice = [] if family.present is None else [
        io.Combo.Input("generate", options=generate_choices(family),
                       tooltip=f"What to make. A single layer is made from {family.layers[0]}, which you connect; "
                               f"{family.layers[0]} from the one layer that you connect; two together from text. 'all "
                               "other layers' is for variants that join more than two.")]
    return pictures + masks + size + choice


def describe(task, fit) -> str:
    """The task in an artist's words."""
    given = ", ".join(task.conditions) or "nothing (text only)"
    frames, height, width = fit.padded
    size = f"{fit.frames} frames of {fit.width}x{fit.height}"
    padded = "" if (frames, height, width) == (fit.frames, fit.height, fit.width) else (
        f", worked on as {frames} of {width}x{height}")
    prompt = "reads the prompt" if task.uses_text else "was trained with an empty prompt"
    return f"{task}: given {given}; generated {', '.join(task.targets)}\n{size}{padded}\nThis task {prompt}."


def _of_vae(family: Family, vae) -> Family:
    """The family, or its variant on Wan 2.1's latents where it has one and those are what the VAE makes."""
    if family.present is None or getattr(vae, "latent_channels", None) == family.latents.channels:
        return family
    other = vary(family, Variant(latents="wan2.1"))
    return other if getattr(vae, "latent_channels", None) == other.latents.channels else family


class ConditionMask(io.ComfyNode):
    """Pictures into a joint LATENT with its condition mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataConditionMask",
            display_name="Strata Condition Mask",
            category="Strata",
            description="Connect the layers you have; the others are generated. The node says which task that is.",
            inputs=[
                io.DynamicCombo.Input(
                    "family", options=[io.DynamicCombo.Option(f.name, family_inputs(f)) for f in joined_families()],
                    tooltip="Which layers belong together. It must be the family of the layers you load."),
                io.Vae.Input("vae", optional=True,
                             tooltip="Needed once a picture is connected: the Wan 2.1 VAE, for unity Wan 2.2's, or "
                                     "whichever the layers were trained on."),
            ],
            outputs=[
                io.Latent.Output(tooltip="All layers as one latent, for Strata Joint Sampler or any stock sampler."),
                io.String.Output("task", tooltip="The task's name, such as R2AIN."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, family: dict, vae=None) -> io.NodeOutput:
        chosen = _of_vae(get_family(family["family"]), vae)
        sources = {layer: family[layer] for layer in chosen.layers if family.get(layer) is not None}
        masks = {layer: m for layer in chosen.layers if (m := family.get(f"{layer}_mask")) is not None}
        size = family["length"], family["height"], family["width"]
        task = chosen_task(chosen, family.get("generate"), sources, masks)
        latent = build_latent(task, vae, sources, masks, size)
        return io.NodeOutput(latent, str(task), ui=say(cls, describe(task, latent[KEY].fit)))

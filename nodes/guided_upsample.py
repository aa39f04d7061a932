"""Strata Guided Upsample: small layers at the plate's full size."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..imaging.colour import LINEAR
from ..imaging.encodings.layers import as_mask
from ..imaging.sizes.plate_size import GUIDED, RATIO, layers_at_plate_size
from .colours import colours_input
from .saying import say, steps

LAYERS = ("alpha", "normal", "irradiance", "albedo")


class GuidedUpsample(io.ComfyNode):
    """Layers of a model at the resolution of the footage."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataGuidedUpsample",
            display_name="Strata Guided Upsample",
            category="Strata/layers",
            description="Brings small layers to the plate's full size, with the plate's own edges and detail, up to 4K "
                        "and beyond.",
            search_aliases=["guided filter", "joint bilateral", "upscale layers", "4k", "full resolution"],
            inputs=[
                io.Image.Input("plate", tooltip="The shot in full size, in frame and time the same as the layers."),
                io.MultiType.Input("alpha", optional=True, types=[io.Mask, io.Image], tooltip="The small alpha."),
                io.Image.Input("normal", optional=True, tooltip="The small normals."),
                io.Image.Input("irradiance", optional=True, tooltip="The small irradiance."),
                io.Image.Input("albedo", optional=True, tooltip=f"The small albedo; '{RATIO}' only compares it."),
                io.Combo.Input("albedo_by", options=[GUIDED, RATIO], default=GUIDED,
                               tooltip=f"'{GUIDED}' enlarges the small albedo. '{RATIO}' needs none: albedo and "
                                       "irradiance then make the plate exactly, with all of its detail and grain, "
                                       "which is right where they made it well before (Strata Rebuild says)."),
                io.Int.Input("radius", default=1, min=1, max=16, advanced=True,
                             tooltip="How far around is looked, in pixels of the small layer. More is safer "
                                     "where the layer misses the plate's edges, and softer."),
                io.Float.Input("grain", default=0.01, min=0.001, max=0.5, step=0.001, advanced=True,
                               tooltip="The plate's noise, 0..1: fainter detail of the plate does not come through."),
                colours_input("plate, irradiance and albedo, in and out,", advanced=True),
            ],
            outputs=[
                io.Mask.Output("alpha", tooltip="White is foreground."),
                io.Image.Output("normal", tooltip="Unit normals. Data: no colour transform."),
                io.Image.Output("irradiance"),
                io.Image.Output("albedo"),
                io.String.Output("report", tooltip="By how much each layer, made small again, differs from what came "
                                                   "in."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, plate, albedo_by: str, radius: int, grain: float, colours: str, alpha=None, normal=None,
                irradiance=None, albedo=None) -> io.NodeOutput:
        given = {"normal": normal, "irradiance": irradiance, "albedo": albedo}
        layers = {name: image[..., :3] for name, image in given.items() if image is not None}
        if alpha is not None:
            layers["alpha"] = (alpha if alpha.ndim == 3 else as_mask(alpha)).unsqueeze(-1)
        made, missed = layers_at_plate_size(
            plate[..., :3], layers, albedo_by=albedo_by, radius=radius, grain=grain, linear=colours == LINEAR,
            after_frame=steps(len(plate)))
        if "alpha" in made:
            made["alpha"] = made["alpha"].squeeze(-1)
        report = "\n".join(f"{name}: {error:.4f} rms from the small one" for name, error in missed.items())
        absent = {name: ExecutionBlocker(f"Strata Guided Upsample makes no {name}: none is connected to it.")
                  for name in LAYERS if name not in made}
        return io.NodeOutput(*({**made, **absent}[name] for name in LAYERS), report, ui=say(cls, report))

"""Strata Encode DensePose and Decode DensePose: IUV pictures of other tools into the layer's, and masks out of it."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.encodings.densepose import BODY, iuv_to_picture, part_mask, picture_to_iuv
from ..imaging.encodings.densepose_forms import bytes_to_iuv, part_map_to_iuv

BYTES, VIRIDIS, PARULA = "part, u, v in bytes", "viridis part map", "parula part map"


class EncodeDensePose(io.ComfyNode):
    """Another tool's DensePose picture into the layer's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataEncodeDensePose",
            display_name="Strata Encode DensePose",
            category="Strata/layers",
            description="Makes a densepose layer, (part / 24, u, v), of DensePose's own picture or of a part map.",
            search_aliases=["densepose", "iuv", "body parts"],
            inputs=[
                io.Image.Input("image", tooltip="A DensePose picture, not resized: mixtures at edges read as other "
                                                "parts."),
                io.Combo.Input("form", options=[VIRIDIS, PARULA, BYTES], default=VIRIDIS,
                               tooltip="What it is. The part maps are those of the DensePose preprocessor: they have "
                                       "no u and v, which become 0.5. 'bytes' is DensePose's own IUV picture."),
            ],
            outputs=[io.Image.Output("densepose_layer", tooltip="For Condition Mask's densepose. Data: no colour "
                                                                "transform.")],
        )

    @classmethod
    def execute(cls, image, form: str) -> io.NodeOutput:
        image = image.float()
        iuv = bytes_to_iuv(image) if form == BYTES else part_map_to_iuv(image, form.split()[0])
        return io.NodeOutput(iuv_to_picture(iuv))


class DecodeDensePose(io.ComfyNode):
    """Masks of body parts, and u and v, out of the layer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataDecodeDensePose",
            display_name="Strata Decode DensePose",
            category="Strata/layers",
            description="Gives the mask of a part of the body, and the places on it.",
            search_aliases=["densepose", "body part mask", "iuv"],
            inputs=[
                io.Image.Input("densepose_layer", tooltip="From Strata Decode Layers or Encode DensePose."),
                io.Combo.Input("part", options=list(BODY), default=next(iter(BODY)),
                               tooltip="Left and right are the person's own."),
            ],
            outputs=[
                io.Mask.Output("mask", tooltip="Where that part is seen."),
                io.Mask.Output("u", tooltip="The first place on each part, 0 to 1; 0 off people."),
                io.Mask.Output("v", tooltip="The second place on each part, 0 to 1; 0 off people."),
            ],
        )

    @classmethod
    def execute(cls, densepose_layer, part: str) -> io.NodeOutput:
        iuv = picture_to_iuv(densepose_layer.float())
        return io.NodeOutput(part_mask(iuv, *BODY[part]), iuv[..., 1], iuv[..., 2])

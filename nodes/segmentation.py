"""Strata Encode Segmentation and Decode Segmentation: masks of objects into flat colours, and back."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..comfy_host.native import track_masks
from ..imaging.checks import check_pixels
from ..imaging.encodings.segmentation import (
    MAXIMUM,
    colours_to_ids,
    id_shares,
    ids_to_colours,
    mask_of,
    masks_to_ids,
    palette,
)
from .saying import say

FRAMES, OBJECTS = "frames of one object", "objects of one frame"


class EncodeSegmentation(io.ComfyNode):
    """Objects into colours."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        masks = io.Autogrow.TemplatePrefix(
            io.Mask.Input("mask", optional=True, tooltip="An object: white is in. The first lies on top."),
            prefix="mask", min=0, max=64)
        return io.Schema(
            node_id="StrataEncodeSegmentation",
            display_name="Strata Encode Segmentation",
            category="Strata/layers",
            description="Makes a segmentation layer, a flat colour for every object on black, of a SAM3 track or of "
                        "masks.",
            search_aliases=["sam3", "masks to colours", "id matte"],
            inputs=[
                io.Custom("SAM3_TRACK_DATA").Input("track", optional=True,
                                                   tooltip="From Run SAM3 Video Track: its objects are 1, 2, 3, ..."),
                io.Combo.Input("batches", options=[FRAMES, OBJECTS], default=FRAMES,
                               tooltip="What the masks of a connected batch are. SAM3 Detect on a still with "
                                       "individual masks gives objects of one frame."),
                io.Autogrow.Input("masks", template=masks, optional=True,
                                  tooltip="Objects after those of the track, in this order."),
            ],
            outputs=[
                io.Image.Output("segmentation_layer", tooltip="For Condition Mask's segmentation. Data: save without "
                                                              "loss."),
                io.Int.Output("objects", tooltip="How many objects were numbered, for Decode Segmentation."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, batches: str, masks: dict | None = None, track=None) -> io.NodeOutput:
        objects = [] if track is None else track_masks(track)
        for mask in (mask for mask in (masks or {}).values() if mask is not None):
            objects += [mask] if batches == FRAMES else list(mask.split(1))
        if not objects:
            raise ValueError("There is no object to draw: connect a mask, or a SAM3 track that found something.")
        layer = ids_to_colours(masks_to_ids(objects))
        return io.NodeOutput(layer, len(objects), ui=say(cls, f"objects 1 to {len(objects)}"))


class DecodeSegmentation(io.ComfyNode):
    """Colours into masks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataDecodeSegmentation",
            display_name="Strata Decode Segmentation",
            category="Strata/layers",
            description="Finds the objects of a segmentation layer by their colours and gives their masks.",
            search_aliases=["id matte", "colour to mask", "mask from colour"],
            inputs=[
                io.Image.Input("segmentation_layer", tooltip="From Strata Decode Layers or Encode Segmentation."),
                io.Int.Input("id", default=1, min=0, max=MAXIMUM - 1,
                             tooltip="The object whose mask to give; 0 is the background."),
                io.Int.Input("objects", default=63, min=1, max=MAXIMUM - 1,
                             tooltip="How many objects there are at most: with fewer, noise is mistaken less often. "
                                     "Wire it from Encode Segmentation if you have it."),
                io.Float.Input("smallest", default=0.1, min=0.0, max=100.0, step=0.01,
                               tooltip="Percent of the clip's pixels; smaller ones are taken for noise: not listed, "
                                       "and not among all masks."),
            ],
            outputs=[
                io.Mask.Output("mask", tooltip="The chosen object, a mask for every frame."),
                io.Mask.Output("all_masks", tooltip="Every listed object: all frames of the first, then of the next. "
                                                    "Of a still, one mask an object, as Run SAM3 Video Track takes."),
                io.String.Output("ids", tooltip="The objects found, one a line, with their share of the pixels."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, segmentation_layer, id: int, objects: int, smallest: float) -> io.NodeOutput:
        check_pixels("The segmentation layer", segmentation_layer, (3, 4))
        ids = colours_to_ids(segmentation_layer[..., :3].float(), palette(objects + 1))
        shares = {number: share for number, share in id_shares(ids).items() if 100 * share >= smallest}
        found = torch.cat([mask_of(ids, number) for number in shares]) if shares else torch.zeros_like(mask_of(ids, 0))
        listed = "\n".join(f"{number}: {share:.1%}" for number, share in shares.items())
        return io.NodeOutput(mask_of(ids, id), found, listed, ui=say(cls, listed or "no objects"))

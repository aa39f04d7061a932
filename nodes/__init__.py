"""The graph nodes, one file per step of an artist's graph. Each is a schema and one call; the work is elsewhere."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .caption import CaptionClip
from .condition_mask import ConditionMask
from .decode_layers import DecodeLayers
from .densepose import DecodeDensePose, EncodeDensePose
from .depth import DecodeDepth, EncodeDepth
from .encode_words import EncodeWords
from .flow import DecodeFlow, EncodeFlow
from .gated_lora import GatedLora
from .joint_sampler import JointSampler
from .load_layers import LoadLayers
from .segmentation import DecodeSegmentation, EncodeSegmentation
from .skeleton import DecodeSkeleton, EncodeSkeleton
from .video_caption import VideoCaption


class StrataExtension(ComfyExtension):
    """Everything Strata adds to ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadLayers, GatedLora, ConditionMask, JointSampler, DecodeLayers, CaptionClip, VideoCaption,
            EncodeWords,
            EncodeDepth, DecodeDepth, EncodeFlow, DecodeFlow, EncodeSegmentation, DecodeSegmentation,
            EncodeSkeleton, DecodeSkeleton, EncodeDensePose, DecodeDensePose,
        ]

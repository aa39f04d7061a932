"""The graph nodes, one file per step of an artist's graph. Each is a schema and one call; the work is elsewhere."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io

from ..model_loaders.model_set import BUNDLED
from .alpha_video import LoadAlphaVideo, SaveAlphaVideo
from .caption import CaptionClip
from .condition_mask import ConditionMask
from .decode_layers import DecodeLayers
from .densepose import DecodeDensePose, EncodeDensePose
from .depth import DecodeDepth, EncodeDepth
from .flow import DecodeFlow, EncodeFlow
from .gated_lora import GatedLora
from .joint_sampler import JointSampler
from .layer_exr import LoadLayersExr, SaveLayersExr
from .load_layers import LoadLayers
from .load_words import LoadWords
from .save_layers import SaveLayers
from .segmentation import DecodeSegmentation, EncodeSegmentation
from .skeleton import DecodeSkeleton, EncodeSkeleton
from .video_caption import VideoCaption


class StrataExtension(ComfyExtension):
    """Everything Strata adds to ComfyUI."""

    async def on_load(self) -> None:
        # The stock loaders list the bundled models too, from where they lie: a graph that names them runs at once.
        for folder in sorted(path for path in BUNDLED["tiny"].iterdir() if path.is_dir()):
            folder_paths.add_model_folder_path(folder.name, str(folder))

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadLayers, GatedLora, ConditionMask, JointSampler, DecodeLayers, CaptionClip, VideoCaption,
            LoadWords,
            EncodeDepth, DecodeDepth, EncodeFlow, DecodeFlow, EncodeSegmentation, DecodeSegmentation,
            EncodeSkeleton, DecodeSkeleton, EncodeDensePose, DecodeDensePose,
            SaveLayersExr, LoadLayersExr, SaveAlphaVideo, LoadAlphaVideo, SaveLayers,
        ]

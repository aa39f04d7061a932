"""The graph nodes, one file per step of an artist's graph. Each is a schema and one call; the work is elsewhere."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io

from ..model_loaders.model_set import BUNDLED
from .alpha_video import LoadAlphaVideo, SaveAlphaVideo
from .caption import CaptionClip
from .colour_space import ColourSpaceNode
from .compositor import Compositor, MakeCompLayer
from .condition_mask import ConditionMask
from .contact_sheet import ContactSheet
from .decode_layers import DecodeLayers
from .decontaminate import Decontaminate
from .densepose import DecodeDensePose, EncodeDensePose
from .depth import DecodeDepth, EncodeDepth
from .despill import Despill
from .flow import DecodeFlow, EncodeFlow
from .gated_lora import GatedLora
from .guided_upsample import GuidedUpsample
from .highlights import CompressHighlights, RestoreHighlights
from .joint_sampler import JointSampler
from .layer_exr import LoadLayersExr, SaveLayersExr
from .layer_viewer import LayerViewer
from .lights import AddEnvironmentLight, AddLight
from .live_task import add_route
from .load_layers import LoadLayers
from .load_words import LoadWords
from .normal_map import NormalMap
from .rebuild import Rebuild
from .refine_matte import RefineMatte
from .relight import RelightShot
from .save_layers import SaveLayers
from .segmentation import DecodeSegmentation, EncodeSegmentation
from .skeleton import DecodeSkeleton, EncodeSkeleton
from .video_caption import VideoCaption
from .wipe import Wipe


class StrataExtension(ComfyExtension):
    """Everything Strata adds to ComfyUI."""

    async def on_load(self) -> None:
        # The stock loaders list the bundled models too, from where they lie: a graph that names them runs at once.
        for folder in sorted(path for path in BUNDLED["tiny"].iterdir() if path.is_dir()):
            folder_paths.add_model_folder_path(folder.name, str(folder))
        add_route()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadLayers, GatedLora, ConditionMask, JointSampler, DecodeLayers, CaptionClip, VideoCaption,
            LoadWords,
            EncodeDepth, DecodeDepth, EncodeFlow, DecodeFlow, EncodeSegmentation, DecodeSegmentation,
            EncodeSkeleton, DecodeSkeleton, EncodeDensePose, DecodeDensePose,
            GuidedUpsample, NormalMap, Rebuild, AddLight, AddEnvironmentLight, RelightShot,
            LayerViewer, ContactSheet, Wipe,
            MakeCompLayer, Compositor, Decontaminate, Despill, RefineMatte,
            ColourSpaceNode, CompressHighlights, RestoreHighlights,
            SaveLayersExr, LoadLayersExr, SaveAlphaVideo, LoadAlphaVideo, SaveLayers,
        ]

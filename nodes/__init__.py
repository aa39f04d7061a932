"""The graph nodes, one file per step of an artist's graph. Each is a schema and one call; the work is elsewhere."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .condition_mask import ConditionMask
from .decode_layers import DecodeLayers
from .gated_lora import GatedLora
from .joint_sampler import JointSampler
from .load_layers import LoadLayers


class StrataExtension(ComfyExtension):
    """Everything Strata adds to ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadLayers, GatedLora, ConditionMask, JointSampler, DecodeLayers]

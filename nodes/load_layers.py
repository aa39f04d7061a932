"""Strata Load Layers: MODEL + layers file -> MODEL that samples its layers jointly."""

from __future__ import annotations

import logging
from dataclasses import replace

import comfy.ops
import folder_paths
from comfy_api.latest import io

from ..comfy_host.attach import attach_layers
from ..comfy_host.texts import fill_prompts
from ..joint.variants import Variant
from ..model_loaders.layer_files import PROMPTS_SUFFIX, load_layers, stored_prompts
from .saying import say

FOLDERS = ("loras", "model_patches")


def adapter_files() -> list[str]:
    """Every safetensors file in the two model folders that may hold layers."""
    names = {name for folder in FOLDERS for name in folder_paths.get_filename_list(folder)}
    return sorted(n for n in names if n.endswith(".safetensors") and not n.endswith(PROMPTS_SUFFIX))


def adapter_path(name: str) -> str:
    """The full path of a file of `adapter_files`. Raises FileNotFoundError naming both folders."""
    for folder in FOLDERS:
        if path := folder_paths.get_full_path(folder, name):
            return path
    raise FileNotFoundError(f"'{name}' lies neither in models/loras nor in models/model_patches.")


class LoadLayers(io.ComfyNode):
    """Attach a family's layers to a stock Wan model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataLoadLayers",
            display_name="Strata Load Layers",
            category="Strata",
            description="Teaches a Wan text-to-video model to see and make the layers of a shot together: rgb with "
                        "albedo, irradiance and normal; plate, alpha, foreground and background; rgb with depth, flow, "
                        "body or segmentation; or a video with its caption.",
            search_aliases=["unividx", "unityvideo", "uni-vigu", "albedo", "matting", "intrinsic", "relight", "depth",
                            "caption"],
            inputs=[
                io.Model.Input("model", tooltip="The Wan text-to-video model that the layers were trained on, from any "
                                                "loader. It is not changed."),
                io.Combo.Input("adapters", options=adapter_files(),
                               tooltip="The layers (of UniVidX, UnityVideo or Uni-ViGU), from models/loras or "
                                       "models/model_patches."),
                io.Combo.Input("time_rounding", options=["as published", "exact"], advanced=True,
                               tooltip="Some of the published models were trained with timesteps rounded to bfloat16; "
                                       "'exact' is for comparing numbers, not for pictures."),
                io.Clip.Input("clip", optional=True,
                              tooltip="UMT5. Only read for layers with fixed sentences (unity) where no file beside "
                                      "them holds the embeddings of these."),
            ],
            outputs=[io.Model.Output(tooltip="The same model with its layers, and the family's own schedule shift.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, adapters: str, time_rounding: str = "as published", clip=None) -> io.NodeOutput:
        path = adapter_path(adapters)
        loaded = load_layers(path, ops=comfy.ops.manual_cast)
        family = loaded.family
        if time_rounding == "exact":
            family = replace(family, flow=replace(family.flow, round_time=None))
        for warning in loaded.warnings:
            logging.warning("Strata: %s", warning)
        model = attach_layers(model, loaded, family, fill_prompts(family, stored_prompts(path), clip))
        about = [family.title, ", ".join([
            *([f"rank {loaded.rank}"] if loaded.rank else []),
            *([f"{loaded.vocabulary.size} tokens of text"] if loaded.vocabulary else []),
            f"schedule shift {family.flow.shift:g}"])]
        if family.variant != Variant():
            about.append(f"variant: {family.variant}")
        return io.NodeOutput(model, ui=say(cls, "\n".join([*about, *loaded.warnings])))

"""Strata Load Layers: MODEL + adapter file -> MODEL that samples its layers jointly."""

from __future__ import annotations

import logging
from dataclasses import replace

import folder_paths
from comfy_api.latest import io

from ..comfy_host.attach import attach_layers
from ..joint.variants import Variant
from ..model_loaders.layer_files import PROMPTS_SUFFIX, load_layers, stored_prompts
from .saying import say

FOLDERS = ("loras", "model_patches")


def adapter_files() -> list[str]:
    """Every safetensors file in the two model folders that may hold layer adapters."""
    names = {name for folder in FOLDERS for name in folder_paths.get_filename_list(folder)}
    return sorted(n for n in names if n.endswith(".safetensors") and not n.endswith(PROMPTS_SUFFIX))


def adapter_path(name: str) -> str:
    """The full path of a file of `adapter_files`. Raises FileNotFoundError naming both folders."""
    for folder in FOLDERS:
        if path := folder_paths.get_full_path(folder, name):
            return path
    raise FileNotFoundError(f"'{name}' lies neither in models/loras nor in models/model_patches.")


class LoadLayers(io.ComfyNode):
    """Attach a family's adapters to a stock Wan model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataLoadLayers",
            display_name="Strata Load Layers",
            category="Strata",
            description="Teaches a Wan 2.1 text-to-video model to see and make the layers of a shot together: rgb, "
                        "albedo, irradiance and normal, or plate, alpha, foreground and background.",
            search_aliases=["unividx", "albedo", "matting", "intrinsic", "relight"],
            inputs=[
                io.Model.Input("model", tooltip="A Wan 2.1 text-to-video model from any loader. It is not changed."),
                io.Combo.Input("adapters", options=adapter_files(),
                               tooltip="The layer adapters (UniVidX), from models/loras or models/model_patches."),
                io.Combo.Input("time_rounding", options=["as published", "exact"], advanced=True,
                               tooltip="The published models were trained with timesteps rounded to bfloat16; 'exact' "
                                       "is for comparing numbers, not for pictures."),
            ],
            outputs=[io.Model.Output(tooltip="The same model with its layers, and the family's own schedule shift.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, adapters: str, time_rounding: str = "as published") -> io.NodeOutput:
        path = adapter_path(adapters)
        loaded = load_layers(path)
        family = loaded.family
        if time_rounding == "exact":
            family = replace(family, flow=replace(family.flow, round_time=None))
        for warning in loaded.warnings:
            logging.warning("Strata: %s", warning)
        model = attach_layers(model, loaded, family, stored_prompts(path).get(""))
        about = [family.title, f"rank {loaded.rank}, schedule shift {family.flow.shift:g}"]
        if family.variant != Variant():
            about.append(f"variant: {family.variant}")
        return io.NodeOutput(model, ui=say(cls, "\n".join([*about, *loaded.warnings])))

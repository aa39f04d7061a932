"""Variants of a family: ComfyUI runs what an adapter file says of itself as the joint engine runs it by itself."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import torch
from safetensors.torch import save_file
from torch import Tensor

from ....comfy_host.attach import attach_layers, joint_model
from ....joint.adapters import AdapterSettings
from ....joint.families import ALPHA, INTRINSIC, parse_task, vary
from ....joint.sampling import Engine, Texts, predict
from ....joint.streams import Family
from ....joint.transformer import Host
from ....joint.variants import Variant
from ....joint.wan import WanConfig, empty_wan
from ....model_loaders.layer_metadata import layer_metadata
from ....nodes.load_layers import LoadLayers
from . import tiny

VARIANTS = (Variant(gating="always"), Variant(adapters="shared"), Variant(ffn="per_stream"),
            Variant(condition_attention="conditions"),
            Variant("always", "shared", "attention", "per_stream", "conditions"))
SIGMA = torch.tensor([0.7])


def from_a_file(family: Family):
    """The MODEL that Strata Load Layers makes of a stock one and a file of this family's adapters, and what it says."""
    path = Path(folder_paths.get_folder_paths("loras")[0]) / "a variant.safetensors"
    save_file(tiny.adapter_tensors(family), path, metadata=layer_metadata(family) or None)
    try:
        node = LoadLayers.execute(tiny.wan_model(), path.name)
    finally:
        path.unlink()
    return node.result[0], node.ui.as_dict()["text"][0]


def by_itself(family: Family, task: str, x: Tensor, context: Tensor) -> Tensor:
    """The velocity [M, C, T, h, w] by the joint engine on its own module tree, with the same weights."""
    stock = tiny.wan_model().model.diffusion_model
    model = empty_wan(WanConfig(dim=tiny.DIM, ffn_dim=tiny.FFN, num_layers=tiny.LAYERS, num_heads=tiny.HEADS,
                                text_dim=tiny.TEXT_DIM, freq_dim=32))
    model.load_state_dict(stock.state_dict())
    engine = Engine(model, tiny.layers(family).bank, AdapterSettings.published(family), Host())
    with torch.inference_mode():
        return predict(engine, parse_task(family, task), x.unsqueeze(0), float(SIGMA), Texts(context))[0][0]


def check_files_of_variants():
    """Every variant that rides on stock Wan: Load Layers names it, and ComfyUI's WanModel gives what the joint engine
    gives by itself, to 1e-5, for tasks with and without given layers; it is another network than the published."""
    context, said = tiny.text()[0][0], []
    for family, task in ((INTRINSIC, "RI2AN"), (ALPHA, "P2RFB"), (INTRINSIC, "t2RAIN")):
        latent = tiny.latent(task, family)
        x = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(7))
        published = None
        for variant in (Variant(), *VARIANTS, *((Variant(plate="own"),) if family is ALPHA else ())):
            varied = vary(family, variant)
            model, shown = from_a_file(varied)
            assert joint_model(model).family == varied and (f"variant: {variant}" in shown) == (variant != Variant())
            call = tiny.network(model, x, SIGMA, context, latent["noise_mask"])
            what = f"{family.name} {task} {variant}"
            said.append(tiny.within(what, call["out"], by_itself(varied, task, call["x"], context), 1e-5))
            if published is None:
                published = call["out"]
            elif not task.startswith("t") or variant.adapters == "shared" or variant.ffn == "per_stream":
                tiny.differs(what, call["out"], published)
            else:
                tiny.equal(f"{what}, where nothing is given", call["out"], published)
    return f"{len(said)} networks; {said[-1]}"


def check_closed_conditions_sample():
    """Conditions that attend to themselves only, through the stock KSampler: given layers stay exact, also with a
    region of one to generate, which makes that layer a target."""
    model, latent = tiny.layered(vary(INTRINSIC, Variant(condition_attention="conditions"))), tiny.latent("RI2AN")
    said = [tiny.keeps_given("whole rows", tiny.ksampler(model, latent, cfg=5.0), latent)]
    latent["noise_mask"][2, :, :, :2] = 1.0
    said.append(tiny.keeps_given("a region", tiny.ksampler(model, latent, cfg=5.0), latent))
    return "; ".join(said)


def check_joined_channels_are_refused():
    """Layers of a backbone that holds all streams in its channels are refused in one sentence."""
    family = vary(INTRINSIC, Variant("always", "shared", "channel_concat"))
    return tiny.raises(ValueError, "channel_concat", "strata command", call=lambda: attach_layers(
        tiny.wan_model(), tiny.layers(family), family, None))

"""Strata Gated LoRA: how strongly, and when, each layer's adapters act."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..comfy_host.attach import joint_model, with_settings
from ..joint.adapters import Gate
from ..joint.families import FAMILIES

ALL, SHARED = "all layers", "shared feed-forward"


def layer_choices() -> list[str]:
    """Every layer of every family with adapters, once, after the two choices that are no layer."""
    families = (family for family in FAMILIES.values() if family.file_adapters)
    return [ALL, SHARED, *dict.fromkeys(layer for family in families for layer in family.layers)]


def changed_settings(joint, layer: str, strength: float, gate: Gate):
    """The settings of a MODEL with one choice changed. Raises ValueError for a layer of another family, and for one
    without adapters."""
    if joint.bank is None:
        raise ValueError(f"The layers of this MODEL ({joint.family.name}) have no adapters whose strength could be "
                         "changed: leave Strata Gated LoRA out.")
    if layer == SHARED:
        return replace(joint.settings, ffn_strength=0.0 if gate is Gate.OFF else strength)
    settings = joint.settings
    for name in joint.family.layers if layer == ALL else (layer,):
        settings = settings.with_stream(joint.family.index(name), strength, gate)
    return settings


class GatedLora(io.ComfyNode):
    """Change strength and gate of one layer's adapters; chain the node for more layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataGatedLoRA",
            display_name="Strata Gated LoRA",
            category="Strata",
            description="Sets how strongly a layer's adapters act, and when. Leave it out for the published behaviour; "
                        "chain several for several layers.",
            inputs=[
                io.Model.Input("model", tooltip="A model from Strata Load Layers."),
                io.Combo.Input("layer", options=layer_choices(), default=ALL,
                               tooltip="Which layer to change. 'shared feed-forward' is the part that all layers use, "
                                       "given ones too."),
                io.Float.Input("strength", default=1.0, min=-4.0, max=4.0, step=0.05,
                               tooltip="1.0 is as trained, 0.0 is off."),
                io.Combo.Input("gate", options=[gate.value for gate in Gate], default=Gate.TARGETS.value,
                               tooltip="'targets only' (published): the adapters act while the layer is generated and "
                                       "a given layer stays with the plain model. 'always' acts on given layers too."),
            ],
            outputs=[io.Model.Output(tooltip="The model with the changed adapters.")],
        )

    @classmethod
    def execute(cls, model, layer: str, strength: float, gate: str) -> io.NodeOutput:
        return io.NodeOutput(with_settings(model, changed_settings(joint_model(model), layer, strength, Gate(gate))))

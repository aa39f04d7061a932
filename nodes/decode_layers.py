"""Strata Decode Layers: a joint LATENT into one IMAGE per layer."""

from __future__ import annotations

from comfy_api.latest import io
from server import PromptServer

from ..comfy_host.latents import KEY, decode_layer
from ..imaging.encodings.layers import as_mask

# In this order for ever: graphs store the number of an output. New layers are appended.
ALPHA_MASK = "alpha_mask"
OUTPUTS = ("rgb", "albedo", "irradiance", "normal", "alpha", "fg", "bg", ALPHA_MASK,
           "depth", "flow", "densepose", "skeleton", "segmentation")


def connected_outputs(prompt: dict, node_id: str, outputs: tuple[str, ...] = OUTPUTS) -> tuple[str, ...] | None:
    """Which of a node's `outputs` some other node of a prompt reads; None when the prompt does not list the node (one
    that was made while the prompt runs)."""
    if node_id not in prompt:
        return None
    links = [value for node in prompt.values() for value in node["inputs"].values() if isinstance(value, list)]
    used = {link[1] for link in links if len(link) == 2 and str(link[0]) == node_id}
    return tuple(name for i, name in enumerate(outputs) if i in used)


def running_prompt() -> dict:
    """The prompt that the server works on now; empty when there is none."""
    running, _ = PromptServer.instance.prompt_queue.get_current_queue()
    return running[0][2] if running else {}


class DecodeLayers(io.ComfyNode):
    """Decode the layers that are connected, and no others."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataDecodeLayers",
            display_name="Strata Decode Layers",
            category="Strata",
            description="Turns the latent into pictures, one per layer, in the size and length of the shot. Given "
                        "layers come out untouched. Only connected outputs are decoded.",
            inputs=[
                io.Latent.Input("latent", tooltip="From Strata Joint Sampler or any stock sampler."),
                io.Vae.Input("vae", tooltip="The VAE of the layers: Wan 2.1's, for unity Wan 2.2's."),
            ],
            outputs=[(io.Mask if name == ALPHA_MASK else io.Image).Output(name, tooltip=_tooltip(name))
                     for name in OUTPUTS],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **kwargs):
        # The result depends on what is connected, which ComfyUI's cache does not know.
        return connected_outputs(running_prompt(), cls.hidden.unique_id)

    @classmethod
    def execute(cls, latent: dict, vae) -> io.NodeOutput:
        joint = latent.get(KEY)
        if joint is None:
            raise ValueError("This LATENT does not say which layers it holds: make it with Strata Condition Mask "
                             "(saving and loading a latent, or joining latents, loses that).")
        names = connected_outputs(cls.hidden.prompt or {}, cls.hidden.unique_id)
        if names is None:
            names = tuple(name for name in OUTPUTS if _layer(name) in joint.present)
        images = {layer: decode_layer(vae, latent, joint, layer) for layer in dict.fromkeys(map(_layer, names))}
        return io.NodeOutput(*(
            None if name not in names else as_mask(images[_layer(name)]) if name == ALPHA_MASK else images[name]
            for name in OUTPUTS))


def _layer(output: str) -> str:
    return "alpha" if output == ALPHA_MASK else output


def _tooltip(output: str) -> str:
    notes = {
        "normal": "Camera-space normals, unit length, 0.5 = zero.",
        "rgb": "The picture itself, the plate.",
        ALPHA_MASK: "The alpha as a mask: white is foreground.",
        "depth": "Depth as colours, near red, far blue; for Decode Depth.",
        "flow": "Motion as colours, hue for direction, strength for speed; for Decode Flow.",
        "densepose": "Body part and place on it as colours; for Decode DensePose.",
        "skeleton": "Joints and limbs on black; for Decode Skeleton.",
        "segmentation": "A flat colour for every object; for Decode Segmentation.",
    }
    return notes.get(output, f"The {output}.")

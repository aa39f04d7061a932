"""A test-only node pack: loaders that take a tiny UMT5 and a tiny Wan 2.2 VAE, since the stock ones know only the real
sizes, and a VAE that tells the log whenever it decodes."""

import comfy.ldm.wan.vae2_2
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io

# ComfyUI tells umt5-xxl from other encoders by this matrix of its last block; read, then ignored as a foreign key.
MARKER = "encoder.block.23.layer.1.DenseReluDense.wi_1.weight", (10240, 0)


def sizes(state: dict[str, torch.Tensor]) -> dict[str, int]:
    """The encoder's sizes, read from its tensors, under the names of transformers' configuration."""
    first = "encoder.block.0.layer."
    heads = state[f"{first}0.SelfAttention.relative_attention_bias.weight"].shape[1]
    return {
        "vocab_size": state["shared.weight"].shape[0], "d_model": state["shared.weight"].shape[1],
        "num_layers": sum(name.endswith("SelfAttention.q.weight") for name in state), "num_heads": heads,
        "d_kv": state[f"{first}0.SelfAttention.q.weight"].shape[0] // heads,
        "d_ff": state[f"{first}1.DenseReluDense.wi_0.weight"].shape[0],
    }


def load_tiny_umt5(name: str):
    """The stock CLIP object for Wan on a UMT5 file of any size in models/text_encoders."""
    state = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("text_encoders", name), safe_load=True)
    config = sizes(state)
    state[MARKER[0]] = torch.empty(MARKER[1])
    return comfy.sd.load_text_encoder_state_dicts([state], clip_type=comfy.sd.CLIPType.WAN,
                                                  model_options={"umt5xxl_model_config": config})


def load_tiny_vae(name: str):
    """The stock VAE object on a Wan 2.2 VAE file of any size in models/vae."""
    state = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("vae", name), safe_load=True)
    module = comfy.ldm.wan.vae2_2
    stock = module.WanVAE
    dim, dec_dim = state["encoder.conv1.weight"].shape[0], state["decoder.head.0.gamma"].shape[0]

    def small(**config):
        return stock(**config | {"dim": dim, "dec_dim": dec_dim})

    module.WanVAE = small
    try:
        return comfy.sd.VAE(sd=state)
    finally:
        module.WanVAE = stock


class TinyUMT5Loader(io.ComfyNode):
    """A CLIP for Wan from a UMT5 file of any size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TinyUMT5Loader",
            display_name="Tiny UMT5 Loader (tests)",
            category="Strata/tests",
            inputs=[io.Combo.Input("clip_name", options=folder_paths.get_filename_list("text_encoders"))],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, clip_name: str) -> io.NodeOutput:
        return io.NodeOutput(load_tiny_umt5(clip_name))


class TinyVAE22Loader(io.ComfyNode):
    """A VAE from a Wan 2.2 VAE file of any size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TinyVAE22Loader",
            display_name="Tiny Wan 2.2 VAE Loader (tests)",
            category="Strata/tests",
            inputs=[io.Combo.Input("vae_name", options=folder_paths.get_filename_list("vae"))],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def execute(cls, vae_name: str) -> io.NodeOutput:
        return io.NodeOutput(load_tiny_vae(vae_name))


class TellingVAE:
    """A VAE that prints a line before it decodes; all else is the VAE's own."""

    def __init__(self, vae):
        self.vae = vae

    def __getattr__(self, name):
        return getattr(self.vae, name)

    def decode(self, *args, **kwargs):
        """The VAE's pictures."""
        print("TellingVAE decodes", flush=True)
        return self.vae.decode(*args, **kwargs)


class TellDecodes(io.ComfyNode):
    """VAE to VAE; tests count the lines in the log."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TellDecodes",
            display_name="Tell Decodes (tests)",
            category="Strata/tests",
            inputs=[io.Vae.Input("vae")],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def execute(cls, vae) -> io.NodeOutput:
        return io.NodeOutput(TellingVAE(vae))


class TinyTextExtension(ComfyExtension):
    """What the tests add to ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TinyUMT5Loader, TinyVAE22Loader, TellDecodes]


async def comfy_entrypoint() -> TinyTextExtension:
    return TinyTextExtension()

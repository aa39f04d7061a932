"""Strata Encode Words: prompt -> CONDITIONING, for small models of a closed vocabulary."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import io

from ..model_loaders.safetensors_file import read_header
from ..model_loaders.word_encoder import encode_words, is_word_encoder

_FOLDER = "text_encoders"


def word_encoders() -> list[str]:
    """The word encoders in models/text_encoders, by name."""
    return [name for name in folder_paths.get_filename_list(_FOLDER) if _is_one(name)]


def _is_one(name: str) -> bool:
    path = folder_paths.get_full_path(_FOLDER, name)
    try:
        return path is not None and is_word_encoder(read_header(path).shapes)
    except (ValueError, OSError):  # a damaged file is nobody's encoder
        return False


class EncodeWords(io.ComfyNode):
    """A prompt in the words that a small model knows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataEncodeWords",
            display_name="Strata Encode Words",
            category="Strata",
            description="Turns a prompt into conditioning for a small model of a closed vocabulary, such as Strata's "
                        "tiny one. Published models read UMT5: for those take CLIP Text Encode.",
            inputs=[
                io.Combo.Input("encoder", options=word_encoders(),
                               tooltip="A word encoder, from models/text_encoders."),
                io.String.Input("prompt", multiline=True, default="",
                                tooltip="Words that the model knows, such as: A red ball bounces in a room with a grey "
                                        "ground and white walls. Others are refused, with the nearest ones named."),
            ],
            outputs=[io.Conditioning.Output(tooltip="For a sampler's positive or negative input.")],
        )

    @classmethod
    def execute(cls, encoder: str, prompt: str) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(_FOLDER, encoder)
        return io.NodeOutput([[encode_words(path, [prompt]), {}]])

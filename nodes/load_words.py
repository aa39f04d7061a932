"""Strata Load Words: a word encoder -> CLIP, for small models of a closed vocabulary."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import io

from ..comfy_host.words import load_words
from ..model_loaders.safetensors_file import read_header
from ..model_loaders.word_encoder import is_word_encoder

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


class LoadWords(io.ComfyNode):
    """The text encoder of a small model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataLoadWords",
            display_name="Strata Load Words",
            category="Strata",
            description="The text encoder of a small model with a closed vocabulary, such as Strata's tiny ones, as a "
                        "CLIP for any node that takes one. Published models read UMT5: for those take Load CLIP.",
            inputs=[io.Combo.Input("encoder", options=word_encoders(),
                                   tooltip="A word encoder, from models/text_encoders or bundled with Strata.")],
            outputs=[io.Clip.Output(tooltip="For CLIP Text Encode. It takes prompts in the words of its model, such "
                                            "as: A red ball bounces in a room with a grey ground and white walls. "
                                            "Others are refused, with the nearest ones named.")],
        )

    @classmethod
    def execute(cls, encoder: str) -> io.NodeOutput:
        return io.NodeOutput(load_words(folder_paths.get_full_path_or_raise(_FOLDER, encoder)))

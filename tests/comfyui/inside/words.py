"""Strata Encode Words on a file of a few words, and its conditioning in a joint sampling on files of stock loaders."""

from __future__ import annotations

from pathlib import Path

import folder_paths

import nodes

from ....model_loaders.word_encoder import LENGTH, encode_words, save_word_encoder
from ....nodes.encode_words import EncodeWords, word_encoders
from ....nodes.joint_sampler import JointSampler
from ....nodes.load_layers import LoadLayers
from . import tiny


def check_words_node():
    """The node offers word encoders alone, embeds as the command line does, and refuses a word that it does not know;
    a prompt and an empty one, of other lengths than UMT5's, go through a guided joint sampling."""
    path = Path(folder_paths.get_folder_paths("text_encoders")[0]) / "few words.safetensors"
    save_word_encoder(path, ["a", "red", "ball"])
    offered = word_encoders()
    assert path.name in offered and "umt5.safetensors" not in offered, offered
    prompt, nothing = (EncodeWords.execute(path.name, text).result[0] for text in ("A red ball.", ""))
    assert prompt[0][0].shape == (1, LENGTH, 4096)
    said = [tiny.equal("the prompt", prompt[0][0], encode_words(path, ["a red ball"])),
            tiny.raises(ValueError, "'boll'", "try ball", call=lambda: EncodeWords.execute(path.name, "a red boll"))]
    base = nodes.UNETLoader().load_unet("wan.safetensors", "default")[0]
    model = LoadLayers.execute(base, "intrinsic.safetensors").result[0]
    latent = tiny.latent("AN2RI")
    told, silent = (JointSampler.execute(model, latent, 1, 2, 3.0, positive, nothing).result[0]["samples"]
                    for positive in (prompt, nothing))
    assert not told.equal(silent), "the prompt changes nothing"
    return " ".join([*said, tiny.keeps_given("with a prompt", told, latent)])

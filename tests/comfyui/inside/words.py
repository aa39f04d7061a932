"""Strata Load Words on a file of a few words: its CLIP in stock nodes, in ours and in a joint sampling."""

from __future__ import annotations

from pathlib import Path

import folder_paths

import nodes

from ....comfy_host.texts import encode_texts
from ....joint.families import UNITY
from ....model_loaders.word_encoder import LENGTH, encode_words, save_word_encoder
from ....nodes.joint_sampler import JointSampler
from ....nodes.load_layers import LoadLayers
from ....nodes.load_words import LoadWords, word_encoders
from . import tiny


def check_words_node():
    """The node offers word encoders alone, its CLIP embeds as the command line does, in stock nodes and for layers'
    sentences, and refuses a word that it does not know; a prompt and an empty one, of other lengths than UMT5's, go
    through a guided joint sampling."""
    path = Path(folder_paths.get_folder_paths("text_encoders")[0]) / "few words.safetensors"
    save_word_encoder(path, ["a", "red", "ball"])
    offered = word_encoders()
    assert path.name in offered and "umt5.safetensors" not in offered, offered
    clip = LoadWords.execute(path.name).result[0]
    prompt, nothing = (nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("A red ball.", ""))
    assert prompt[0][0].shape == (1, LENGTH, 4096)
    said = [tiny.equal("the prompt", prompt[0][0], encode_words(path, ["a red ball"])),
            tiny.equal("a text of layers", encode_texts(clip.clone(), ["a red ball", ""], UNITY.text),
                       encode_words(path, ["a red ball", ""])),
            tiny.raises(ValueError, "'boll'", "try ball", call=lambda: nodes.CLIPTextEncode().encode(clip, "red boll"))]
    base = nodes.UNETLoader().load_unet("wan.safetensors", "default")[0]
    model = LoadLayers.execute(base, "intrinsic.safetensors").result[0]
    latent = tiny.latent("AN2RI")
    told, silent = (JointSampler.execute(model, latent, 1, 2, 3.0, positive, nothing).result[0]["samples"]
                    for positive in (prompt, nothing))
    assert not told.equal(silent), "the prompt changes nothing"
    return " ".join([*said, tiny.keeps_given("with a prompt", told, latent)])

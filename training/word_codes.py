"""The word encoder of models that are trained on synthetic shots: it knows the words of their captions.

    python -m comfyui_strata.training.word_codes words.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..joint.families import FAMILIES
from ..model_loaders.word_encoder import save_word_encoder, split_words
from .rendering.captions import VOCABULARY


def known_words() -> list[str]:
    """The words of all captions, and of the sentences that streams read in place of a prompt."""
    fixed = [stream.prompt for family in FAMILIES.values() for stream in family.streams if stream.prompt]
    return list(dict.fromkeys([*VOCABULARY, *sorted({word for text in fixed for word in split_words(text)})]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path, help="the file to write")
    args = parser.parse_args()
    save_word_encoder(args.out, known_words())
    print(args.out)


if __name__ == "__main__":
    main()

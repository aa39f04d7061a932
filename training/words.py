"""The vocabulary of a training run: of the model it goes on from, of a file, or of the captions of synthetic shots."""

from __future__ import annotations

from ..joint.streams import Family
from ..model_loaders.vocabulary import Vocabulary, find_vocabulary, make_word_vocabulary
from .config import TrainConfig
from .rendering.captions import VOCABULARY


def learned_vocabulary(config: TrainConfig, family: Family) -> Vocabulary | None:
    """What the family's text is made of, None for a family without text.

    Raises ValueError or FileNotFoundError in one sentence where there is none."""
    if not family.texts:
        return None
    if where := config.text.vocabulary or config.model.start:
        return find_vocabulary(where)
    if config.data.synthetic:
        return Vocabulary(make_word_vocabulary(VOCABULARY), "the words of the captions")
    raise ValueError("The text of your own clips needs a vocabulary: name a spiece.model or tokenizer.json as "
                     "[text] vocabulary.")

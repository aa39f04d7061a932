"""Which task an artist means: what is connected is given, and where not all layers take part, what to generate."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..joint.families import vary
from ..joint.streams import Family, Task
from ..joint.variants import Variant

ALL_OTHERS = "all other layers"


def generate_choices(family: Family) -> list[str]:
    """What may be generated in a family whose layers are not all present: one layer, the first with one other, or, in
    a variant that joins them all, whatever is not given."""
    first, *others = family.layers
    return [*others, first, *(f"{first} + {other}" for other in others), ALL_OTHERS]


def chosen_task(family: Family, generate: str | None, given: Mapping[str, object], masks: Mapping[str, Tensor]) -> Task:
    """The task of the layers that are connected (`given`), of which some have masks with anything above 0 where they
    shall be generated all the same; `generate` is one of `generate_choices`, None where all layers are present.

    Raises ValueError for a mask without its picture, and for choices that contradict what is connected."""
    for layer in masks:
        if layer not in given:
            raise ValueError(f"'{layer}' has a mask but no picture: connect the picture, or drop the mask (a layer "
                             "that is not connected is generated whole).")
    masked = {layer for layer, mask in masks.items() if (mask > 0).any()}
    if generate is None or generate == ALL_OTHERS:
        wide = family if generate is None else vary(family, Variant(together="all"))
        return wide.task([layer for layer in wide.layers if layer not in given or layer in masked])
    made = tuple(generate.split(" + "))
    kept = [layer for layer in given if layer not in masked]
    _check_choice(family, generate, made, kept, given)
    return family.task([layer for layer in family.layers if layer in made or layer in masked], kept)


def _check_choice(family: Family, generate: str, made: tuple[str, ...], kept: list[str],
                  given: Mapping[str, object]) -> None:
    first = family.layers[0]
    if both := [layer for layer in made if layer in kept]:
        raise ValueError(f"{both[0]} is connected and to be generated at once: disconnect it, give it a mask, or "
                         "generate another layer.")
    partners = [layer for layer in given if layer not in made]
    if len(made) > 1 and partners:
        raise ValueError(f"'{generate}' is made from text alone, but {', '.join(partners)} is connected: disconnect "
                         "it, or generate one layer from it.")
    if len(made) > 1:
        return
    from_what = family.layers[1:] if made == (first,) else (first,)
    if not partners:
        other = made[0] if made != (first,) else family.layers[1]
        raise ValueError(f"{made[0]} is generated from {_any_of(from_what)}, but nothing is connected: connect "
                         f"{_any_of(from_what)}, or choose '{first} + {other}'.")
    if len(partners) > 1 or partners[0] not in from_what:
        raise ValueError(f"{made[0]} is generated from {_any_of(from_what)}, but {', '.join(partners)} "
                         f"{'is' if len(partners) == 1 else 'are'} connected: leave the others open (only a variant "
                         f"that joins all layers takes more, with '{ALL_OTHERS}').")


def _any_of(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"

"""Which family, and which variant of it, a layer file holds: by the names of its tensors and its safetensors metadata.

A published adapter file needs no metadata. A variant's names its family and, as a JSON object, what is not as
published; a file of parts of a family's own always names its family, and the length of its texts where it was not
trained with the published one. Any file may say at what size it was trained, which is then what is used where nobody
says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from ..joint.families import FAMILIES, get_family, vary, with_size, with_text_length
from ..joint.streams import Family
from ..joint.variants import CHOICES, SHARED, Variant
from .expert_names import expert_names

FAMILY, VARIANT, TEXT_LENGTH, SIZE = "family", "variant", "text_length", "size"


def layer_metadata(family: Family) -> dict[str, str]:
    """What the metadata of a family's layer file must say; nothing for published adapters of the published size, whose
    names say it all."""
    says = {} if family.file_adapters else {FAMILY: family.name}
    if family.variant != Variant():
        says |= {FAMILY: family.name, VARIANT: json.dumps(family.variant.changes())}
    published = get_family(family.name)
    if with_size(family, published.frames, published.height, published.width) != family:
        says[SIZE] = f"{family.frames}x{family.height}x{family.width}"
    for text in family.texts:
        if family.stream(text).tokens != get_family(family.name).stream(text).tokens:
            says[TEXT_LENGTH] = str(family.stream(text).tokens.length)
    return says


def family_of(adapters: set[str], metadata: Mapping[str, str], name: str) -> Family | None:
    """The family whose file holds exactly these adapters and says this of itself, None when there is no such family.

    `name` stands for the file in errors. Raises ValueError for a variant without its family, or one that is unknown or
    does not fit these adapters."""
    if VARIANT not in metadata:
        if adapters == {SHARED}:
            raise ValueError(f"'{name}' holds one adapter for all layers, but its metadata does not say of which "
                             f"'{FAMILY}' and '{VARIANT}': use the file as its training wrote it.")
        found = next((family for family in FAMILIES.values() if adapters == set(family.file_adapters)), None)
        return found and _sized(found, metadata, name)
    family = _sized(_read_variant(metadata, name), metadata, name)
    if adapters != set(family.file_adapters):
        raise ValueError(f"'{name}' says it is the {family.name} family with {family.variant}, whose adapters are "
                         f"{', '.join(family.file_adapters)}, but it holds {', '.join(sorted(adapters))}: use the file "
                         "as its training wrote it.")
    return family


def family_of_parts(keys: Iterable[str], metadata: Mapping[str, str], name: str) -> Family | None:
    """The family that some of these keys, in the published layout, are parts of its own, as the variant that the
    metadata says; None when there is none. Raises ValueError for metadata that do not fit."""
    keys = list(keys)
    family = next((family for family in FAMILIES.values() if expert_names(keys, family.name)), None)
    if family is None:
        return None
    if metadata.get(FAMILY, family.name) != family.name:
        raise ValueError(f"'{name}' says it is the {metadata[FAMILY]} family, but holds parts of the {family.name} "
                         "family: use the file as it was written.")
    if VARIANT in metadata:
        family = _read_variant({FAMILY: family.name} | metadata, name)
    family = _sized(family, metadata, name)
    length = metadata.get(TEXT_LENGTH, "")
    if length and not (length.isdecimal() and int(length)):
        raise ValueError(f"'{name}' says that its texts are of {length} tokens: use the file as it was written.")
    return with_text_length(family, int(length)) if length else family


def _sized(family: Family, metadata: Mapping[str, str], name: str) -> Family:
    """The family with the size that the metadata say, where they do."""
    if SIZE not in metadata:
        return family
    numbers = metadata[SIZE].split("x")
    if len(numbers) != 3 or not all(number.isdecimal() and int(number) for number in numbers):
        raise ValueError(f"'{name}' says that it was trained on clips of {metadata[SIZE]}, but FRAMESxHEIGHTxWIDTH is "
                         "wanted there: use the file as it was written.")
    return with_size(family, *map(int, numbers))


def _read_variant(metadata: Mapping[str, str], name: str) -> Family:
    text = metadata[VARIANT]
    try:
        variant = Variant(**json.loads(text))
    except (json.JSONDecodeError, TypeError):  # no JSON, no object, or a choice that there is not
        raise ValueError(f"'{name}' gives its variant as {text}, but this Strata knows a JSON object of "
                         f"{', '.join(CHOICES)}: update Strata.") from None
    except ValueError as error:
        raise ValueError(f"'{name}' cannot be run: {error}") from None
    if metadata.get(FAMILY) not in FAMILIES:
        raise ValueError(f"'{name}' holds a variant ({variant}) of the family {metadata.get(FAMILY)!r}, but the "
                         f"families are {', '.join(FAMILIES)}: use the file as its training wrote it.")
    try:
        return vary(get_family(metadata[FAMILY]), variant)
    except ValueError as error:
        raise ValueError(f"'{name}' cannot be run: {error}") from None

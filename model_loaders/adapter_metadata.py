"""Which family, and which variant of it, an adapter file holds: by its adapters' names and its safetensors metadata.

A published file needs no metadata. A variant's names its family and, as a JSON object, what is not as published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..joint.families import FAMILIES, get_family, vary
from ..joint.streams import Family
from ..joint.variants import CHOICES, SHARED, Variant

FAMILY, VARIANT = "family", "variant"


def adapter_metadata(family: Family) -> dict[str, str]:
    """What the metadata of a family's adapter file must say; nothing for a published family, whose adapters' names say
    it all."""
    if family.variant == Variant():
        return {}
    return {FAMILY: family.name, VARIANT: json.dumps(family.variant.changes())}


def family_of(adapters: set[str], metadata: Mapping[str, str], name: str) -> Family | None:
    """The family whose file holds exactly these adapters and says this of itself, None when there is no such family.

    `name` stands for the file in errors. Raises ValueError for a variant without its family, or one that is unknown or
    does not fit these adapters."""
    if VARIANT not in metadata:
        if adapters == {SHARED}:
            raise ValueError(f"'{name}' holds one adapter for all layers, but its metadata does not say of which "
                             f"'{FAMILY}' and '{VARIANT}': use the file as its training wrote it.")
        return next((family for family in FAMILIES.values() if adapters == set(family.file_adapters)), None)
    variant = _read_variant(metadata[VARIANT], name)
    if metadata.get(FAMILY) not in FAMILIES:
        raise ValueError(f"'{name}' holds a variant ({variant}) of the family {metadata.get(FAMILY)!r}, but the "
                         f"families are {', '.join(FAMILIES)}: use the file as its training wrote it.")
    family = vary(get_family(metadata[FAMILY]), variant)
    if adapters != set(family.file_adapters):
        raise ValueError(f"'{name}' says it is the {family.name} family with {variant}, whose adapters are "
                         f"{', '.join(family.file_adapters)}, but it holds {', '.join(sorted(adapters))}: use the file "
                         "as its training wrote it.")
    return family


def _read_variant(text: str, name: str) -> Variant:
    try:
        return Variant(**json.loads(text))
    except (json.JSONDecodeError, TypeError):  # no JSON, no object, or a choice that there is not
        raise ValueError(f"'{name}' gives its variant as {text}, but this Strata knows a JSON object of "
                         f"{', '.join(CHOICES)}: update Strata.") from None
    except ValueError as error:
        raise ValueError(f"'{name}' cannot be run: {error}") from None

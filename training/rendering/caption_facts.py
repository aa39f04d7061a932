"""A caption back into the facts that it states: `captions.caption` undone, also for what a network made of it."""

import re

from .captions import CAMERAS, COLOURS, KINDS, MOTIONS, PLACES, TEXTURES, TINTS, Facts, LightFact, ObjectFact, words


def _one_of(texts) -> str:
    return f"({'|'.join(sorted(texts, key=len, reverse=True))})"  # the longest first, or a shorter beginning would win


_TEXTURE, _COLOUR = f"(?:{_one_of(TEXTURES[1:])} )?", _one_of(COLOURS)
_LOOK = f"(?:{_TEXTURE}{_COLOUR} )?"
# Each stands for itself, so that a sentence which breaks off or goes astray still has the facts it did state.
_OBJECT = re.compile(rf"\b{_LOOK}{_one_of(KINDS)}\b(?: with an? {_LOOK}shirt\b)?(?: {_one_of(MOTIONS)}\b)?")
_PLACE = re.compile(rf"\bin an? {_one_of(PLACES)}\b")
_GROUND = re.compile(rf"\b{_TEXTURE}{_COLOUR} ground\b")
_WALL = re.compile(rf"\b{_COLOUR} (?:walls|backdrop)\b")
_LIGHT = re.compile(rf"(\bmoving )?\b(?:{_one_of(TINTS)} )?(sun|lamp)\b")
_CAMERA = re.compile(rf"\bcamera {_one_of(CAMERAS)}\b")


def caption_facts(text: str) -> Facts:
    """The facts that a text states, in its order. Never raises: what it does not state is "" or an empty tuple, and
    what is no fact is passed over.

    Objects are numbered from 1, since a caption does not tell ids. An object with a colour and no texture is "plain".
    Of place, ground, wall and camera the first counts. For the caption of `Facts` the same facts come back, but for the
    ids.
    """
    text = " ".join(words(text))
    place, wall, camera = (_first(pattern, text)[0] for pattern in (_PLACE, _WALL, _CAMERA))
    ground_texture, ground = _first(_GROUND, text)
    objects = [_object(number, *match.groups("")) for number, match in enumerate(_OBJECT.finditer(text), start=1)]
    lights = [LightFact(kind, tint, bool(moving)) for moving, tint, kind in
              (match.groups("") for match in _LIGHT.finditer(text))]
    return Facts(tuple(objects), place, ground, ground_texture or (ground and "plain"), wall, tuple(lights), camera)


def _object(number: int, texture: str, colour: str, kind: str, shirt_texture: str, shirt: str,
            motion: str) -> ObjectFact:
    colour, texture = colour or shirt, texture or shirt_texture
    return ObjectFact(number, kind, colour, texture or (colour and "plain"), motion)


def _first(pattern: re.Pattern, text: str) -> tuple[str, ...]:
    match = pattern.search(text)
    return match.groups("") if match else ("",) * pattern.groups

"""The facts of a scene, and the sentence made from them.

The vocabulary is closed: every word of every caption stands in `VOCABULARY`, so that a caption can be scored word for
word against the facts.
"""

from dataclasses import dataclass, replace

from .figures import ACTIONS

# sRGB-encoded; a scene varies them a little
COLOURS = {
    "red": (0.78, 0.16, 0.14), "orange": (0.92, 0.50, 0.14), "yellow": (0.93, 0.80, 0.24),
    "green": (0.24, 0.58, 0.26), "teal": (0.14, 0.56, 0.56), "blue": (0.18, 0.34, 0.76),
    "purple": (0.50, 0.26, 0.64), "pink": (0.92, 0.54, 0.64), "brown": (0.48, 0.32, 0.20),
    "white": (0.90, 0.89, 0.87), "grey": (0.55, 0.55, 0.56), "black": (0.16, 0.16, 0.17),
}  # fmt: skip
TEXTURES = ("plain", "checkered", "striped", "marbled")  # by pattern number
KINDS = ("person", "ball", "box", "pillar", "capsule", "tree", "table")
MOTIONS = (
    *ACTIONS, "stays still", "slides to the left", "slides to the right", "rolls to the left", "rolls to the right",
    "bounces", "spins", "floats up and down", "sways",
)  # fmt: skip
PLACES = ("room", "studio", "field")
TINTS = ("warm", "white", "cool", "red", "green", "blue", "purple")
CAMERAS = (
    "stays still", "pans to the left", "pans to the right", "orbits to the left", "orbits to the right",
    "moves forward", "moves back", "rises", "sinks", "shakes",
)  # fmt: skip


@dataclass(frozen=True)
class ObjectFact:
    """One object: its segmentation id, kind, colour and texture (of a person: the shirt's), motion."""

    id: int
    kind: str
    colour: str
    texture: str
    motion: str


@dataclass(frozen=True)
class LightFact:
    """One light besides the dome: kind "sun" or "lamp"."""

    kind: str
    tint: str
    moves: bool


@dataclass(frozen=True)
class Facts:
    """What is true of a shot, and all that its caption says."""

    objects: tuple[ObjectFact, ...]
    place: str
    ground: str  # colour
    ground_texture: str
    wall: str  # colour of walls or backdrop; "" in a field
    lights: tuple[LightFact, ...]
    camera: str

    def seen(self, ids: set[int]) -> "Facts":
        """The facts without the objects that are not among ids."""
        return replace(self, objects=tuple(fact for fact in self.objects if fact.id in ids))


def caption(facts: Facts) -> str:
    """English sentences: who does what where, the light, the camera. Every fact appears exactly once."""
    where = {
        "room": f"in a room with {{}} and {facts.wall} walls",
        "studio": f"in a studio with {{}} and {_article(f'{facts.wall} backdrop')}",
        "field": "in a field with {}",
    }[facts.place].format(_article(f"{_texture(facts.ground_texture)}{facts.ground} ground"))
    doings = [f"{_article(_name(fact))} {fact.motion}" for fact in facts.objects]
    scene = f"{_listed(doings)} {where}" if doings else f"nothing is seen {where}"
    lights = _listed([_light(fact) for fact in facts.lights])
    verb = "lights" if len(facts.lights) == 1 else "light"
    sentences = (scene, f"{lights} {verb} the scene", f"the camera {facts.camera}")
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences)


def summary(facts: Facts) -> str:
    """What is seen, in one short sentence: the objects without textures and motions, and the place. It is what a prompt
    may say where the caption says all."""
    things = [_article(fact.kind if fact.kind == "person" else f"{fact.colour} {fact.kind}") for fact in facts.objects]
    text = f"{_listed(things) if things else 'nothing is seen'} in a {facts.place}"
    return f"{text[0].upper()}{text[1:]}."


def words(text: str) -> list[str]:
    """The words of a caption: lower case, no punctuation."""
    return text.lower().replace(",", " ").replace(".", " ").split()


def _name(fact: ObjectFact) -> str:
    if fact.kind == "person":
        return f"person with {_article(f'{_texture(fact.texture)}{fact.colour}')} shirt"
    return f"{_texture(fact.texture)}{fact.colour} {fact.kind}"


def _light(fact: LightFact) -> str:
    return _article(f"{'moving ' if fact.moves else ''}{fact.tint} {fact.kind}")


def _texture(texture: str) -> str:
    return "" if texture == "plain" else f"{texture} "


def _article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


_GLUE = "a an and in with ground walls backdrop shirt nothing is seen moving sun lamp light lights the scene camera"
VOCABULARY = tuple(
    sorted({word for text in (*COLOURS, *TEXTURES[1:], *KINDS, *MOTIONS, *PLACES, *TINTS, *CAMERAS, _GLUE)
            for word in text.split()})
)  # fmt: skip

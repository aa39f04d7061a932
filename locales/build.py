"""Writes what ComfyUI shows of our nodes in each language: LANGUAGE/nodeDefs.json.

    python locales/build.py http://127.0.0.1:8188

A running ComfyUI with Strata in it says what every node is called and explains; that is the English. The Chinese of
each of its texts stands in zh.json, once, where `{}` is a word that stays as it is: a layer's name, a number.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
OURS = "Strata"  # how the ids of our nodes begin
LANGUAGES = ("en", "zh")
SHOWN = ("display_name", "description", "tooltip")  # what is translated; names of sockets are words of the trade


def node_texts(object_info: dict) -> dict[str, dict]:
    """nodeDefs.json in English: what a server says of our nodes at /object_info, as the page looks it up."""
    texts = {}
    for name, node in sorted(object_info.items()):
        if name.startswith(OURS):
            outputs = zip(node["output_name"], node["output_tooltips"] or [None] * len(node["output_name"]))
            texts[name] = {"display_name": node["display_name"], "description": node["description"],
                           "inputs": dict(_inputs(node["input"])),
                           "outputs": {str(i): _socket(*output) for i, output in enumerate(outputs)}}
    return texts


def _inputs(kinds: dict, before: str = "") -> Iterator[tuple[str, dict]]:
    """The inputs of a node and of each of its choices, by the key under which the page looks for them."""
    for kind in ("required", "optional"):
        for name, (_, *more) in kinds.get(kind, {}).items():
            about = more[0] if more else {}
            yield f"{before}{name}".replace(".", "_"), _socket(name, about.get("tooltip"))
            for option in about.get("options") or ():
                if isinstance(option, dict) and "inputs" in option:
                    yield from _inputs(option["inputs"], f"{before}{name}.")


def _socket(name: str, tooltip: str | None) -> dict[str, str]:
    return {"name": name} | ({"tooltip": tooltip} if tooltip else {})


def translated(texts: dict, translate: Callable[[str], str]) -> dict:
    """The same with every shown text put through `translate`."""
    return {key: translated(value, translate) if isinstance(value, dict) else
            translate(value) if key in SHOWN else value for key, value in texts.items()}


class Words:
    """English texts in another language. Raises KeyError for one that is not there."""

    def __init__(self, texts: dict[str, str]):
        self.texts = {text: said for text, said in texts.items() if "{}" not in text}
        self.patterns = [(re.compile(re.escape(text).replace(r"\{\}", r"(\w+)") + r"\Z"), said)
                         for text, said in texts.items() if "{}" in text]

    def __call__(self, text: str) -> str:
        if text in self.texts:
            return self.texts[text]
        for pattern, said in self.patterns:
            if match := pattern.match(text):
                return said.format(*match.groups())
        raise KeyError(f"zh.json lacks: {text}")


def build(object_info: dict) -> dict[str, dict]:
    """nodeDefs.json by language."""
    english = node_texts(object_info)
    words = Words(json.loads((HERE / "zh.json").read_text("utf-8")))
    return {"en": english, "zh": translated(english, words)}


if __name__ == "__main__":
    with urllib.request.urlopen(f"{sys.argv[1].rstrip('/')}/object_info") as answer:
        for language, texts in build(json.load(answer)).items():
            path = HERE / language / "nodeDefs.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n", "utf-8")

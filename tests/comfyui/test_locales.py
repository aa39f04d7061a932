"""What ComfyUI shows of our nodes in English and Chinese."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

LOCALES = Path(__file__).parents[2] / "locales"


@pytest.fixture(scope="module")
def build():
    sys.path.insert(0, str(LOCALES))
    try:
        import build as module
    finally:
        sys.path.remove(str(LOCALES))
    yield module
    del sys.modules["build"]  # workflows/ has a script of that name, too


def stored(language: str) -> dict:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text("utf-8"))


def test_files_are_what_build_writes(comfy, build):
    """`python locales/build.py URL` writes them; a text without its Chinese stops it."""
    for language, texts in build.build(comfy.object_info).items():
        assert texts == stored(language), f"{language}: run locales/build.py again"


def test_no_chinese_is_left_over(comfy, build):
    english = json.dumps(stored("en"), ensure_ascii=False)
    words = build.Words(json.loads((LOCALES / "zh.json").read_text("utf-8")))
    assert not [text for text in words.texts if json.dumps(text, ensure_ascii=False)[1:-1] not in english]


def test_the_server_hands_them_to_the_page(comfy):
    answer = comfy.get("/i18n")
    for language in ("en", "zh"):
        ours = {name: texts for name, texts in answer[language]["nodeDefs"].items() if name.startswith("Strata")}
        assert ours == stored(language)
    assert answer["zh"]["nodeDefs"]["StrataLoadLayers"]["display_name"] == "Strata 载入图层"

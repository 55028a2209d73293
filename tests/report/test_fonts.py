"""Fonts: text of any script is drawn, without a warning and as it is written."""

import logging
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lib.report import fonts

SENTENCES = {
    "Chinese": "一只棕色的狗在雪地里奔跑，漢字",
    "Japanese": "犬が雪の中を走っているボール",
    "Korean": "강아지가 눈 위를 달린다",
    "Hindi": "कुत्ता बर्फ में दौड़ रहा है",
    "Arabic": "كلب يركض مَرْحَبًا",
    "Thai": "สุนัขวิ่งในหิมะ น้ำ",
    "Hebrew": "שָׁלוֹם כלב",
    "Tamil": "நாய் பனியில் ஓடுகிறது",
    "Burmese": "ကျွန်တော် ခွေး",
    "Khmer": "ឆ្កែរត់",
    "Greek and Cyrillic": "Ένα σκυλί, собака",
    "emoji": "a dog 🐕 ❤ 😀",
}


@pytest.fixture
def style():
    with matplotlib.rc_context():
        yield


@pytest.fixture
def packages():
    for package in fonts.PACKAGES:
        pytest.importorskip(package, reason="the project's font packages are not installed")


def drawn(title: str, **options) -> tuple[np.ndarray, list[str]]:
    """A bold title's pixels, and what was warned of."""
    figure = Figure(figsize=(5, 1))
    axes = figure.subplots()
    axes.axis("off")
    axes.set_title(title, fontweight="bold", y=0.2, **options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba()), [str(warning.message) for warning in said]


@pytest.mark.parametrize("script", SENTENCES)
def test_every_script_is_drawn_without_a_word(script, style, packages, caplog):
    fonts.draw_any_text()
    with caplog.at_level(logging.WARNING):
        _, said = drawn(SENTENCES[script])
    assert said == [] and caplog.messages == []


def test_without_the_fonts_glyphs_are_missing(style):
    matplotlib.rcParams["font.family"] = ["DejaVu Sans"]
    assert any("missing" in line for line in drawn(SENTENCES["Chinese"])[1])


def test_a_family_of_its_own_falls_back_too(style, packages):
    mono = ["DejaVu Sans Mono", *fonts.draw_any_text()]
    assert drawn(SENTENCES["Chinese"], family=mono)[1] == []


def test_dollars_are_money(style):
    fonts.draw_any_text()
    for text in ("$5 now, $9 before", "only $$"):
        assert np.array_equal(drawn(text)[0], drawn(text, parse_math=False)[0])


def test_english_looks_as_before(style):
    matplotlib.rcParams["font.family"] = ["DejaVu Sans"]
    before, _ = drawn("A dog runs: 3.5 − 2")
    fonts.draw_any_text()
    assert np.array_equal(before, drawn("A dog runs: 3.5 − 2")[0])


def test_fonts_are_registered_once(style):
    assert fonts.draw_any_text() == fonts.draw_any_text()
    before = len(fonts.fontManager.ttflist)
    fonts.draw_any_text()
    assert len(fonts.fontManager.ttflist) == before


def test_families_are_looked_up_once(style, packages, monkeypatch):
    fonts.draw_any_text()
    drawn("a dog")
    looked_up = []
    monkeypatch.setattr(fonts.fontManager, "findfont", lambda *asked, **how: looked_up.append(asked))
    drawn("a dog and a cat")
    assert looked_up == []

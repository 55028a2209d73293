"""Figures: what is laid out by hand, and what cannot be drawn as it is."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from lib.report import plots
from lib.report.fonts import draw_any_text
from lib.report.plots import NEUTRAL, _token_lines


@pytest.fixture
def pictures(tmp_path):
    """A good picture, one cut short, a web page, an empty file, and one that is missing."""
    good, cut, page, empty = (tmp_path / name for name in ("good.jpg", "cut.jpg", "page.jpg", "empty.jpg"))
    Image.effect_noise((40, 30), 80).save(good)
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    page.write_text("<!DOCTYPE html><html></html>")
    empty.touch()
    yield [good, cut, page, empty, None]
    plt.close("all")


def said(figure: plt.Figure) -> int:
    return sum(text.get_text() == "no picture" for axes in figure.axes for text in axes.texts)


def test_broken_pictures_are_shown_as_missing_wherever_pictures_are(pictures):
    with plt.rc_context():
        draw_any_text()
        assert said(plots.pictures([[(picture, "it costs $5, was $9", NEUTRAL) for picture in pictures]])) == 4
        assert said(plots.attention_maps([(picture, ["$$"], np.ones((1, 4))) for picture in pictures])) == 4
        ranked = [plots.ranked_captions(picture, [("only $$", 0.5, NEUTRAL)]) for picture in pictures]
        assert [said(figure) for figure in ranked] == [0, 1, 1, 1, 1]
        for figure in map(plt.figure, plt.get_fignums()):
            figure.canvas.draw()


def test_a_table_is_shown_as_it_is_written(monkeypatch):
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    monkeypatch.setattr(plots, "get_ipython", lambda: shell)
    with plt.rc_context(), pd.option_context("display.max_colwidth", 50):
        plots.style()
        shown = [shell.display_formatter.format(pd.DataFrame({"text": [text]}))[0]["text/html"]
                 for text in ("$5 now, $9 before", "a < b")]  # fmt: skip
    assert "mathjax_ignore" in shown[0] and "$5 now, $9 before" in shown[0]
    assert "mathjax_ignore" not in shown[1] and "a &lt; b" in shown[1]


def test_long_sentences_take_several_lines_and_lose_no_token():
    tokens, values = [f"token{i}" for i in range(40)], [i / 40 for i in range(40)]
    lines = _token_lines(tokens, values, ["O"] * 40)
    assert len(lines) > 1 and [token for line in lines for _, token, *_ in line] == tokens
    assert all(0 < x < 1.05 for line in lines for x, *_ in line)
    assert (lines[0][0][2], lines[-1][-1][2]) == (0, pytest.approx(1))  # shades span the whole sentence, not a line


def test_a_token_wider_than_a_line_stands_alone():
    lines = _token_lines(["a", "b" * 200, "c"], [1, 1, 1], ["O"] * 3)
    assert [[token[0] for _, token, *_ in line] for line in lines] == [["a"], ["b"], ["c"]]


def test_a_figure_is_drawn_once_until_it_is_changed(monkeypatch):
    figure, axes = plt.subplots()
    first = plots.as_png(figure)
    assert first.startswith(b"\x89PNG")
    with monkeypatch.context() as patch:
        patch.setattr(figure, "savefig", lambda *args, **options: pytest.fail("drawn again"))
        assert plots.as_png(figure) is first
    axes.set_title("something else")
    assert plots.as_png(figure) != first

"""Figures: what is laid out by hand."""

import pytest

from lib.report.plots import _token_lines


def test_long_sentences_take_several_lines_and_lose_no_token():
    tokens, values = [f"token{i}" for i in range(40)], [i / 40 for i in range(40)]
    lines = _token_lines(tokens, values, ["O"] * 40)
    assert len(lines) > 1 and [token for line in lines for _, token, *_ in line] == tokens
    assert all(0 < x < 1.05 for line in lines for x, *_ in line)
    assert (lines[0][0][2], lines[-1][-1][2]) == (0, pytest.approx(1))  # shades span the whole sentence, not a line


def test_a_token_wider_than_a_line_stands_alone():
    lines = _token_lines(["a", "b" * 200, "c"], [1, 1, 1], ["O"] * 3)
    assert [[token[0] for _, token, *_ in line] for line in lines] == [["a"], ["b"], ["c"]]

"""The notebooks' cells, one after the other, on somebody's own data: any language, dollars, few and broken pictures."""

import contextlib
import io
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from lib.report import pages
from lib.run import experiment
from lib.setup import ROOT
from tests import album
from tests.tasks import test_keyphrases, test_products


def in_chinese(file: Path, *words: tuple[str, str]) -> None:
    text = file.read_text("utf-8")
    for word, other in words:
        text = text.replace(word, other)
    file.write_text(text, "utf-8")


def write_posts(folder: Path) -> None:
    test_keyphrases.write_corpus(folder)
    for file in folder.glob("*_src.txt"):
        in_chinese(file, ("Look at", "快看 $5 $"), ("blue sea", "蓝 海"))
    (folder / "images/green.png").write_bytes(b"<!DOCTYPE html>")


def write_album(folder: Path) -> None:
    album.write_album(folder)
    in_chinese(folder / "Flickr8k.token.txt", ("all of it is", "只有 $$ | ist"))
    for i in range(3):
        (folder / f"images/test{i}.png").write_bytes(b"" if i else b"<!DOCTYPE html>")


def write_shop(folder: Path) -> None:
    test_products.write_shop(folder)
    in_chinese(folder / "items.tsv", ("green boot", "绿 $ 靴 $"))
    (folder / "images/4.png").write_bytes(b"<!DOCTYPE html>")


OWN = {
    "cmkp": (write_posts, dict(dataset="tweets", attributes="file", image_size=64, batch_size=4)),
    "gxn": (write_album, dict(dataset="captions", batch_size=8)),
    "k3m": (write_shop, dict(dataset="k3m", image_size=64, batch_size=8)),
}


@pytest.mark.parametrize("paper", OWN)
def test_a_notebook_is_run_to_its_end(paper, tmp_path, monkeypatch):
    write, parameters = OWN[paper]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    parameters = parameters | {"data_dir": str(tmp_path / "data"), "epochs": 1}
    monkeypatch.setattr(pages.Report.__init__, "__defaults__", (tmp_path / "reports",))
    monkeypatch.setattr(experiment.ablate, "__defaults__", (None, tmp_path / "runs", lambda line: None))
    cells = parameterize_notebook(load_notebook_node(str(ROOT / "notebooks" / f"{paper}.ipynb")), parameters).cells
    named = {"In": [""] + [cell.source for cell in cells if cell.cell_type == "code"], "display": lambda *shown: None}
    with plt.rc_context(), pd.option_context("display.max_colwidth", 50), contextlib.redirect_stdout(io.StringIO()):
        for number, source in enumerate(named["In"]):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of bad pictures
                    exec(compile(source, f"{paper}, cell {number}", "exec"), named)
                    for figure in plt.get_fignums():
                        plt.figure(figure).canvas.draw()
            finally:
                plt.close("all")
    assert list((tmp_path / "reports").rglob("README.md"))

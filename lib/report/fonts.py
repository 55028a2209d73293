"""Fonts for every script: matplotlib's own knows neither Chinese, Japanese, Korean, Hindi nor Thai."""

from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import matplotlib
from matplotlib.font_manager import FontEntry, fontManager

PACKAGES = ("manimgx_fonts", "noto_cjk_sans_otc")  # Noto Sans for twenty scripts, and for Chinese, Japanese, Korean
CJK = "Noto Sans CJK SC"  # of the collection's ten faces, all with the same characters, the one in Chinese forms
SYSTEM = (CJK, "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Malgun Gothic")


def draw_any_text() -> list[str]:
    """From now on matplotlib draws text of any script, and "$" as it is written; returns the fonts it falls back on.

    Give them to a text with a family of its own: `family=["DejaVu Sans Mono", *draw_any_text()]`. Where the packages
    are missing, what the system has must do. Logarithmic axes need a plain formatter: their ticks are set as formulas.
    """
    fallbacks = list(dict.fromkeys([*_packaged(), *_system()]))
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", *fallbacks]
    matplotlib.rcParams["text.parse_math"] = False
    _look_up_once()
    return fallbacks


def _look_up_once() -> None:
    """Matplotlib looks up every family for every text it measures: with so many, half of the time of a figure."""
    look_up = getattr(fontManager, "_find_fonts_by_props", None)  # its own affair, so perhaps gone one day
    if look_up and not hasattr(look_up, "cache_info"):
        fontManager._find_fonts_by_props = lru_cache(1024)(look_up)


def _packaged() -> list[str]:
    """The families of the packages' upright fonts, registered at the first call."""
    folders = [Path(spec.origin).parent for spec in map(find_spec, PACKAGES) if spec]
    paths = [str(path) for folder in folders for path in sorted(folder.glob("*.tt[fc]")) if "Italic" not in path.name]
    known = {entry.fname for entry in fontManager.ttflist}
    for path in paths:
        if path not in known:
            _register(path)
    mine = [entry.name for entry in fontManager.ttflist if entry.fname in paths]
    return [name for name in mine if "CJK" not in name or name == CJK]


def _register(path: str) -> None:
    before = len(fontManager.ttflist)
    fontManager.addfont(path)
    entries: list[FontEntry] = fontManager.ttflist[before:]
    # One weight must do for bold text too, or each bold title logs a line a font that it finds no bold one.
    fontManager.ttflist += [replace(entry, weight=700) for entry in entries]


def _system() -> list[str]:
    installed = set(fontManager.get_font_names())
    return [family for family in SYSTEM if family in installed]

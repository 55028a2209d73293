"""Malformed data from the command line: one sentence with its place, an exit status, and nothing lost."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib import corpora
from lib.corpora import DataError
from lib.run.__main__ import _options, main

NAMES = ["a.jpg", "b.jpg", "c.jpg"]
RECORDS = [{"filename": name, "split": split, "sentences": [{"raw": f"a picture of {name}"}]}
           for name, split in zip(NAMES, ("train", "val", "test"), strict=True)]  # fmt: skip
POST = "IMGID:a\nParis\tB-LOC\nshines\tO\n\n"
ITEMS = "".join(f"{i}\tred shoe {i}\timages/a.jpg\tcolour#:#red#;#size#:#{i}\tShoes\n" for i in range(9))
FILES = {  # the files of a good folder of each form; pictures stand in images/
    "captions": {"Flickr8k.token.txt": "".join(f"{name}#0\ta picture of {name}\n" for name in NAMES),
                 **{f"Flickr_8k.{split}Images.txt": f"{name}\n"
                    for split, name in zip(("train", "dev", "test"), NAMES, strict=True)}},
    "karpathy": {"dataset_captions.json": json.dumps({"images": RECORDS})},
    "tagged": {f"{split}.txt": POST for split in ("train", "valid", "test")},
    "posts": {f"{split}_src.txt": "we saw a cat<sep>a cat;cats<sep>a.jpg\n" for split in ("train", "valid", "test")},
    "items": {"items.tsv": ITEMS},
}  # fmt: skip
ASKED = {  # what to run on which corpus
    "captions": ("vse", "sum", "captions"), "karpathy": ("gxn", "full", "captions"),
    "tagged": ("maf", "full", "conll-images"), "posts": ("cmkp", "full", "tweets", "--attributes", "none"),
    "items": ("k3m", "k3m", "k3m"),
}  # fmt: skip
BYTE = b"\xff\xfe\n"
# form -> (file, what is added to it or stands in its place, what is said of it); {root} is the folder
BROKEN = {
    "captions": [
        ("Flickr8k.token.txt", b"a.jpg#1 no tab\n", "token.txt:4: found no tab"),
        ("Flickr8k.token.txt", b"a.jpg\tno index\n", "token.txt:4: found 'a.jpg', expected name#k"),
        ("Flickr8k.token.txt", b"a.jpg#one\tx\n", "token.txt:4: found caption index 'one', expected a number"),
        ("Flickr8k.token.txt", b"a.jpg#0\tagain\n", "token.txt:4: found 'a.jpg#0' a second time"),
        ("Flickr8k.token.txt", BYTE, "token.txt:4: found byte 0xff, expected UTF-8 text"),
        ("Flickr_8k.trainImages.txt", b"z.jpg\n", "trainImages.txt:2: found 'z.jpg', expected a picture that has"),
        ("Flickr_8k.trainImages.txt", b"c.jpg\n", "testImages.txt:1: found 'c.jpg' a second time"),
        ("Flickr_8k.testImages.txt", None, "{root}: found no split list, expected a file"),
        ("Flickr_8k.testImages.txt", b"", "testImages.txt: found no picture, expected at least one"),
        ("Flickr8k.token.txt", None, "{root}: found no caption file, expected a Karpathy"),
        ("images", None, "{root}: found none of the pictures, expected them in images/"),
    ],
    "karpathy": [
        ("dataset_captions.json", b"]", "json:1: found Extra data at column"),
        ("dataset_captions.json", b"", "json:1: found Expecting value at column 1"),
        ("dataset_captions.json", "[" * 9999, "json: found what nobody can read"),
        ("dataset_captions.json", BYTE, "json:1: found byte 0xff"),
        ("dataset_captions.json", "[]", "json: found [], expected an object with 'images'"),
        ("dataset_captions.json", [RECORDS[0] | {"split": "dev"}], "json: image 0: found split 'dev', expected one of"),
        ("dataset_captions.json", [RECORDS[0] | {"filename": 3}], "json: image 0: found 'filename' 3, expected"),
        ("dataset_captions.json", [RECORDS[0] | {"sentences": None}], "json: image 0: found 'sentences' None"),
        ("dataset_captions.json", RECORDS + RECORDS[:1], "json: image 3: found 'a.jpg' a second time"),
        ("dataset_captions.json", RECORDS[:2], "json: split test: found no picture, expected at least one"),
        ("dataset_captions.json", [*RECORDS[:2], RECORDS[2] | {"filename": "../c.jpg"}], "json: image 2: found path"),
        ("dataset_captions.json", [*RECORDS[:2], RECORDS[2] | {"sentences": []}], "json: image 2: found no words for"),
    ],
    "tagged": [
        ("test.txt", b"IMGID:b\nParis\n", "test.txt:6: found no tag in 'Paris'"),
        ("test.txt", b"IMGID:b\n\tO\n", r"test.txt:6: found no token in '\tO'"),
        ("test.txt", b"IMGID:b\nParis\tLOC\n", "test.txt:6: found tag 'LOC' of 'Paris', expected O, B-type or I-type"),
        ("test.txt", b"IMGID:b\nParis\tNNP\tB-LOC\n", r"test.txt:6: found tag 'NNP\tB-LOC' of 'Paris'"),
        ("test.txt", b"Paris\tB-LOC\n", r"test.txt:5: found 'Paris\tB-LOC', expected IMGID: and an id"),
        ("test.txt", b"IMGID:\n", "test.txt:5: found 'IMGID:', expected IMGID: and one id"),
        ("test.txt", b"IMGID:b c\n", "test.txt:5: found 'IMGID:b c', expected IMGID: and one id"),
        ("test.txt", b"IMGID:../b\nParis\tO\n", "test.txt:5: found path 'images/../b.jpg', expected a path inside"),
        ("test.txt", BYTE, "test.txt:5: found byte 0xff, expected UTF-8 text"),
        ("valid.txt", b"", "valid.txt: found no post with tokens, expected at least one"),
        ("valid.txt", None, "{root}: found no valid.txt or dev.txt, expected a folder with"),
    ],
    "posts": [
        ("test_src.txt", b"no fields\n", "test_src.txt:2: found 1 fields in 'no fields'"),
        ("test_src.txt", b"a<sep>b\n", "test_src.txt:2: found 2 fields in"),
        ("test_src.txt", b"a<sep>b<sep>c<sep>d\n", "test_src.txt:2: found 4 fields in"),
        ("test_src.txt", b"a<sep>b<sep>../a.jpg\n", "test_src.txt:2: found path 'images/../a.jpg'"),
        ("test_src.txt", b"a<sep>b<sep>/a.jpg\n", "test_src.txt:2: found path '/a.jpg'"),
        ("test_src.txt", b"a<sep>b<sep>https://x/%2Fa.jpg\n", "test_src.txt:2: found path '/a.jpg'"),
        ("test_src.txt", BYTE, "test_src.txt:2: found byte 0xff, expected UTF-8 text"),
        ("test_src.txt", b"", "test_src.txt: found no post with keyphrases, expected at least one line"),
        ("valid_src.txt", None, "{root}: found no valid_src.txt, expected a folder with"),
        ("test_ocr_final.txt", "one\ntwo\nthree\n", "test_ocr_final.txt: found 3 lines, expected 1, one for each"),
        ("test_attribute_cleaned.txt", BYTE, "test_attribute_cleaned.txt:1: found byte 0xff, expected UTF-8 text"),
    ],
    "items": [
        ("items.tsv", b"9\tthree\tfields\n", "items.tsv:10: found 3 fields, expected 5"),
        ("items.tsv", b"9\tt\t\t\tc\tmore\n", "items.tsv:10: found 6 fields, expected 5"),
        ("items.tsv", b"\tt\t\t\tc\n", "items.tsv:10: found no id, expected id"),
        ("items.tsv", b"9\tt\t\t\t\n", "items.tsv:10: found no category, expected id"),
        ("items.tsv", b"3\tt\t\t\tc\n", "items.tsv:10: found id '3' a second time"),
        ("items.tsv", b"9\tt\t\tsize\tc\n", "items.tsv:10: found property 'size', expected name#:#value"),
        ("items.tsv", b"9\tt\t\t#:#3\tc\n", "items.tsv:10: found property '#:#3', expected name#:#value"),
        ("items.tsv", b"9\tt\t../a.jpg\t\tc\n", "items.tsv:10: found path '../a.jpg', expected a path inside"),
        ("items.tsv", BYTE, "items.tsv:10: found byte 0xff, expected UTF-8 text"),
        ("items.tsv", b"9\tt\r0\t\t\tc\n", "items.tsv:10: found an unreadable line"),
        ("items.tsv", b"", "items.tsv: found no item, expected at least one"),
        ("items.tsv", None, "{root}: found no such file, expected items.tsv, or train.tsv"),
    ],
}  # fmt: skip


def write(root: Path, form: str) -> Path:
    (root / "images").mkdir(parents=True)
    for name in NAMES:
        Image.new("RGB", (4, 4)).save(root / "images" / name)
    for name, content in FILES[form].items():
        (root / name).write_text(content, encoding="utf-8")
    return root.resolve()


def spoil(path: Path, content) -> None:
    """Take away; cut to nothing, replace by a text or by records, or add bytes."""
    if content is None:
        path.rename(path.with_name(f".{path.name}"))
    elif isinstance(content, list):
        path.write_text(json.dumps({"images": content}), encoding="utf-8")
    elif content == b"" or isinstance(content, str):
        path.write_text(content or "", encoding="utf-8")
    else:
        path.write_bytes((path.read_bytes() if path.exists() else b"") + content)


def everything(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
@pytest.mark.parametrize("form", FILES)
def test_bad_data_end_a_run_with_a_sentence(form, tmp_path, capsys):
    paper, variant, dataset, *more = ASKED[form]
    corpora.load(dataset, write(tmp_path / "good", form))
    assert len(BROKEN[form]) >= 10
    for i, (name, content, said) in enumerate(BROKEN[form]):
        root = write(tmp_path / str(i), form)
        spoil(root / name, content)
        before = everything(root)
        settings = ["--dataset", dataset, "--data_dir", str(root), "--folder", str(tmp_path / "runs"), *more]
        assert main([paper, variant, "0", *settings]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(str(root)) and said.format(root=root) in line and ", expected " in line
        assert everything(root) == before and not (tmp_path / "runs").exists()


SETTINGS = [
    ("--train_limit", "0", "train_limit is 0, expected at least 1"),
    ("--train_limit", "-3", "train_limit is -3, expected at least 1"),
    ("--train_limit", "2.5", "train_limit is 2.5, expected a whole number or nothing"),
    ("--train_limit", "all", "train_limit is 'all', expected a whole number or nothing"),
    ("--train_limit", "true", "train_limit is True, expected a whole number or nothing"),
    ("--train_limit", "[3]", "train_limit is [3], expected a whole number or nothing"),
    ("--train_limit", "NaN", "train_limit is nan, expected a whole number or nothing"),
    ("--train_limit", "9" * 5000, "train_limit is '999"),
    ("--train_limit", "[" * 5000, "train_limit is '[[["),
    ("--dataset", "7", "dataset is 7, expected text"),
    ("--dataset", '"iconworld"', "corpus 'iconworld' "),
    ("--data_dir", "3", "data_dir is 3, expected text or nothing"),
    ("--datset", "iconworld-captions", "setting 'datset' is unknown, did you mean 'dataset'?"),
]


@pytest.mark.parametrize("form", ASKED)
def test_bad_settings_end_a_run_with_a_sentence(form, tmp_path, capsys):
    for name, value, said in SETTINGS:
        assert main([*ASKED[form][:2], "0", name, value, "--folder", str(tmp_path / "runs")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(said) and len(line) < 1500 and not (tmp_path / "runs").exists()


@given(st.lists(st.sampled_from(["--epochs", "--folder", "-", "--", "2", "[1]", "{", "1e999", '"a"']) | st.text()))
def test_any_words_behind_a_command_are_options_or_named(words):
    try:
        options = _options(words)
    except ValueError as error:
        assert str(error).startswith("found ") and "\n" not in str(error)
    else:
        assert {f"--{name}" for name in options} == set(words[::2])


@pytest.mark.parametrize("seed", ["-1", "1.5", "one", "", "9" * 5000, "../../x", "4294967296"])
def test_bad_seeds_end_a_run_with_a_sentence(seed, capsys):
    assert main(["vse", "sum", seed]) == 1
    assert re.match("seed is .*, expected a whole number from 0 on", capsys.readouterr().err)


def test_a_place_where_nothing_can_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["vse", "random", "0", "--train_limit", "20", "--folder", str(tmp_path / "file" / "runs")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file") in line


OPTIONS = [
    ({"limit": 0}, "limit: found 0, expected at least 1 training example"),
    ({"limit": "3"}, "limit: found '3', expected a whole number"),
    ({"limit": 2.5}, "limit: found 2.5, expected a whole number"),
    ({"limit": True}, "limit: found True, expected a whole number"),
    ({"train": 0}, "train: found 0, expected at least 1 example"),
    ({"dev": -1}, "dev: found -1, expected at least 1 example"),
    ({"test": [5]}, "test: found [5], expected a whole number"),
    ({"seed": "x"}, "seed: found 'x', expected a whole number"),
    ({"seed": 0.5}, "seed: found 0.5, expected a whole number"),
    ({"limt": 3}, "limt: found an option that this corpus does not know, expected one of dev, limit, seed, test"),
    ({"images": "x"}, "images: found an option that this corpus does not know, expected one of dev, limit"),
    ({"root": 3}, "root: found 3, expected a path"),
]


@pytest.mark.parametrize("name", [name for name in corpora.CORPORA if name.startswith("iconworld")])
def test_options_that_a_drawn_corpus_does_not_have(name):
    for options, said in OPTIONS:
        with pytest.raises(DataError, match=f"^{re.escape(said)}"):
            corpora.load(name, **options)


@pytest.mark.parametrize("name", ["captions", "conll-images", "tweets", "k3m"])
def test_what_is_no_folder_is_named(name, tmp_path):
    for root, said in [
        (3, "root: found 3, expected a path"), (["a"], "root: found ['a'], expected a path"),
        ("a\0b", r"root: found 'a\x00b' (embedded null byte), expected a path"),
        ("x" * 5000, "root: found 'xxx"), ("\ud800", r"root: found '\ud800' ("),
        ("~nobody-here/x", "root: found '~nobody-here/x', nobody's home, expected a path"),
        (str(tmp_path / "nothing"), f"{tmp_path / 'nothing'}: found no such folder, expected a folder with"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=f"^{re.escape(said)}"):
            corpora.load(name, root)
    for unknown in ("nothing", ["k3m"], None, 7):
        with pytest.raises(DataError, match=f"^corpus {re.escape(repr(unknown))} is unknown, expected one of captions"):
            corpora.load(unknown, tmp_path)

"""Flickr8k, Flickr30k and COCO: two file formats, one corpus; every bad line named."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lib import corpora
from lib.corpora import DataError
from lib.corpora.flickr import load

SPLITS = {"train": ["a.jpg", "b.jpg", "c.jpg"], "val": ["d.jpg"], "test": ["e.jpg"]}
NAMES = [name for names in SPLITS.values() for name in names]
CAPTIONS = {name: [f"{name} seen once .", f"{name} seen twice ."] for name in NAMES}

captions_of_five = st.lists(
    st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])), max_size=3).map(
        lambda c: [*c, "."]
    ),
    min_size=len(NAMES),
    max_size=len(NAMES),
).map(lambda captions: dict(zip(NAMES, captions, strict=True)))


def write_pictures(root: Path, folder: str = "images", names: list[str] = NAMES) -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for shade, name in enumerate(names):
        Image.new("RGB", (4, 4), (shade, 0, 0)).save(root / folder / name)
    return root


def write_official(
    root: Path, captions: dict = CAPTIONS, splits: dict = SPLITS, end: str = "\n", mark: str = ""
) -> Path:
    lines = [f"{name}#{k}\t{caption}" for name in captions for k, caption in enumerate(captions[name])]
    write_lines(root / "Flickr8k.token.txt", lines, end, mark)
    for split, list_name in zip(splits, ("train", "dev", "test"), strict=True):
        write_lines(root / f"Flickr_8k.{list_name}Images.txt", splits[split], end, mark)
    return root


def write_lines(path: Path, lines: list[str], end: str = "\n", mark: str = "") -> None:
    path.write_bytes((mark + end.join(lines)).encode())


def images(captions: dict = CAPTIONS, splits: dict = SPLITS) -> list[dict]:
    return [
        {
            "filename": name,
            "split": split,
            "imgid": 0,
            "sentences": [{"raw": raw, "tokens": []} for raw in captions[name]],
        }
        for split in splits
        for name in splits[split]
    ]


def write_karpathy(root: Path, records: object = None, name: str = "dataset_flickr8k.json") -> Path:
    (root / name).write_text(json.dumps({"images": images() if records is None else records}))
    return root


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return write_official(write_pictures(tmp_path / "official"))


@pytest.fixture
def karpathy(tmp_path: Path) -> Path:
    return write_karpathy(write_pictures(tmp_path / "karpathy"))


def ids(split) -> list[str]:
    return [example.id for example in split]


# Good folders


def test_the_official_files(official):
    corpus = corpora.load("flickr8k", official)
    assert (ids(corpus.train), ids(corpus.dev), ids(corpus.test)) == tuple(SPLITS.values())
    assert corpus.train[0].captions == ("a.jpg seen once .", "a.jpg seen twice .")
    assert corpora.open_picture(corpus.train[1].image).size == (4, 4)
    assert set(corpus.notes.values()) == {0}
    assert corpus.describe()["captions"].tolist() == [6, 2, 2]


def without_root(corpus, root: Path) -> list:
    splits = (corpus.train, corpus.dev, corpus.test)
    return [[(e.id, e.image.relative_to(root.resolve()), e.captions) for e in split] for split in splits]


def test_both_formats_give_equal_corpora(official, karpathy):
    a, b = load("flickr8k", official), load("flickr8k", karpathy)
    assert without_root(a, official) == without_root(b, karpathy)
    assert a.fingerprint == b.fingerprint and a.notes == b.notes


@settings(max_examples=30, deadline=None)
@given(captions_of_five)
def test_any_caption_reads_back_from_both_formats(tmp_path_factory, captions):
    root = tmp_path_factory.mktemp("round-trip")
    write_official(write_pictures(root), captions)
    read = load("flickr8k", root)
    expected = [tuple(filter(None, map(str.strip, captions[name]))) for name in NAMES]
    assert [e.captions for split in (read.train, read.dev, read.test) for e in split] == expected
    assert read.notes["empty captions"] == sum(not c.strip() for name in NAMES for c in captions[name])
    assert load("flickr8k", write_karpathy(root, images(captions))).fingerprint == read.fingerprint


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_windows_files_read_alike(official, tmp_path, end, mark):
    windows = write_official(write_pictures(tmp_path / "windows"), end=end, mark=mark)
    assert load("flickr8k", windows).fingerprint == load("flickr8k", official).fingerprint


def test_a_karpathy_file_with_a_byte_order_mark(karpathy):
    path = karpathy / "dataset_flickr8k.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert ids(load("flickr8k", karpathy).dev) == ["d.jpg"]


def test_captions_follow_their_index_and_blank_lines_are_nothing(official):
    path = official / "Flickr8k.token.txt"
    before = load("flickr8k", official)
    write_lines(path, ["", *reversed(path.read_text().splitlines()), "  ", ""])
    assert load("flickr8k", official) == before


def test_a_picture_name_may_hold_a_hash_and_a_caption_a_tab(official):
    name, captions = "a#1.jpg", ["one\tcaption"]
    write_official(official, CAPTIONS | {name: captions}, SPLITS | {"test": [name]})
    with pytest.warns(UserWarning, match="'a#1.jpg'"):
        corpus = load("flickr8k", official)
    assert (corpus.test[0].id, corpus.test[0].captions) == (name, ("one\tcaption",))


@pytest.mark.parametrize("folder", ["images", "Flicker8k_Dataset", "flickr30k-images", ".", "Images",
                                    "flickr30k_images", "flickr30k_images/flickr30k_images"])  # fmt: skip
def test_pictures_in_the_folders_of_the_official_archives(tmp_path, folder):
    corpus = load("flickr8k", write_official(write_pictures(tmp_path, folder)))
    assert corpus.test[0].image == tmp_path.resolve() / folder / "e.jpg"


@pytest.mark.parametrize("folder", ["images", "val2014", "images/val2014"])
def test_coco_pictures_with_and_without_their_filepath(tmp_path, folder):
    write_pictures(tmp_path, folder)
    write_karpathy(tmp_path, [image | {"filepath": "val2014"} for image in images()], "dataset_coco.json")
    assert load("coco", tmp_path).train[0].image == tmp_path.resolve() / folder / "a.jpg"


def test_the_same_name_in_several_folders_is_several_pictures(tmp_path):
    records = [image | {"filepath": split, "filename": "1.jpg"} for split, image in zip("abcde", images(), strict=True)]
    for folder in "abcd":
        write_pictures(tmp_path, f"images/{folder}", ["1.jpg"])
    with pytest.warns(UserWarning, match="1 of 5 pictures are missing, the first is 'e/1.jpg'"):
        corpus = load("captions", write_karpathy(tmp_path, records))
    found = [example.image for split in (corpus.train, corpus.dev, corpus.test) for example in split]
    assert found == [*(tmp_path.resolve() / "images" / folder / "1.jpg" for folder in "abcd"), None]
    with pytest.raises(DataError, match="image 5: found 'a/1.jpg' a second time .first: .*image 0., expected each"):
        load("captions", write_karpathy(tmp_path, [*records, records[0] | {"split": "test"}]))


def test_where_no_picture_is_there_it_stops(official):
    shutil.rmtree(official / "images")
    with pytest.raises(DataError, match=r"none of the pictures, expected them in images/, .*, \./, such as 'a.jpg'"):
        load("captions", official)


def test_half_a_character_is_named(karpathy):
    records = images()
    records[2]["sentences"][0]["raw"] = "half \ud83d"
    with pytest.raises(DataError, match="image 2: found 'raw' .* with half a character, expected whole ones"):
        load("captions", write_karpathy(karpathy, records))


def test_a_caption_index_of_thousands_of_digits_is_named(official):
    with open(official / "Flickr8k.token.txt", "a", encoding="utf-8") as file:
        file.write(f"\na.jpg#{'9' * 5000}\tendless")
    with pytest.raises(DataError, match=r"token.txt:\d+: found caption index '9+…, expected a number"):
        load("flickr8k", official)


def test_restval_belongs_to_train_in_the_order_of_the_file(karpathy):
    records = images()
    records[1]["split"] = "restval"
    assert ids(load("coco", write_karpathy(karpathy, records)).train) == SPLITS["train"]


def test_other_names_for_token_file_and_lists(tmp_path):
    write_official(write_pictures(tmp_path))
    (tmp_path / "Flickr8k.token.txt").rename(tmp_path / "results_20130124.token")
    for old, new in (("train", "f30k_train.txt"), ("dev", "f30k_val.txt"), ("test", "f30k_test.txt")):
        (tmp_path / f"Flickr_8k.{old}Images.txt").rename(tmp_path / new)
    assert ids(load("flickr30k", tmp_path).dev) == ["d.jpg"]


def test_the_lemmas_of_the_official_archive_are_not_the_captions(official):
    (official / "Flickr8k.lemma.token.txt").write_text("a.jpg#0\tlemma\n")
    assert load("flickr8k", official).train[0].captions[0] == "a.jpg seen once ."


def test_the_json_wins_over_token_files(official):
    write_karpathy(official, images(CAPTIONS | {"a.jpg": ["from the JSON"]}))
    assert load("flickr8k", official).train[0].captions == ("from the JSON",)


def test_of_several_jsons_the_one_named_after_the_corpus_is_read(karpathy):
    write_karpathy(karpathy, [], "dataset_coco.json")
    assert ids(load("flickr8k", karpathy).test) == ["e.jpg"]


def test_the_limit_keeps_the_first_of_train_only(official, karpathy):
    for root in (official, karpathy):
        corpus = load("flickr8k", root, limit=2)
        assert (ids(corpus.train), ids(corpus.dev), ids(corpus.test)) == (["a.jpg", "b.jpg"], ["d.jpg"], ["e.jpg"])
    assert load("flickr8k", official, limit=99) == load("flickr8k", official)


def test_missing_pictures_are_none_counted_and_warned_of_once(official):
    (official / "images/b.jpg").unlink()
    (official / "images/e.jpg").unlink()
    with pytest.warns(UserWarning, match="2 of 5 pictures are missing, the first is 'b.jpg'") as warned:
        corpus = load("flickr8k", official)
    assert corpus.train[1].image is None and corpus.notes["missing pictures"] == 2 and len(warned) == 1


def test_captions_of_pictures_in_no_split_are_counted(official):
    captions = CAPTIONS | {"a.jpg.1": ["a name that Flickr8k really has"], "z.jpg": ["one", "two"]}
    assert load("flickr8k", write_official(official, captions)).notes["pictures in no split"] == 2


def test_empty_captions_are_dropped_and_counted(official):
    corpus = load("flickr8k", write_official(official, CAPTIONS | {"d.jpg": ["", "a dog", "  "]}))
    assert corpus.dev[0].captions == ("a dog",) and corpus.notes["empty captions"] == 2


# The fingerprint


def test_a_moved_folder_keeps_its_fingerprint(official, tmp_path):
    before = load("flickr8k", official).fingerprint
    shutil.copytree(official, tmp_path / "moved")  # new time stamps too
    assert load("flickr8k", tmp_path / "moved").fingerprint == before


def change_caption(root: Path) -> None:
    write_official(root, CAPTIONS | {"c.jpg": ["c.jpg seen once .", "c.jpg seen thrice ."]})


def change_pixel(root: Path) -> None:
    with Image.open(root / "images/c.jpg") as image:
        image.putpixel((0, 0), (255, 255, 255))
        image.save(root / "images/c.jpg")


def change_split(root: Path) -> None:
    write_official(root, splits={"train": ["a.jpg", "b.jpg"], "val": ["c.jpg", "d.jpg"], "test": ["e.jpg"]})


def lose_picture(root: Path) -> None:
    (root / "images/c.jpg").unlink()


@pytest.mark.filterwarnings("ignore:.*pictures are missing")
@pytest.mark.parametrize("change", [change_caption, change_pixel, change_split, lose_picture])
def test_each_change_that_a_run_could_see_changes_the_fingerprint(official, change):
    before = load("flickr8k", official)
    first_two = load("flickr8k", official, limit=2)
    change(official)
    assert load("flickr8k", official).fingerprint != before.fingerprint
    if change is not change_split:  # c.jpg is beyond the limit
        assert load("flickr8k", official, limit=2).fingerprint == first_two.fingerprint


# Bad folders and files


@pytest.mark.parametrize("root", [None, "", "no/such/folder"])
def test_no_folder_says_which_files_it_expects(root):
    with pytest.raises(DataError, match=r"found no .*folder, expected .*dataset_\*\.json.*token.*trainImages.*images/"):
        corpora.load("flickr8k", root)


def test_a_folder_without_caption_files(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}: found no caption file, expected .*dataset_\*\.json"):
        load("flickr8k", write_pictures(tmp_path))


def test_two_jsons_and_none_named_after_the_corpus(karpathy):
    write_karpathy(karpathy, name="dataset_coco.json")
    with pytest.raises(DataError, match=r"found 2 files dataset_coco.json, dataset_flickr8k.json, expected only one"):
        load("flickr30k", karpathy)


def test_no_split_list(official):
    (official / "Flickr_8k.devImages.txt").unlink()
    with pytest.raises(
        DataError, match=r"found no split list, expected a file \*devImages.txt or .* Flickr8k.token.txt"
    ):
        load("flickr8k", official)


@pytest.mark.parametrize(
    "line, found",
    [
        (b"a.jpg#2 no tab here", "no tab in 'a.jpg#2 no tab here'"),
        (b"a.jpg\tno index", "'a.jpg', expected name#k"),
        (b"#2\tno name", "'#2', expected name#k"),
        (b"a.jpg#two\tindex in words", "caption index 'two', expected a number"),
        (b"a.jpg#\tindex forgotten", "caption index '', expected a number"),
        (b"a.jpg#-1\tindex below zero", "caption index '-1', expected a number"),
        (b"a.jpg#0\tindex taken", "'a.jpg#0' a second time, expected each caption once"),
        (b"a.jpg#2\tcaf\xe9", "byte 0xe9, expected UTF-8 text"),
    ],
)
def test_a_bad_token_line_is_named(official, line, found):
    path = official / "Flickr8k.token.txt"
    path.write_bytes(path.read_bytes() + b"\n\n" + line + b"\nb.jpg#7\ta good one\n")
    with pytest.raises(DataError) as error:
        load("flickr8k", official)
    assert str(error.value).startswith(f"{path.resolve()}:12: found {found}")


@pytest.mark.parametrize(
    "line, found",
    [
        ("z.jpg", "'z.jpg', expected a picture that has captions in Flickr8k.token.txt"),
        ("d.jpg", "'d.jpg' a second time (first: {root}/Flickr_8k.devImages.txt:1), expected each picture once"),
        ("e.jpg", "'e.jpg' a second time (first: {root}/Flickr_8k.testImages.txt:1), expected each picture once"),
        ("../out.jpg", "path 'images/../out.jpg', expected a path inside {root}"),
        ("/out.jpg", "path '/out.jpg', expected a path inside {root}"),
        ("link.jpg", "'images/link.jpg', a link to {root}.jpg, expected a file inside {root}"),
        ("silent.jpg", "no words for 'silent.jpg', expected at least one caption"),
    ],
)
def test_a_bad_list_line_is_named(official, line, found):
    official = official.resolve()
    (official / "images/link.jpg").symlink_to(shutil.copy(official / "images/a.jpg", f"{official}.jpg"))
    extra = {name: ["a caption"] for name in ("../out.jpg", "/out.jpg", "link.jpg")} | {"silent.jpg": [""]}
    write_official(official, CAPTIONS | extra, SPLITS | {"test": ["e.jpg", line]})
    with pytest.raises(DataError) as error:
        load("flickr8k", official)
    place = f"{official}/Flickr_8k.testImages.txt:2: found "
    assert str(error.value).startswith(place + found.format(root=official))


@pytest.mark.parametrize("split, list_name", [("train", "train"), ("val", "dev"), ("test", "test")])
def test_an_empty_split(official, karpathy, split, list_name):
    write_official(official, splits=SPLITS | {split: []})
    with pytest.raises(DataError, match=f"{list_name}Images.txt: found no picture, expected at least one"):
        load("flickr8k", official)
    write_karpathy(karpathy, images(splits=SPLITS | {split: []}))
    with pytest.raises(DataError, match=f"json: split {list_name}: found no picture, expected at least one"):
        load("flickr8k", karpathy)


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"images":\n [}', ":2: found Expecting value at column 3, expected valid JSON"),
        (b"", ":1: found Expecting value at column 1, expected valid JSON"),
        (b'{\n"images": "\xff"}', ":2: found byte 0xff, expected UTF-8 text"),
        (b"[]", ": found [], expected an object with 'images'"),
        (b"{}", ": found no 'images', expected 'images' as a list"),
        (b'{"images": {}}', ": found 'images' {}, expected 'images' as a list"),
        (b'{"images": []}', ": split train: found no picture"),
        (b'{"images": [7]}', ": image 0: found 7, expected an object with 'split'"),
    ],
)
def test_a_bad_json_file_is_named(karpathy, content, message):
    path = karpathy / "dataset_flickr8k.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        load("flickr8k", karpathy)
    assert str(error.value).startswith(f"{path.resolve()}{message}")


@pytest.mark.parametrize(
    "change, found",
    [
        ({"split": None}, "'split' None, expected 'split' as a str"),
        ({"split": "dev"}, "split 'dev', expected one of train, restval, val, test"),
        ({"filename": 3}, "'filename' 3, expected 'filename' as a str"),
        ({"filename": "a.jpg"}, "'a.jpg' a second time (first: "),
        ({"filename": "../out.jpg"}, "path 'images/../out.jpg', expected a path inside"),
        ({"filepath": "../elsewhere"}, "path 'images/../elsewhere/c.jpg', expected a path inside"),
        ({"filepath": None}, "'filepath' None, expected 'filepath' as a str"),
        ({"sentences": "words"}, "'sentences' 'words', expected 'sentences' as a list"),
        ({"sentences": ["words"]}, "'words', expected an object with 'raw'"),
        ({"sentences": [{"tokens": ["words"]}]}, "no 'raw', expected 'raw' as a str"),
        ({"sentences": []}, "no words for 'c.jpg', expected at least one caption"),
    ],
)
def test_a_bad_json_image_is_named_by_its_index(karpathy, change, found):
    records = images()
    records[2] |= change
    with pytest.raises(DataError) as error:
        load("flickr8k", write_karpathy(karpathy, records))
    assert str(error.value).startswith(f"{karpathy.resolve()}/dataset_flickr8k.json: image 2: found {found}")


@pytest.mark.parametrize("key", ["filename", "split", "sentences"])
def test_a_missing_key_is_named_with_its_image(karpathy, key):
    records = images()
    del records[4][key]
    with pytest.raises(DataError, match=f"image 4: found no '{key}', expected '{key}' as a"):
        load("flickr8k", write_karpathy(karpathy, records))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_whatever_is_added_loads_or_is_refused_in_one_sentence(tmp_path_factory, extra):
    root = write_official(write_pictures(tmp_path_factory.mktemp("noise")))
    path = root / "Flickr8k.token.txt"
    path.write_bytes(path.read_bytes() + b"\n" + extra)
    try:
        load("flickr8k", root)
    except DataError as error:
        assert str(path.resolve()) in str(error) and "\n" not in str(error)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 4), st.sampled_from(["filename", "filepath", "split", "sentences", "imgid", ""]), anything)
def test_whatever_a_json_image_holds_loads_or_is_refused_in_one_sentence(tmp_path_factory, index, key, value):
    records = images()
    if key:
        records[index][key] = value
    else:
        records[index] = value
    root = write_karpathy(write_pictures(tmp_path_factory.mktemp("json")), records)
    try:
        with warnings.catch_warnings(action="ignore"):
            corpus = load("captions", root)
    except DataError as error:
        assert str(root.resolve()) in str(error) and "\n" not in str(error)
    else:
        assert all(e.captions and all(e.captions) for split in (corpus.train, corpus.dev, corpus.test) for e in split)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=40) | st.text("abcde.jpg/~\n\r \t#", max_size=40).map(str.encode), st.sampled_from([*SPLITS]))
def test_whatever_is_added_to_a_list_loads_or_is_refused_in_one_sentence(tmp_path_factory, extra, split):
    root = write_official(write_pictures(tmp_path_factory.mktemp("noise")))
    path = root / f"Flickr_8k.{'dev' if split == 'val' else split}Images.txt"
    path.write_bytes(path.read_bytes() + b"\n" + extra)
    try:
        load("flickr8k", root)
    except DataError as error:
        assert str(root.resolve()) in str(error) and "\n" not in str(error)

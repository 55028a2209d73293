"""Products as tensors, what is hidden from a model, and scores in every cell of missing and noisy data."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from lib.corpora.products import KINDS, degrade
from lib.corpora.types import DataError
from lib.encoders.pieces import Pieces, Ragged, train_tokenizer
from lib.encoders.regions import overlap
from lib.metrics.products import best_threshold
from lib.papers import k3m
from lib.run import experiment
from lib.tasks import listings, products
from lib.tasks.products import CELLS, PASSES

TINY = dict(width=16, heads=2, graph_heads=2, text_layers=1, image_layers=1, image_size=64, longest=20)
PAPER = "lib.papers.k3m"
COLOURS, KINDS_OF_SHOES = ("red", "green", "blue", "white"), ("shoe", "boot", "sandal")


def write_shop(folder) -> str:
    """Sixty items: every fifth without a title, another fifth without a picture, another without properties."""
    (folder / "images").mkdir()
    lines = []
    for i in range(60):
        colour, kind = COLOURS[i % 4], KINDS_OF_SHOES[i % 3]
        title = "" if i % 5 == 0 else f"{colour} {kind} 男鞋 no {i}"
        triples = "" if i % 5 == 2 else f"colour#:#{colour}#;#kind#:#{kind}#;#材质#:#{'真皮' if i % 2 else '布'}"
        if i % 5 != 1:
            Image.new("RGB", (40, 40), (4 * i, 0, 0)).save(folder / "images" / f"{i}.png")
        lines.append("\t".join([str(i), title, f"images/{i}.png", triples, kind]))
    (folder / "items.tsv").write_text("\n".join(lines), encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return {"dataset": "k3m", "data_dir": write_shop(tmp_path_factory.mktemp("shop")), **TINY}


pytestmark = pytest.mark.filterwarnings("ignore:.*pictures are missing", "ignore:.*treated as missing")


def bound(shop, variant="together", **changes):
    settings = experiment.resolve(PAPER, variant, shop | changes)
    data = products.load(settings)
    context = products.context(data)
    return products.bind(data, context), context, settings


def first(split, count=16, seed=0):
    return split.batch(np.arange(count), np.random.default_rng(seed))


# ---- pieces ----


def test_a_tokenizer_is_the_same_each_time():
    """The trainer's own numbers come in the order of a hash table, another one each time."""
    texts = [f"word{i} other{i % 7} 男鞋{i % 3}" for i in range(300)]
    settings = dataclasses.replace(experiment.resolve(PAPER, "k3m", TINY), vocabulary=60)
    assert len({train_tokenizer(texts, settings) for _ in range(4)}) == 1


def test_chinese_is_read_by_characters_and_the_rest_by_what_occurs(shop):
    _, context, _ = bound(shop)
    pieces = Pieces(context["tokenizer"])
    pieces.learn(["red SHOE 男鞋", "bluest"])
    spelled = [pieces.tokenizer.id_to_token(i) for i in pieces["red SHOE 男鞋"]]
    assert spelled == ["red", "shoe", "男", "鞋"]
    assert [pieces.tokenizer.id_to_token(i) for i in pieces["bluest"]][0] == "blue"
    assert pieces[""] == []


def test_a_tuning_reads_as_its_parent_did(shop):
    data = products.load(experiment.resolve(PAPER, "together", shop))
    other = train_tokenizer(["quite other words words words"], experiment.resolve(PAPER, "together", shop))
    assert products.context(data, {"tokenizer": other, "labels": ["x"]})["tokenizer"] == other
    assert products.context(data, {"tokenizer": other, "labels": ["x"]})["labels"] == sorted(KINDS_OF_SHOES)


def test_ragged_lists_are_padded_as_they_are():
    ragged = Ragged([[1, 2, 3], [], [4], [5, 6]])
    values, mask = ragged.padded(np.array([3, 1, 0, 3]), 4)
    assert values.tolist() == [[5, 6, 0, 0], [0, 0, 0, 0], [1, 2, 3, 0], [5, 6, 0, 0]]
    assert mask.sum(1).tolist() == [2, 0, 3, 2]
    assert ragged.padded(np.array([1]), 4)[0].shape == (1, 4)
    assert ragged.padded(np.array([0]), 4, longest=3)[0].tolist() == [[1, 2, 3]]


# ---- batches ----


def spelled(pieces, ids, mask):
    """Each row of pieces as text without spaces, special pieces included."""
    rows = zip(ids.tolist(), mask.tolist(), strict=True)
    return ["".join(pieces.tokenizer.id_to_token(i) for i, real in zip(*row, strict=True) if real).replace("##", "")
            for row in rows]  # fmt: skip


def close(*texts):
    return "".join(texts).replace(" ", "")


def test_each_listing_and_each_span_of_a_batch_stands_once(shop):
    data, context, _ = bound(shop)
    train, view = data.train, data.views["train"]["clean"]
    found = first(train, len(train.lengths))
    assert len(train.lengths) == len(view.items) + len(view.pairs) + len(view.questions)
    pieces, asked = train.clean.listings.pieces, view.questions
    texts = spelled(pieces, found["text"], found["text_mask"])
    spans = spelled(pieces, found["spans"], found["span_mask"])
    assert [texts[row] for row in found["items"]] == [close(item.title) for item in view.items]
    assert [texts[row] for row in found["asked"]] == [close(one.text) for one in asked]
    rows = {row for name in ("items", "left", "right", "asked") for row in found[name].tolist()}
    assert rows == set(range(len(texts)))
    distinct = [text for text in spans if text != "[UNK]"]
    every = {close(part) for item in view.items for triple in item.properties for part in triple}
    assert sorted(distinct) == sorted(every)
    for row, item in zip(found["items"].tolist(), view.items, strict=True):
        real = found["triple_mask"][row]
        columns = [[spans[i] for i in found[name][row][real]] for name in ("properties", "values")]
        assert list(zip(*columns, strict=True)) == [(close(name), close(value)) for name, value in item.properties]
    assert [spans[found["candidates"][a]] for a in found["answers"]] == [close(one.answer) for one in asked]
    assert [context["labels"][label] for label in found["labels"]] == [p.category for p in view.items]
    assert found["same"].tolist() == [int(pair.same) for pair in view.pairs]


def test_a_missing_picture_has_no_region_and_a_missing_title_no_word(shop):
    data, _, _ = bound(shop)
    found, view = first(data.train, 40), data.views["train"]["clean"]
    for row, product in zip(found["items"].tolist(), view.items, strict=False):
        assert found["region_mask"][row].sum() == (4 if product.image else 0)
        assert found["text_mask"][row].any() == bool(product.title)
        assert product.image or not found["regions"][row].any()


def test_rows_of_one_modality_read_nothing_else(shop):
    masks = ("text_mask", "region_mask", "triple_mask")
    for i, variant in enumerate(("text-only", "image-only", "properties-only")):
        found = first(bound(shop, variant)[0].train, 8)
        assert [bool(found[name][found["items"]].any()) for name in masks] == [j == i for j in range(3)]


def test_the_graph_as_text_stands_behind_the_title(shop):
    data, _, _ = bound(shop, "graph-as-text", longest=40)
    found, clean = first(data.train, 4), data.train.clean
    product = data.views["train"]["clean"].items[3]
    text = spelled(clean.listings.pieces, found["text"], found["text_mask"])[found["items"][3]]
    assert text == close(product.title, *(f"[SEP]{name}{value}" for name, value in product.properties))
    assert not found["triple_mask"].any()


def test_a_long_title_leaves_room_for_the_question(shop):
    data, _, _ = bound(shop, longest=10)
    clean = data.train.clean
    for row in clean.asked:
        ids, mask = clean.listings.texts.padded(np.array([row]))
        assert mask.sum() <= 10 and clean.listings.pieces.separator in ids[0]
    with_title = clean.listings.texts.lengths[clean.items]
    assert with_title.max() <= 10


def test_a_batch_is_a_function_of_its_generator(shop):
    for variant in ("together", "pretraining"):
        data, _, _ = bound(shop, variant)
        one, same, other = (first(data.train, seed=seed) for seed in (3, 3, 4))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert variant == "together" or not torch.equal(one["masked_words"], other["masked_words"])


# ---- what is hidden ----


def test_words_are_masked_replaced_or_kept_in_the_stated_shares(shop):
    pieces = Pieces(bound(shop)[1]["tokenizer"])
    text, random = np.full((400, 50), 7), np.random.default_rng(0)
    shown = np.arange(50)[None] < random.integers(0, 50, (400, 1))
    hidden = listings.mask_words(text, shown, 0.15, pieces, random)
    places = hidden["masked_words"]
    assert abs(len(places) / shown.sum() - 0.15) < 0.02 and shown.flat[places].all()
    assert (hidden["words"] == 7).all() and (np.delete(text.reshape(-1), places) == 7).all()
    now = text.flat[places]
    assert abs((now == pieces.mask).mean() - 0.8) < 0.03 and abs((now == 7).mean() - 0.1) < 0.03


@pytest.mark.parametrize("objects", ["classes", "features", "colours"])
def test_regions_are_hidden_together_with_what_overlaps_them(objects):
    random, B, R = np.random.default_rng(0), 200, 4
    boxes = np.tile(np.array([[0, 0, 0.5, 0.5, 0.25], [0, 0, 0.5, 0.45, 0.2], [0.5, 0.5, 1, 1, 0.25], [0, 0, 0, 0, 0]],
                             np.float32), (B, 1, 1))  # fmt: skip
    found = {"boxes": boxes, "region_mask": boxes[..., 4] > 0, "regions": random.random((B, R, 6)) + 1}
    found |= {"colours": random.random((B, R, 3)), "classes": np.tile(np.arange(4)[:, None], (B, 1, 5)),
              "probabilities": random.random((B, R, 5))}  # fmt: skip
    hidden = listings.mask_regions(found, 0.3, 0.4, objects, random)
    masked = np.zeros((B, R), bool)
    masked.flat[hidden["masked_regions"]] = True
    assert (masked[:, 0] == masked[:, 1]).all() and not masked[:, 3].any()
    assert 0.4 < masked[:, 0].mean() < 0.62 and 0.2 < masked[:, 2].mean() < 0.4  # 1 - 0.7^2, 0.3
    zeroed = (hidden["regions"] == 0).all(-1)
    assert (zeroed <= masked).all() and abs(zeroed.sum() / masked.sum() - 0.9) < 0.07
    assert np.array_equal(hidden["target_classes"][:, 0], np.nonzero(masked)[1])
    kind = "colours" if objects == "colours" else "regions"
    assert np.array_equal(hidden["targets"], found[kind][masked]) and (found["regions"] >= 1).all()
    alone = listings.mask_regions(found, 0.3, 1.0, objects, np.random.default_rng(1))["masked_regions"] % R
    assert abs((alone == 0).mean() - 1 / 3) < 0.1


def test_things_have_their_own_boxes_and_cells_of_a_grid_do_not_overlap():
    settings = dict(TINY, train_limit=6, test_limit=4)
    boxed = bound(settings, "pretraining")[0]  # which is what IconWorld's regions are where nobody says otherwise
    things = [len(product.image.objects) for product in boxed.views["train"]["clean"].items]
    assert first(boxed.train, 6)["region_mask"].sum(1).tolist() == things
    grid = first(bound(settings, "pretraining", regions="grid")[0].train, 6)
    assert (grid["region_mask"].sum(1) == 4).all() and (overlap(grid["boxes"]) - torch.eye(4) < 0.4).all()


def test_a_wrong_value_is_another_one_of_the_same_property():
    random = np.random.default_rng(0)
    properties, mask = random.integers(0, 4, (50, 4)), random.random((50, 4)) < 0.7
    values = np.where(properties == 3, 99, 10 * properties + random.integers(0, 3, (50, 4)))  # the last has only one
    wrong = listings.wrong_values(properties, values, mask, random)
    several = mask & (properties < 3)
    assert (wrong[mask] != values[mask]).all() and set(wrong[mask]) <= set(values[mask])
    assert (wrong[several] // 10 == properties[several]).all()
    drawn = [listings.wrong_values(properties, values, mask, random)[several] for _ in range(40)]
    assert all(len(set(column)) == 2 for column in np.stack(drawn).T)  # each of the others comes at some time
    same = np.full((2, 2), 5)
    assert np.array_equal(listings.wrong_values(same, same, same > 0, random), same)
    assert np.array_equal(listings.wrong_values(same, same, same < 0, random), same)


def test_the_released_code_masks_every_value_but_the_first(shop):
    data, _, _ = bound(shop, "released", stage="pretraining")
    found, pieces = first(data.train, 20), data.train.clean.listings.pieces
    texts = spelled(pieces, found["graph"], found["graph_mask"])
    for text, product in zip(texts, data.views["train"]["clean"].items, strict=False):
        masked = [name + ("[MASK]" if i else value) for i, (name, value) in enumerate(product.properties)]
        assert text.replace("[MASK][MASK]", "[MASK]") == close(*(f"[SEP]{triple}" for triple in masked))
    assert len(found["masked_values"]) == len(found["value_words"]) == (found["graph"] == pieces.mask).sum()
    assert found["text"].shape[1] == 20  # paddings are pooled too, so all texts are as long


# ---- scores ----


@pytest.fixture(scope="module")
def judged(shop):
    data, context, settings = bound(shop)
    torch.manual_seed(0)
    return data, k3m.build(context, settings), settings, context


def test_every_cell_is_what_the_degraded_split_would_score(judged):
    data, model, settings, context = judged
    said = products.predict(model, data.test)
    clean = data.views["test"]["clean"]
    for kind, percent in (("TNR", 50), ("MMR", 80), ("MNR", 100), ("IMR", 20)):
        names = ("items", "pairs", "questions")
        examples = {name: degrade(getattr(clean, name), kind, percent / 100) for name in names}
        split = listings.Split({"clean": listings.View(**examples)}, context, settings)
        split.dev = data.dev
        direct = products.predict(model, split)
        for base in ("accuracy", "F1", "Rank@1", "Rank@10", "MRR"):
            mixed = products.statistics(said, f"{base}/{kind}{percent}")
            assert np.array_equal(mixed, products.statistics(direct, base)), (kind, percent, base)


def test_scores_have_a_name_in_all_29_cells(judged):
    data, model, settings, _ = judged
    scores, task = products.score(products.predict(model, data.test)), products.task(settings)
    bases = ("accuracy", "F1", "Rank@1", "Rank@5", "Rank@10", "MRR", "drop")
    assert len(CELLS) == 28 and {f"{base}/{cell}" for base in bases for cell in CELLS} <= set(scores)
    assert set(task.metrics) <= set(scores) and {f"drop/{kind}50" for kind in KINDS} <= set(task.metrics)
    assert scores["drop/TNR50"] == pytest.approx(scores["accuracy"] - scores["accuracy/TNR50"])
    said = products.predict(model, data.test)
    for metric in ("F1/TINR80", "MRR", "drop/MNR20"):
        assert scores[metric] == pytest.approx(float(task.combine(metric, task.statistics(said, metric).sum(0))))


def test_accuracy_is_a_straight_line_in_the_ratio(judged):
    data, model, _, _ = judged
    scores = products.score(products.predict(model, data.test))
    n = len(data.views["test"]["clean"].items)
    for percent in (20, 50, 80):  # up to which items are drawn
        drops = np.abs(products.statistics(products.predict(model, data.test), f"drop/TNR{percent}")[:, 0]).sum()
        assert drops <= round(n * percent / 100)
    assert scores["mean"] == pytest.approx(np.mean([scores["accuracy"], scores["F1"], scores["MRR"]]))


def test_the_threshold_comes_from_dev_and_dev_is_judged_once(judged):
    data, model, _, _ = judged
    said, on_dev = products.predict(model, data.test), products.predict(model, data.dev)
    scores = products.pair_scores(model, data.dev.clean, products.read(model, data.dev.clean))
    assert said["threshold"] == on_dev["threshold"] == best_threshold(scores, torch.from_numpy(data.dev.clean.same))
    assert "TNR20" not in "".join(products.score(on_dev)) and set(data.test.asked) == {"clean", *PASSES}
    quick = products.predict(model, data.test, quick=True)
    assert "clean/F1" in quick and "title missing/F1" not in quick


def test_two_evaluations_are_bitwise_equal(judged):
    data, model, _, _ = judged
    one, two = (products.predict(model, data.test) for _ in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items() if isinstance(value, torch.Tensor))


def test_tuned_at_a_ratio_trains_and_is_judged_on_degraded_data(shop):
    data, _, settings = bound(shop, degraded="TMR", ratio=1.0)
    assert set(data.test.asked) == {"clean"} and not any(p.title for s in data.views.values() for p in s["clean"].items)
    assert products.task(settings).metrics == ("accuracy", "F1", "Rank@1", "Rank@5", "Rank@10", "MRR")
    half, whole = (bound(shop, **how)[0].views["train"]["clean"].items for how in (dict(degraded="TMR", ratio=0.5), {}))
    assert half == degrade(whole, "TMR", 0.5) != tuple(whole)


def test_a_pool_of_stated_size_has_so_many_candidates(shop):
    data, context, settings = bound(shop, pool=3)
    model = k3m.build(context, settings).eval()
    scores, answer = products.answer_scores(model, data.test.clean, products.read(model, data.test.clean))
    assert scores.shape == (len(data.views["test"]["clean"].questions), 3) and (answer < 3).all()
    for asked, place in zip(data.views["test"]["clean"].questions, answer.tolist(), strict=True):
        assert asked.pool[place] == asked.answer


def test_pretraining_is_judged_on_the_same_hidden_words(shop):
    data, context, settings = bound(shop, "pretraining")
    model = k3m.build(context, settings)
    task = products.task(settings)
    one, two = (task.score(task.predict(model, data.dev)) for _ in range(2))
    assert one == two and one["loss"] == pytest.approx(one["mlm"] + one["mom"] + one["lpm"]) and task.mode == "min"


def test_groups_say_what_decides_on_iconworld(shop):
    assert products.groups(bound(shop)[0]) == {}
    data = products.load(experiment.resolve(PAPER, "together", dict(TINY, train_limit=6, test_limit=30)))
    masks = products.groups(data)
    assert sum(masks.values()).tolist() == [1] * 30 and "together" in masks


def test_other_corpora_are_refused():
    with pytest.raises(DataError, match="has no products, expected one of K3M's format"):
        products.load(experiment.resolve(PAPER, "together", {"dataset": "iconworld-captions", "train_limit": 4}))


def test_settings_reach_the_data(shop):
    settings = experiment.resolve(PAPER, "together", shop)
    seen = {products.load(dataclasses.replace(settings, **changes)).fingerprint
            for changes in ({}, {"image_size": 96}, {"text_encoder": "minilm"}, {"regions": "boxes"})}  # fmt: skip
    assert len(seen) == 4

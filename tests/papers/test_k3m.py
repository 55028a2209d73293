"""K3M from corpus to predictor: a pretraining under its tunings, rows that train, are kept, and can be tried."""

import pytest
import torch
from PIL import Image

from lib import predict
from lib.papers import k3m
from lib.report import claims
from lib.run import experiment
from lib.tasks.listings import TASKS
from lib.tasks.products import CELLS, metrics
from tests.tasks.test_products import PAPER, TINY, write_shop

pytestmark = pytest.mark.filterwarnings("ignore:.*pictures are missing", "ignore:.*treated as missing")
QUICK = TINY | dict(epochs=1, pretraining_epochs=1, batch_size=32)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return {"dataset": "k3m", "data_dir": write_shop(tmp_path_factory.mktemp("shop")), **QUICK}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def run(variant: str, settings: dict, folder, seed: int = 0) -> experiment.Result:
    return experiment.run(PAPER, variant, seed, settings, folder, log=lambda line: None)


ROWS = ("together", "released-questions", "scratch-questions", "lxmert-graph", "single-stream-alignment", "image-only",
        "published-text-questions")  # fmt: skip


@pytest.mark.parametrize("variant", ROWS)
def test_rows_train_and_can_be_tried(variant, shop, folder):
    result = run(variant, shop, folder)
    tasks = result.settings["tasks"]
    assert ("accuracy/TNR50" in result.scores["test"]) == ("classification" in tasks)
    metric = {"classification": "accuracy", "alignment": "F1", "questions": "Rank@10"}[tasks[0]] + "/MNR100"
    rows = result.statistics(metric)
    assert 100 * rows[:, 0].sum() / rows[:, 1].sum() == pytest.approx(result.scores["test"][metric])
    predictor = predict.load(result.folder)
    found = predictor("red shoe", Image.new("RGB", (30, 30), "red"), {"colour": "red"}, k=2)
    answers = {"kind", "材质"} if "questions" in tasks else set()
    assert set(found["what"]) == {"near"} | answers | ({"category"} if "classification" in tasks else set())
    assert (found.query("what == 'kind'")["found"].isin(["shoe", "boot", "sandal"])).all()
    for given in (dict(text="red shoe"), dict(image=Image.new("RGB", (30, 30))), dict(properties={"colour": "red"})):
        assert predictor(**given)["score"].between(-1.001, 1.001).all()
    with pytest.raises(ValueError, match="found no text, no image and no properties"):
        predictor()


def test_a_pretraining_is_the_parent_of_all_that_share_its_model(shop):
    keys = {variant: experiment.plan(PAPER, variant, 3, shop).parent for variant in k3m.VARIANTS}
    assert keys["scratch"] is None and keys["pretraining"] is None and keys["k3m"].seed == 0
    same = {keys[name].key for name in ("k3m", "k3m-questions", "k3m-alignment", "together")}
    assert len(same) == 1 and keys["k3m"].settings.stage == "pretraining"
    others = ("k3m", "no-fusion", "no-mlm", "lxmert", "two-stream", "two-stream-graph", "released")
    own = [keys[name].key for name in others]
    assert len(set(own)) == len(own)
    at_ratio = experiment.plan(PAPER, "k3m", 0, shop | {"degraded": "TNR", "ratio": 0.5, "epochs": 7})
    assert at_ratio.parent.key == keys["k3m"].key  # noise and epochs of the tuning leave the pretraining alone
    longer = experiment.plan(PAPER, "k3m", 0, shop | {"pretraining_epochs": 7})
    assert longer.parent.settings.epochs == 7 and longer.settings.epochs == 1


def test_a_tuning_starts_from_the_pretrained_weights_and_pieces(shop, folder):
    child = run("k3m", shop | {"learning_rate": 1e-12}, folder)
    parent = run("pretraining", shop, folder)
    shared = [name for name in parent.weights() if not name.startswith("heads.")]
    assert all(torch.allclose(parent.weights()[name], child.weights()[name], atol=1e-6) for name in shared)
    assert child.context["tokenizer"] == parent.context["tokenizer"] and "word.0.weight" not in "".join(child.weights())
    assert {"mlm", "mom", "lpm", "loss"} <= set(parent.history[0])


def test_a_pretrained_text_encoder_is_where_its_row_begins(shop, folder):
    from lib.encoders.text import pretrained

    settings = experiment.resolve(PAPER, "published-text-questions", shop)
    context = run("published-text-questions", shop, folder).context
    model = k3m.build(context, settings)
    k3m.initialise(model, context, settings)
    published, mine = pretrained("minilm")[1].state_dict(), model.backbone.text.published.state_dict()
    assert mine and all(torch.equal(weight, published[name]) for name, weight in mine.items())
    slow, rates = model.parameter_groups(1.0)[1], [group.get("lr") for group in model.parameter_groups(1.0)]
    assert len(slow["params"]) == len(mine) - sum("position_ids" in name for name in mine) and rates == [None, 0.1]


def test_what_the_model_looked_at_can_be_seen(shop, folder):
    predictor = predict.load(run("k3m", shop, folder).folder)
    seen = predictor.inspect("red shoe", Image.new("RGB", (30, 30)), {"colour": "red", "kind": "shoe"})
    assert seen["attention"].shape == (2, 2) and torch.allclose(seen["attention"].sum(0), torch.ones(2))
    assert {name: gate.shape for name, gate in seen["gates"].items()} == {"text": (2, 2), "image": (4, 2)}
    again = predictor.inspect("red shoe", Image.new("RGB", (30, 30)), {"colour": "red", "kind": "shoe"})
    assert torch.equal(seen["c_star"], again["c_star"])
    bare = predict.load(run("lxmert-graph", shop, folder).folder).inspect("red shoe")
    assert bare["attention"] is None and bare["gates"] == {}


def test_a_model_tuned_at_a_ratio_is_kept_beside_the_others(shop, folder):
    result = run("k3m", shop | {"degraded": "TINR", "ratio": 1.0}, folder)
    assert "accuracy" in result.scores["test"] and "accuracy/TNR50" not in result.scores["test"]


def test_every_claim_is_about_what_a_run_keeps_sums_of():
    known, asked = set(metrics(TASKS, CELLS)), claims.comparisons("k3m")
    assert asked and all(set(claims.terms(metric)) <= known for claim in asked for metric in claim["metrics"])
    for claim in asked:
        assert set(claim.get("matters", [])) <= {claims.named(metric) for metric in claim["metrics"]}
    assert 3 <= sum(len(claim.get("matters", [])) for claim in asked) <= 10  # the lines that the notebook opens with
    published = claims.published("k3m", "fashion")
    assert set(published.columns) - set(claims.ABOUT) <= known and len(published) > 10
    assert {row[side] for row in asked for side in ("above", "below")} <= set(k3m.rows("small", "iconworld-products"))


def test_rows_of_a_profile():
    assert k3m.rows("smoke", "fashion") == k3m.rows("smoke", "iconworld-products") == ["text-only", "k3m"]
    small, real = k3m.rows("small", "iconworld-products"), k3m.rows("small", "fashion")
    assert set(small) | set(real) == set(k3m.VARIANTS) - {"pretraining"} and {small[-1], real[-1]} == {"k3m-questions"}
    assert k3m.VARIANTS["two-stream-TINR50"].changes["ratio"] == 0.5 and len(small) == 97 and len(real) == 24


def test_a_title_that_may_not_name_its_category_does_not(shop, folder):
    result = run("k3m-unnamed", shop, folder)
    assert result.settings["named"] is False
    named, unnamed = (experiment.plan(PAPER, row, 0, shop) for row in ("k3m", "k3m-unnamed"))
    assert named.parent.key == unnamed.parent.key and named.key != unnamed.key

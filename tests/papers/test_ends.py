"""Whatever ends a run, and however many want it at once: it ends with the bits of one that nobody disturbed."""

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lib.encoders.cache import KEY_BYTES, FeatureCache
from lib.run import experiment, store, training
from lib.run.paper import PAPERS, find_paper
from tests import album
from tests.papers import test_cmkp, test_maf
from tests.processes import dying_at, ended, forked
from tests.tasks import test_imagination, test_keyphrases, test_products, test_tagging

pytestmark = pytest.mark.filterwarnings("ignore:.*pictures are missing", "ignore:.*treated as missing")

PICTURES = {"profile": "smoke", "image_size": 32, "joint_dim": 8, "word_dim": 6}
SPELLED = {"text_encoder": "characters"}  # whose checkpoints are small
ASKED = {  # a small corpus and a small model of each paper, over as many stages as it has
    "vse": (album.write_album, dict(PICTURES, dataset="flickr8k", epochs=3, batch_size=4)),
    "maf": (test_tagging.write_corpus, test_maf.TINY | SPELLED | dict(dataset="conll-images", epochs=2)),
    "cmkp": (test_keyphrases.write_corpus, test_cmkp.TINY | dict(dataset="tweets", attributes="file", epochs=2)),
    "gxn": (album.write_album, test_imagination.TINY | dict(epochs=1)),
    "k3m": (test_products.write_shop, test_products.TINY | dict(dataset="k3m", epochs=1, batch_size=8)),
}


@pytest.fixture(params=PAPERS, scope="module")
def paper(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def asked(paper, tmp_path_factory) -> dict:
    write, settings = ASKED[paper]
    return settings | {"data_dir": str(write(tmp_path_factory.mktemp("corpus")))}


def making(paper: str, asked: dict, folder: Path, features: Path, every: float = 0) -> Callable[[], object]:
    """What makes the paper's main run in a folder, with a cache of its own and a checkpoint after every step, or after
    so many seconds."""

    def make() -> None:
        begin = FeatureCache.__init__
        elsewhere = lambda self, table, *options: begin(self, features / Path(table).name, *options)  # noqa: E731
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FeatureCache, "__init__", elsewhere)
            experiment.run(paper, find_paper(paper).main, 0, asked, folder, lambda line: None, checkpoint_seconds=every)

    return make


@pytest.fixture(scope="module")
def whole(paper, asked, tmp_path_factory) -> tuple[Path, int]:
    """The folder of a run that nobody disturbed, and how many training steps its stages took."""
    folder, steps, step = tmp_path_factory.mktemp(paper), [], training._Trainer._train_step

    def counted(self, part, *arguments):
        steps.append(part)
        return step(self, part, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Trainer, "_train_step", counted)
        making(paper, asked, folder / "runs", folder / "features")()
    return folder, len(steps)


def agree(paper: str, *folders: Path) -> bool:
    """Have all stages of a run the same weights and scores in both folders?"""
    stages = [sorted(path.name for path in (folder / paper).iterdir()) for folder in folders]
    assert stages[0] == stages[1]
    for stage in stages[0]:
        one, other = (store.read(folder / paper / stage) for folder in folders)
        theirs = other.weights()
        assert all(torch.equal(value, theirs[name]) for name, value in one.weights().items()), stage
        assert one.scores == other.scores and one.context == other.context, stage
    return True


def test_killed_at_ten_moments_over_all_its_stages_it_ends_with_the_same_bits(paper, asked, whole, tmp_path):
    folder, steps = whole
    attempt, done = making(paper, asked, tmp_path, folder / "features"), 0
    for moment in sorted(random.Random(paper).sample(range(steps), 10)):
        assert ended(forked(dying_at(moment - done, attempt))) == -signal.SIGKILL
        done = moment
    assert ended(forked(dying_at(steps - done, attempt))) == 0  # no step is computed twice: it would have died
    assert agree(paper, folder / "runs", tmp_path)


@pytest.mark.parametrize("racing", [2, 4])
def test_processes_that_race_for_a_run_and_its_features_make_them_once(paper, tmp_path, racing):
    write, settings = ASKED[paper]
    (tmp_path / "corpus").mkdir()
    asked = settings | {"data_dir": str(write(tmp_path / "corpus"))}  # which no process has read
    runs, features = tmp_path / "runs", tmp_path / "features"
    runners = [forked(making(paper, asked, runs, features, every=60)) for _ in range(racing)]
    assert [ended(runner) for runner in runners] == [0] * racing
    tables = {table: sound_rows(table) for table in features.iterdir() if (table / "keys.bin").exists()}
    assert tables
    assert ended(forked(making(paper, asked, tmp_path / "quiet", features, every=60))) == 0
    assert tables == {table: sound_rows(table) for table in tables}  # all were there
    assert agree(paper, runs, tmp_path / "quiet") and epochs(runs / paper) == epochs(tmp_path / "quiet" / paper)


def sound_rows(table: Path) -> int:
    """How many rows a cache's table has, of which each is what was written and none stands there twice."""
    count = (table / "keys.bin").stat().st_size // KEY_BYTES
    found = FeatureCache(table, ((table / "rows.bin").stat().st_size // count,), "uint8").positions()
    assert len(found) == count, table
    return count


def epochs(runs: Path) -> int:
    """How many were trained, by all who wrote a log."""
    return sum(path.read_text("utf-8").count("epoch ") for path in runs.glob("*/log.txt"))

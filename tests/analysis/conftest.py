"""A tiny GXN, trained once for all tests that look into it."""

import pandas as pd
import pytest

from lib.run import experiment
from tests.album import write_album
from tests.tasks.test_imagination import TINY


@pytest.fixture(scope="session")
def album_settings(tmp_path_factory) -> dict:
    folder = write_album(tmp_path_factory.mktemp("album"))
    return TINY | {"data_dir": str(folder), "epochs": 1, "precision": "fp32", "batch_size": 32}


@pytest.fixture(scope="session")
def imagining_runs(album_settings, tmp_path_factory) -> pd.DataFrame:
    """Its rows without and with imagining, and the stage before the second."""
    rows = ["captions", "two-level", "full"]
    return experiment.ablate("gxn", rows, [0], album_settings, tmp_path_factory.mktemp("runs"), lambda line: None)

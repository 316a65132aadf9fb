"""Shared by all tests: the scripts as modules, tiny models, small data sets, the authors' files where they lie."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RELEASED = ROOT.parent / "shared" / "data"  # the authors' rows; tests that need them skip without
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path[:0] = [str(ROOT), str(ROOT / "SASRec_code"), str(ROOT / "data")]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def released() -> Path:
    folder = RELEASED / "Toy_noise_user0.1"
    if not folder.is_dir():
        pytest.skip("the authors' Toy files are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def ml_100k(tmp_path_factory) -> Path:
    """ML100K_noise_user0.1, made once."""
    if importlib.util.find_spec("recbole") is None:
        pytest.skip("the wheel recbole is not installed")
    import prepare_noise_data

    out = tmp_path_factory.mktemp("data")
    prepare_noise_data.main(["ml-100k", "--noise", "0.1", "--no_year", "--output_root", str(out)])
    return out / "ML100K_noise_user0.1"

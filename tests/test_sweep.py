"""SASRec_code/sweep.py: valid chooses, test is looked at once."""

import copy
import json

import main as sasrec
import pandas as pd
import sweep
from conftest import sasrec_arguments, sasrec_command, write_denoised


def test_sweep(tmp_path):
    write_denoised(tmp_path, rows=(200, 60, 60))
    grids = ["--train_thresholds", 0.8, "--test_thresholds", 0.5, 0.8, "--train_caps", 2, "--test_caps", 1, "--seeds", 2]
    result = sweep.main(sasrec_command(tmp_path, *grids, epochs=3))
    folder = tmp_path / "out" / "Z_denoise_user0.1_8_1" / "sweep_raw_replace"
    table = pd.read_csv(folder / "sweep.csv")
    assert len(table) == 2 * 3 and (folder / "thresholds.png").stat().st_size > 10_000
    best = table.loc[table["valid NDCG@20"].idxmax()]
    assert result["chosen"] == {key: best[key] for key in result["chosen"]}
    assert [row["rows"] for row in result["report"]] == ["noisy", "denoised", "clean"]
    noisy = sasrec.main(sasrec_command(tmp_path, "--seeds", 2, epochs=3))
    assert result["report"][0]["NDCG@20"] == noisy["metrics"]["test"]["NDCG@20"]
    assert result["report"][0]["NDCG@20 difference"] == 0
    table_before = (folder / "sweep.csv").read_bytes()
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("models/*")}
    assert sweep.main(sasrec_command(tmp_path, *grids, epochs=3)) == result and len(models) == 6  # noisy, edited, clean; 2 seeds
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("models/*")} == models
    test_rows = tmp_path / "Z_denoise_user0.1_8_1" / "test_5000.csv"
    changed = pd.read_csv(test_rows)
    changed["item_ids"] = changed["item_ids"].map(lambda text: json.dumps([*json.loads(text)[:-1], 1]))
    changed.to_csv(test_rows, index=False)
    other = sweep.main(sasrec_command(tmp_path, *grids, epochs=3))
    assert (folder / "sweep.csv").read_bytes() == table_before and other["report"] != result["report"]  # test chose nothing


def test_settings_are_copied_not_shared(tmp_path):
    args = sasrec_arguments(tmp_path)
    before = copy.copy(vars(args))
    sweep.with_settings(args, seed=1, clean=True)
    assert vars(args) == before

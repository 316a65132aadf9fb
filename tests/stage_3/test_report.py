"""SASRec_code/report.py: the page, its figures, titles of strangers."""

import json

import numpy as np
import page
import pandas as pd
import pytest
import report
from conftest import write_rows

from denoise_code.common import files
from denoise_code.evidence import features, similarity


def test_report_page(denoised, monkeypatch):
    monkeypatch.setattr(similarity, "STEPS", 20)
    titles = json.loads((denoised / "id2name4Rec.json").read_text())
    titles["5"] = '<script>alert("x")</script> & co'
    (denoised / "id2name4Rec.json").write_text(json.dumps(titles))
    result = report.main(["--dataset", denoised.name, "--data_root", str(denoised.parent), "--windows", "12"])
    page = (denoised / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count('class="window') == 12 and page.count("data:image/png;base64,") == 1 and "http" not in page
    assert set(result["detection"]) == {"rarity", "raw", *features.FEATURES, "collaborative+semantic", "fused"}
    for kind, (low, high) in result["fused minus"].items():
        assert low <= result["detection"]["fused"]["AUC"] - result["detection"][kind]["AUC"] <= high
    assert result["auc_context"].keys() == result["detection"].keys() and "auc_context" in page
    for found in result["replacements"].values():
        assert 0 <= found["first"] <= found["among ten"] <= 1
    assert 'class="injected"' in page and "\nspan.injected::after{" in page and "→" in page
    test = pd.read_csv(denoised / "test_5000.csv")
    test["mask"] = test["mask"].str.replace("1", "0")
    test.to_csv(denoised / "test_5000.csv", index=False)
    unmarked = report.main(["--dataset", denoised.name, "--data_root", str(denoised.parent)])
    assert "detection" not in unmarked and "history positions have a probability above" in (denoised / "report.html").read_text()
    (denoised / "planted.csv").rename(denoised / "hidden.csv")  # no language model scored it: what else there is is shown
    without = report.main(["--dataset", denoised.name, "--data_root", str(denoised.parent)])
    assert set(without["auc_context"]) == {"rarity", "collaborative", "semantic", "fused"}
    (denoised / "hidden.csv").rename(denoised / "planted.csv")


def test_json_holds_no_nan(tmp_path):
    """NaN is no JSON: other languages and strict readers refuse the file."""
    files.write_json(tmp_path / "run.json", {"figure": None})
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "run.json", {"figure": float("nan")})
    assert json.loads((tmp_path / "run.json").read_text()) == {"figure": None} and len(list(tmp_path.iterdir())) == 1
    assert "<td>–</td>" in page.table(["evidence", "AUC"], [["raw", None]])


def test_report_of_windows_of_two(tmp_path):
    """A history of one item: there is no figure within windows, and the page and the file say so."""
    folder = tmp_path / "Two_noise_user0.1"
    folder.mkdir()
    (folder / "id2name4Rec.json").write_text(json.dumps({str(item): f"Item {item}" for item in range(1, 31)}))
    rng = np.random.default_rng(0)
    first, step = (30 * rng.random(300) ** 2).astype(int), rng.integers(1, 4, size=300)  # the first items are the popular ones
    windows = np.stack([first, (first + step) % 30], axis=1) + 1
    windows = windows.tolist()
    write_rows(folder / "train.csv", windows)
    write_rows(folder / "test_5000.csv", windows[:60], [[int(row % 5 == 0), 0] for row in range(60)])
    report.main(["--dataset", folder.name, "--data_root", str(tmp_path)])

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    result = json.loads((folder / "report.json").read_text(), parse_constant=refuse)
    assert result["detection"]["fused"]["AUC in window"] is None and result["detection"]["fused"]["AUC"] >= 0
    assert "<td>–</td>" in (folder / "report.html").read_text()

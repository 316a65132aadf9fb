"""SASRec_code/report.py: the page, its figures, titles of strangers."""

import json

import evidence
import pandas as pd
import report
import similarity


def test_report_page(denoised, monkeypatch):
    monkeypatch.setattr(similarity, "STEPS", 20)
    titles = json.loads((denoised / "id2name4Rec.json").read_text())
    titles["5"] = '<script>alert("x")</script> & co'
    (denoised / "id2name4Rec.json").write_text(json.dumps(titles))
    result = report.main(["--dataset", denoised.name, "--data_root", str(denoised.parent), "--windows", "12"])
    page = (denoised / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count('class="window') == 12 and page.count("data:image/png;base64,") == 4 and "http" not in page
    assert set(result["detection"]) == {"rarity", "raw", *evidence.FEATURES, "collaborative+semantic", "fused"}
    for kind, (low, high) in result["fused minus"].items():
        assert low <= result["detection"]["fused"]["AUC"] - result["detection"][kind]["AUC"] <= high
    assert result["auc_context"].keys() == result["detection"].keys() and "auc_context" in page
    for found in result["replacements"].values():
        assert 0 <= found["first"] <= found["among ten"] <= 1
    assert 'class="injected"' in page and "\nspan.injected::after{" in page and "→" in page
    assert "natural noise" not in page and "detection_natural" not in result
    test = pd.read_csv(denoised / "test_5000.csv")
    test["mask"] = test["mask"].str.replace("1", "3")
    test.to_csv(denoised / "test_5000.csv", index=False)
    again = report.main(["--dataset", denoised.name, "--data_root", str(denoised.parent)])
    assert "Finding natural noise" in (denoised / "report.html").read_text() and "detection" not in again
    assert again["detection_natural"]["fused"] == result["detection"]["fused"]
    (denoised / "planted.csv").rename(denoised / "hidden.csv")  # no language model scored it: what else there is is shown
    without = report.main(["--dataset", denoised.name, "--data_root", str(denoised.parent)])
    assert set(without["auc_context"]) == {"rarity", "collaborative", "semantic", "fused"}
    (denoised / "hidden.csv").rename(denoised / "planted.csv")

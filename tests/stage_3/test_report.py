"""SASRec_code/report.py: the page, its figures, titles of strangers."""

import json

import numpy as np
import page
import pandas as pd
import pytest
import report
from conftest import write_denoised, write_rows
from hand_evidence import KINDS, probabilities_by_hand, replacements_by_hand, write_evidence_by_hand

from denoise_code.common import files
from denoise_code.data_set.catalogue import read_titles
from denoise_code.data_set.padded_rows import read_split


def report_of(folder, *options):
    return report.main(["--dataset", folder.name, "--data_root", str(folder.parent), *options])


def test_report_page(tmp_path):
    folder = write_denoised(tmp_path, rows=(100, 40, 120))
    titles = json.loads((folder / "id2name4Rec.json").read_text())
    titles["5"] = '<script>alert("x")</script> & co'
    (folder / "id2name4Rec.json").write_text(json.dumps(titles))
    write_evidence_by_hand(folder)  # for these titles
    result = report_of(folder, "--windows", "12")
    page = (folder / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "http" not in page
    assert page.count('class="window') == 12 and 'class="injected"' in page and "\nspan.injected::after{" in page and "→" in page
    assert result["kinds"] == list(KINDS) and set(result["detection"]["injected"]["by kind"]) == {"rarity", *KINDS}
    assert all(f"<td>{kind}</td>" in page for kind in (*KINDS, "rarity")) and "auc_context" in page
    assert "25.0% at most" in page and result["runs"] == []
    assert json.loads((folder / "report.json").read_text()) == result


def test_the_figures_of_a_report_are_those_of_the_rows(tmp_path):
    folder = write_denoised(tmp_path, rows=(60, 20, 80))
    result = report_of(folder, "--threshold", "0.3")
    split = read_split(folder / "test_5000.csv", read_titles(folder), None, "ignored")
    prob, noise = probabilities_by_hand(split, "fused"), (split.mask == 1) & split.editable
    for row in result["thresholds"]:
        flagged = prob > row["threshold"]
        assert row["share flagged"] == pytest.approx(flagged.sum() / split.editable.sum())
        assert row["recall"] == pytest.approx((flagged & noise).sum() / noise.sum())
        assert row["precision"] == pytest.approx((flagged & noise).sum() / flagged.sum())
    replaced = noise & (split.clean != split.items)
    right = (replacements_by_hand(split, 30) == split.clean)[replaced].mean()
    assert result["injected items whose replacement is the true item"] == right == 1
    page, flagged = (folder / "report.html").read_text(), prob > 0.3
    assert f"{(flagged & noise).sum() / noise.sum():.0%} found" in page
    assert f"{(flagged & noise).sum() / flagged.sum():.0%} right" in page


def test_a_report_where_no_noise_is_marked(tmp_path):
    """A log of somebody: nothing is known of what is right, and all else is said."""
    folder = write_denoised(tmp_path, rows=(60, 20, 40))
    for file in ("train", "valid_5000", "test_5000"):
        table = pd.read_csv(folder / f"{file}.csv", dtype=str)
        table["mask"] = table["mask"].str.replace("1", "0")
        table.to_csv(folder / f"{file}.csv", index=False)
    write_evidence_by_hand(folder)
    result, page = report_of(folder), (folder / "report.html").read_text()
    assert result["detection"]["injected"] is None and "thresholds" not in result
    assert "history places have a probability above" in page and "injected noise" not in page.split("<h2>Windows")[0]


def test_json_holds_no_nan(tmp_path):
    """NaN is no JSON: other languages and strict readers refuse the file."""
    files.write_json(tmp_path / "run.json", {"figure": None})
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "run.json", {"figure": float("nan")})
    assert json.loads((tmp_path / "run.json").read_text()) == {"figure": None} and len(list(tmp_path.iterdir())) == 1
    assert "<td>–</td>" in page.table(["evidence", "AUC"], [["raw", None]])


def test_report_of_windows_of_two(tmp_path):
    """A history of one item: there is no figure within windows, and the page and the file say so."""
    folder = tmp_path / "Two_denoise_user0.1_0"
    folder.mkdir()
    (folder / "id2name4Rec.json").write_text(json.dumps({str(item): f"Item {item}" for item in range(1, 31)}))
    rng = np.random.default_rng(0)
    windows = np.stack([rng.permutation(30)[:2] + 1 for _ in range(300)]).tolist()
    write_rows(folder / "train.csv", windows)
    write_rows(folder / "valid_5000.csv", windows[:60])
    write_rows(folder / "test_5000.csv", windows[:60], [[int(row % 5 == 0), 0] for row in range(60)])
    write_evidence_by_hand(folder)
    report_of(folder)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    result = json.loads((folder / "report.json").read_text(), parse_constant=refuse)
    fused = result["detection"]["injected"]["by kind"]["fused"]
    assert fused["AUC in window"] is None and fused["AUC"] == 1
    assert "<td>–</td>" in (folder / "report.html").read_text()


def test_a_report_of_a_folder_without_evidence(tmp_path, capsys):
    write_denoised(tmp_path, "Y_noise_user0.1", denoised=False)
    with pytest.raises(SystemExit):
        report_of(tmp_path / "Y_noise_user0.1")
    error = capsys.readouterr().err
    assert "no evidence.json; python generate_denoised.py --noise_dataset_path" in error and error.count("\n") == 1
    assert not (tmp_path / "Y_noise_user0.1" / "report.html").exists()

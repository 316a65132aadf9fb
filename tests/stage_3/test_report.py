"""SASRec_code/report.py: the page, its figures, titles of strangers."""

import json

import numpy as np
import pandas as pd
import pytest
import report
from conftest import write_denoised, write_rows
from findings import Findings, least_suspicious_noise, most_suspicious
from hand_evidence import KINDS, probabilities_by_hand, replacements_by_hand, write_evidence_by_hand

from denoise_code.common import files
from denoise_code.common.page import percent, table
from denoise_code.common.suspects import Item
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.padded_rows import read_split


def report_of(folder, *options):
    return report.main(["--dataset", folder.name, "--data_root", str(folder.parent), *options])


def test_report_page(tmp_path):
    folder = write_denoised(tmp_path, rows=(100, 40, 120))
    titles = json.loads((folder / "id2name4Rec.json").read_text())
    titles["5"] = '<script>alert("x")</script> & co'
    (folder / "id2name4Rec.json").write_text(json.dumps(titles))
    write_evidence_by_hand(folder)  # for these titles
    result = report_of(folder, "--suspects", "12")
    page = (folder / "report.html").read_text()
    assert page.count("<script") == 1 and "&lt;script&gt;alert(" in page
    assert page.split("The injected noise")[0].count("<article ") == 12 and ">injected<" in page and "fits:" in page
    assert result["kinds"] == list(KINDS) and set(result["detection"]["injected"]["by kind"]) == {"rarity", *KINDS}
    assert all(f"<td>{kind}</td>" in page for kind in (*KINDS, "rarity")) and "auc_context" in page
    assert "25% at most" in page and result["runs"] == []
    assert json.loads((folder / "report.json").read_text()) == result


def test_the_figures_of_a_report_are_those_of_the_rows(tmp_path):
    folder = write_denoised(tmp_path, rows=(60, 20, 80))
    result = report_of(folder, "--threshold", "0.3")
    split = read_split(folder / "test_5000.csv", read_catalogue(folder), "ignored")
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
    assert f"{percent((flagged & noise).sum() / noise.sum())} found" in page
    assert f"{percent((flagged & noise).sum() / flagged.sum())} right" in page


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
    assert "history places have a probability above" in page and "injected" not in page


def test_json_holds_no_nan(tmp_path):
    """NaN is no JSON: other languages and strict readers refuse the file."""
    files.write_json(tmp_path / "run.json", {"figure": None})
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "run.json", {"figure": float("nan")})
    assert json.loads((tmp_path / "run.json").read_text()) == {"figure": None} and len(list(tmp_path.iterdir())) == 1
    assert "<td>–</td>" in table(["evidence", "AUC"], [["raw", None]])


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


def test_the_suspects_of_a_report_are_the_rows_most_probable_noise(tmp_path):
    """Against a slow loop: highest probability first, each user with an item once, the truth beside it, neighbours in order."""
    folder = write_denoised(tmp_path, rows=(60, 20, 80))
    titles = read_catalogue(folder)
    split = read_split(folder / "test_5000.csv", titles, "ignored")
    prob, fits = probabilities_by_hand(split, "fused"), replacements_by_hand(split, 30)
    found = Findings(split, prob, fits, {}, [])
    listed = most_suspicious(found, titles, 0.5, 25)

    highest = {}
    for row, column in zip(*np.nonzero(split.editable)):
        holder = split.users[row], split.items[row, column]
        highest[holder] = max(highest.get(holder, (0,)), (prob[row, column], row, column))
    expected = sorted(highest.values(), reverse=True)[:25]
    assert [suspect.probability for suspect in listed] == [probability for probability, _, _ in expected]
    for suspect, (probability, row, column) in zip(listed, expected):
        window = split.items[row]
        assert (suspect.location, suspect.user) == (f"row {row + 1}", str(split.users[row]))
        assert suspect.item == Item(str(window[column]), titles[window[column]])
        assert [int(item.key) for item in suspect.before] == [item for item in window[:column] if item][-3:]
        assert [int(item.key) for item in suspect.after] == window[column + 1 : column + 4].tolist()
        assert suspect.replacement.key == str(fits[row, column])
        assert suspect.is_noise == (split.mask[row, column] == 1) and suspect.is_flagged == (probability > 0.5)
    missed = least_suspicious_noise(found, titles, 0.5, 1000)
    lowest = [suspect.probability for suspect in missed]
    assert missed and lowest == sorted(lowest) and all(suspect.is_noise and not suspect.is_flagged for suspect in missed)

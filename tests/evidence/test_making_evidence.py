"""denoise_code/making_evidence.py: the last act of stage 2, from folders to files, and what must not change them."""

import json

import numpy as np
import pandas as pd
import pytest
import rows as rows_of_stage_3
from made_up_logs import N_ITEMS, some_windows, title_vectors, write_grouped_folder, write_title_vectors
from options import RowsOptions
from safetensors.numpy import save_file

from denoise_code import judging, making_evidence
from denoise_code.common.errors import InputError
from denoise_code.data_set.evidence_files import ARRAYS, RECORD, read_evidence
from denoise_code.evidence.options import EvidenceOptions
from denoise_code.making_evidence import make_evidence

KINDS = ["collaborative", "semantic", "detector", "llm", "fused"]
FILES = ("train", "valid_5000", "test_5000")
pytestmark = pytest.mark.usefixtures("quick_evidence")


def write_folders(root, **log):
    """(a denoised folder without anything, its data set)"""
    data_set = write_grouped_folder(root / "Log_noise_user0.1", **{"users": 60} | log)
    folder = root / "Log_denoise_user0.1_0"
    folder.mkdir()
    return folder, data_set


def write_scores(folder, data_set):
    """Rows with noise_prob by a language model that knows nothing, and planted.csv. Targets and truth have no part in them."""
    rng = np.random.default_rng(0)
    for file in FILES:
        table = pd.read_csv(data_set / f"{file}.csv", dtype=str)
        lengths = table["item_ids"].map(json.loads).map(len) - (file != "train")
        table["noise_prob"] = [json.dumps(rng.uniform(-6, -1, length).round(3).tolist()) for length in lengths]
        for column in ("noise_items", "noise_items_prob", "suggest_item_ids"):
            table[column] = "[]"
        table.to_csv(folder / f"{file}.csv", index=False)
    train = pd.read_csv(folder / "train.csv", dtype=str)
    rows = np.sort(rng.choice(len(train), 200, replace=False))
    planted = train.iloc[rows].assign(train_row=rows, drawn=np.resize(["uniform", "popularity"], len(rows)))
    for column, value in (("item_ids", None), ("mask", 2)):
        cells = []
        for row, text in zip(rows.tolist(), planted[column]):
            cell = json.loads(text)
            cell[row % len(cell)] = value or next(item for item in range(1 + row % 50, N_ITEMS) if item not in cell)
            cells.append(json.dumps(cell))
        planted[column] = cells
    planted.to_csv(folder / "planted.csv", index=False)


def as_released(data_set):
    """Nothing tells where a row starts, nor what stood there before noise; and times are coarse, so that rows tie by them."""
    for file in FILES:
        table = pd.read_csv(data_set / f"{file}.csv", dtype=str).drop(columns=["start", "true_item_ids"])
        table.assign(timestamp=0).to_csv(data_set / f"{file}.csv", index=False)


def make_all_kinds(root, released=False, **log):
    folder, data_set = write_folders(root, **log)
    if released:
        as_released(data_set)
    write_title_vectors(folder, random_vectors())
    write_scores(folder, data_set)
    record = make_evidence(folder, data_set, EvidenceOptions())
    return folder, data_set, record


def random_vectors():
    vectors = np.random.default_rng(5).normal(size=(N_ITEMS + 1, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16)


@pytest.mark.parametrize("released", [False, True], ids=["ours", "released"])
def test_no_target_and_no_truth_reaches_the_file(tmp_path, released):
    """Exchange all targets of valid and test; then all masks and true items: evidence and replacements are byte for byte the same.

    Of all kinds, from rows on disk to the file.
    """
    folder, data_set, record = make_all_kinds(tmp_path / "before", released)
    assert record["kinds"] == KINDS and record["files"] == ["valid_5000", "test_5000"]
    before = (folder / ARRAYS).read_bytes()
    for change in ("change_targets", "change_truth"):
        other_folder, other_data, other_record = make_all_kinds(tmp_path / change, released, **{change: True})
        for file in FILES:
            rows, other_rows = (pd.read_csv(path / f"{file}.csv", dtype=str) for path in (data_set, other_data))
            assert (rows["mask"] != other_rows["mask"]).all() == (change == "change_truth")
            targets, other_targets = (part["item_ids"].map(json.loads).str[-1] for part in (rows, other_rows))
            assert (targets != other_targets).all() == (change == "change_targets" and file != "train")
        assert (other_folder / ARRAYS).read_bytes() == before, change
        names = {*record} - {"detection", "seconds", "peak_memory_gib", "sources", "disagreements"}
        assert {name: record[name] for name in names} == {name: other_record[name] for name in names}
    stored = read_evidence(folder)
    assert (stored.train_replacements > 0).mean() > 0.5 and (stored.history_replacements["test_5000"] > 0).any()


def test_what_is_read_does_reach_the_file(tmp_path):
    """The test above could fail: one item of one history of test changes what is said of this history."""
    folder, data_set = write_folders(tmp_path)
    make_evidence(folder, data_set, EvidenceOptions())
    before = read_evidence(folder)
    table = pd.read_csv(data_set / "test_5000.csv", dtype=str)
    items = json.loads(table.loc[3, "item_ids"])
    table.loc[3, "item_ids"] = json.dumps([1 + items[0] % N_ITEMS, *items[1:]])
    table.to_csv(data_set / "test_5000.csv", index=False)
    make_evidence(folder, data_set, EvidenceOptions())
    after = read_evidence(folder)
    differ = ~np.isclose(before.histories["test_5000"]["fused"], after.histories["test_5000"]["fused"], equal_nan=True)
    assert np.flatnonzero(differ.any(1)).tolist() == [3]
    assert np.array_equal(before.train["fused"], after.train["fused"], equal_nan=True)


def test_noise_is_found_and_the_share_is_that_of_the_bound(tmp_path):
    folder, data_set = write_folders(tmp_path, users=150)
    write_title_vectors(folder)
    record = make_evidence(folder, data_set, EvidenceOptions())
    injected = record["detection"]["injected"]
    assert injected["file"] == "test_5000" and injected["share"] == pytest.approx(0.15, abs=0.03)
    for kind in ("collaborative", "semantic", "fused"):
        assert injected["by kind"][kind]["AUC"] > 0.7 > injected["by kind"]["rarity"]["AUC"], kind
        assert record["detection"]["planted"][kind]["auc"] > 0.7
    assert record["noise_share"] == min(0.1, record["share_bound"]["fused"])


def test_an_interaction_has_one_probability_and_one_replacement(tmp_path):
    """Through stage 3's own reading, in all windows that hold it; a replacement is no item of any of these."""
    folder, data_set = write_folders(tmp_path)
    make_evidence(folder, data_set, EvidenceOptions())
    loaded = rows_of_stage_3.load(
        RowsOptions(folder.name, tmp_path, None, ("collaborative", "detector", "fused"), ("train", "valid", "test"))
    )
    split, evidence = loaded.splits["train"], loaded.evidence["train"]
    said, items = {}, {}
    for row, column in np.argwhere(split.items != 0):
        interaction = split.users[row], int(split.places[row, column])
        r = tuple(float(evidence.r[kind][row, column]) for kind in ("collaborative", "detector", "fused"))
        said.setdefault(interaction, []).append((*r, int(evidence.replacements[row, column])))
        items.setdefault(interaction, set()).update(split.items[row].tolist())
    assert all(len(set(values)) == 1 for values in said.values())
    assert not any(np.isnan(values[0]).any() for values in said.values())
    assert (
        max(len(values) for values in said.values()) == split.items.shape[1]
        and len({values[0] for values in said.values()}) > 300
    )
    assert not any(values[0][-1] in items[interaction] for interaction, values in said.items())
    assert np.mean([values[0][-1] > 0 for values in said.values()]) > 0.9
    for name in ("valid", "test"):
        split, evidence = loaded.splits[name], loaded.evidence[name]
        assert (np.isnan(evidence.r["fused"]) == ~split.editable).all() and not evidence.replacements[~split.editable].any()
        assert not ((evidence.replacements == split.items) & split.editable).any()


def test_it_is_made_later_and_again_only_where_its_sources_change(tmp_path, monkeypatch, capsys):
    folder, data_set = write_folders(tmp_path)
    first = make_evidence(folder, data_set, EvidenceOptions())
    arrays, times = (folder / ARRAYS).read_bytes(), (folder / ARRAYS).stat().st_mtime_ns
    assert first["kinds"] == ["collaborative", "detector", "fused"] and "evidence in" not in capsys.readouterr().out
    changes = {"targets of test": ("test_5000", -1), "nothing": ("test_5000", None)}
    original = (data_set / "test_5000.csv").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(making_evidence, "judge_interactions", None)  # nothing is learned
        for file, place in changes.values():
            if place is not None:
                change_item(data_set / f"{file}.csv", place)
            assert make_evidence(folder, data_set, EvidenceOptions()) == first
            assert f"the evidence in {folder} is complete" in capsys.readouterr().out
        assert (folder / ARRAYS).stat().st_mtime_ns == times
        (data_set / "test_5000.csv").write_text(original)
        calls = []
        patch.setattr(making_evidence, "judge_interactions", lambda *_: calls.append(1) or refuse())
        for file, place in (("train", -1), ("train", 0), ("valid_5000", 0), ("test_5000", 0)):
            path = data_set / f"{file}.csv"
            before = path.read_text()
            change_item(path, place)
            assert make_evidence(folder, data_set, EvidenceOptions()) is None
            path.write_text(before)
        assert make_evidence(folder, data_set, EvidenceOptions(seed=1)) is None
        assert len(calls) == 5
    (folder / RECORD).unlink()
    again = make_evidence(folder, data_set, EvidenceOptions())
    assert (folder / ARRAYS).read_bytes() == arrays and again["sources"] == first["sources"]
    write_title_vectors(folder)
    assert make_evidence(folder, data_set, EvidenceOptions())["kinds"] == ["collaborative", "semantic", "detector", "fused"]


def refuse():
    raise making_evidence.NoEvidence("asked for")


def change_item(path, place):
    """One item of the first row."""
    table = pd.read_csv(path, dtype=str)
    items = json.loads(table.loc[0, "item_ids"])
    items[place] = 1 + items[place] % N_ITEMS
    table.loc[0, "item_ids"] = json.dumps(items)
    if place == -1:  # of a target the true item is what is read
        table.loc[0, "true_item_ids"] = json.dumps([*json.loads(table.loc[0, "true_item_ids"])[:-1], items[-1]])
    table.to_csv(path, index=False)


def test_a_share_of_noise_that_is_given(tmp_path, monkeypatch):
    """It stands in the record; what is said of an interaction is r, which has no part in it and is not learned again."""
    folder, data_set = write_folders(tmp_path)
    make_evidence(folder, data_set, EvidenceOptions())
    before = read_evidence(folder)
    with monkeypatch.context() as patch:
        patch.setattr(making_evidence, "judge_interactions", None)
        assert make_evidence(folder, data_set, EvidenceOptions(noise_share=0.5))["noise_share"] == 0.5
    after = read_evidence(folder)
    (folder / RECORD).unlink()
    from_nothing = make_evidence(folder, data_set, EvidenceOptions(noise_share=0.5))
    assert {**after.record, "seconds": 0, "peak_memory_gib": 0} == {**from_nothing, "seconds": 0, "peak_memory_gib": 0}
    assert read_evidence(folder).train_replacements.tobytes() == after.train_replacements.tobytes()
    assert all(np.array_equal(before.train[kind], after.train[kind], equal_nan=True) for kind in before.kinds)
    assert (before.train_replacements != after.train_replacements).any()  # the others of a window count by 1 - P(noise)


def test_of_very_many_only_the_suspected_are_replaced(tmp_path, monkeypatch):
    folder, data_set = write_folders(tmp_path)
    monkeypatch.setattr(judging, "REPLACED_AT_MOST", 100)
    monkeypatch.setattr(judging, "LEAST_PROBABILITY", 0.2)
    record = make_evidence(folder, data_set, EvidenceOptions())
    few = read_evidence(folder)
    prob = np.minimum(record["noise_share"] * np.exp(few.train["fused"]), 1)
    assert record["replacements"]["least_probability"] == 0.2
    assert not few.train_replacements[~(prob >= 0.2)].any() and (few.train_replacements[prob >= 0.2] > 0).mean() > 0.9
    assert make_evidence(folder, data_set, EvidenceOptions(replace_all=True))["replacements"]["least_probability"] == 0
    assert (read_evidence(folder).train_replacements > 0).sum() > 2 * (few.train_replacements > 0).sum()


@pytest.mark.parametrize(
    "log, why",
    [
        ({"users": 1}, "its train rows are of too few users to learn from one half and judge the other"),
        ({"width": 2}, "its windows hold two items, and one of them says nothing of the other"),
    ],
)
def test_where_there_can_be_none_it_is_said(tmp_path, capsys, log, why):
    folder, data_set = write_folders(tmp_path, **log)
    assert make_evidence(folder, data_set, EvidenceOptions()) is None
    assert f"no evidence in {folder}, so stage 3 has the paper's noise_prob alone: {why}" in capsys.readouterr().out
    assert not list(folder.iterdir())


def test_a_catalogue_that_every_window_holds(tmp_path, capsys):
    """No item is left to plant."""
    folder, data_set = write_folders(tmp_path, users=20)
    (data_set / "id2name4Rec.json").write_text('{"1": "a", "2": "b"}')
    for file in FILES:
        table = pd.read_csv(data_set / f"{file}.csv", dtype=str)
        for column in ("item_ids", "true_item_ids"):
            table[column] = [json.dumps([1 + place % 2 for place in range(len(json.loads(cell)))]) for cell in table[column]]
        table.to_csv(data_set / f"{file}.csv", index=False)
    assert make_evidence(folder, data_set, EvidenceOptions()) is None
    assert "no evidence in" in capsys.readouterr().out


def test_title_vectors_of_another_catalogue_are_refused(tmp_path):
    folder, data_set = write_folders(tmp_path)
    vectors = np.ascontiguousarray(title_vectors()[1:])
    save_file({"vectors": vectors}, folder / "title_vectors.safetensors", metadata={"catalogue": "of another one"})
    with pytest.raises(InputError, match="title_vectors.safetensors: made for another catalogue than .* has now") as error:
        make_evidence(folder, data_set, EvidenceOptions())
    assert "\n" not in str(error.value)
    save_file({"vectors": vectors[:-1]}, folder / "title_vectors.safetensors")
    with pytest.raises(InputError, match=f"expected one vector for each of {N_ITEMS} items"):
        make_evidence(folder, data_set, EvidenceOptions())
    assert not (folder / RECORD).exists()


def test_a_data_set_of_train_rows_alone(tmp_path, capsys):
    """A log to be cleaned has no other: what a language model read before is not lost for want of them."""
    folder, data_set = write_folders(tmp_path)
    complete = make_evidence(folder, data_set, EvidenceOptions())
    for file in FILES[1:]:
        (data_set / f"{file}.csv").unlink()
    record = make_evidence(folder, data_set, EvidenceOptions())
    assert record["files"] == [] and record["kinds"] == complete["kinds"] and record["detection"]["injected"] is None
    assert (read_evidence(folder).train_replacements > 0).any()
    (data_set / "train.csv").unlink()
    capsys.readouterr()
    assert make_evidence(folder, data_set, EvidenceOptions()) is None
    assert "Log_noise_user0.1 has no train.csv" in capsys.readouterr().out


def test_few_planted_windows_calibrate_no_language_model(tmp_path, capsys):
    folder, data_set = write_folders(tmp_path)
    write_scores(folder, data_set)
    planted = pd.read_csv(folder / "planted.csv", dtype=str)
    planted.head(5).to_csv(folder / "planted.csv", index=False)
    assert make_evidence(folder, data_set, EvidenceOptions())["kinds"] == ["collaborative", "detector", "fused"]
    assert "planted.csv has 3 uniformly planted windows, 20 are needed (--planted)" in capsys.readouterr().out


def test_a_noise_prob_that_is_no_log_probability_is_refused(tmp_path):
    folder, data_set = write_folders(tmp_path)
    write_scores(folder, data_set)
    planted = pd.read_csv(folder / "planted.csv", dtype=str)
    n_scores = len(json.loads(planted.loc[2, "noise_prob"]))
    planted.loc[2, "noise_prob"] = json.dumps([-1.0] * (n_scores - 1) + [0.5])
    planted.to_csv(folder / "planted.csv", index=False)
    with pytest.raises(InputError, match="planted.csv row 3: noise_prob 0.5 is no natural log-probability"):
        make_evidence(folder, data_set, EvidenceOptions())


def test_log_odds_by_hand():
    assert making_evidence.log_odds(np.log(np.array([0.5, 0.9, 0.001]))) == pytest.approx(np.log([1, 9, 0.001 / 0.999]))
    assert np.isfinite(making_evidence.log_odds(np.array([0.0, -1e-30, -700.0]))).all()


def test_one_cell_of_each_interaction():
    """Any of those that were scored, and none where none was."""
    data, rng = some_windows(0), np.random.default_rng(0)
    of_cells = np.where(rng.random(data.train.shape) < 0.4, np.nan, rng.random(data.train.shape))
    drawn = np.stack([making_evidence.one_cell_of_interactions(data, of_cells, rng) for _ in range(100)])
    for row in range(len(data.interactions)):
        scored = of_cells[(data.train == row) & ~np.isnan(of_cells)].tolist()
        assert set(drawn[:, row].tolist()) == set(scored) if scored else np.isnan(drawn[:, row]).all()


def rewrite(path, change):
    change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("planted.csv", lambda table: table.drop(columns="drawn"), "no column 'drawn', found .*; without it evidence is made"),
        ("planted.csv", lambda table: table.drop(columns="train_row"), "no column 'train_row', found .*; without it evidence"),
        ("planted.csv", lambda table: table.assign(train_row="x"), " row 1: train_row is 'x', expected a whole number from 0 on"),
        ("users.csv", lambda table: table.drop(columns="key"), "no column 'key', found user_id; write it as data/README.md says"),
    ],
    ids=["drawn", "train_row", "no number", "key"],
)
def test_a_file_that_lacks_a_column_is_named(tmp_path, file, change, message):
    folder, data_set = write_folders(tmp_path)
    write_scores(folder, data_set)
    pd.DataFrame({"user_id": ["u0", "u1"], "key": ["a", "b"]}).to_csv(data_set / "users.csv", index=False)
    path = (folder if file == "planted.csv" else data_set) / file
    rewrite(path, change)
    with pytest.raises(InputError, match=f"{path}:? ?{message}"):
        make_evidence(folder, data_set, EvidenceOptions())

"""SASRec_code/export.py: RecBole's files hold the windows, noisy or filtered, and every item."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import export
import main as sasrec
import numpy as np
import pandas as pd
import pytest
from conftest import sasrec_command, write_denoised


def exported(root, *extra):
    return export.main(
        ["--dataset", "Z_denoise_user0.1_8_1", "--data_root", str(root), "--output_root", str(root / "out"), *extra]
    )


def rows_of(folder, split):
    (path,) = folder.glob(f"*/*.{split}.inter")
    header, *lines = path.read_text().splitlines()
    assert header == "user_id:token\titem_id_list:token_seq\titem_id:token"
    cells = [line.split("\t") for line in lines]
    return [(user, [*map(int, history.split()), int(target)]) for user, history, target in cells]


RAW = ["--denoise_category", "all", "--test_noise_filter_threshold", "0.6", "--edit", "delete"]


@pytest.mark.parametrize("options", [[], RAW, ["--denoise_category", "all", "--evidence", "fused"]])
def test_the_same_windows_that_sasrec_trains_on(tmp_path, options):
    from experiment import read_rows
    from options import FilterOptions, RowsOptions

    write_denoised(tmp_path)
    args = sasrec.parse_args(sasrec_command(tmp_path, *options))
    rows = read_rows(RowsOptions.from_arguments(args), FilterOptions.from_arguments(args))
    splits, n_items = rows.loaded.splits, rows.loaded.n_items
    windows = {split: edits.windows for split, edits in rows.edited().items()}
    folder = exported(tmp_path, *options)
    for split, items in windows.items():
        exported_rows = rows_of(folder, split)
        assert [window for _, window in exported_rows] == [[item for item in row if item] for row in items.tolist()]
        assert [user for user, _ in exported_rows] == splits[split].users.tolist()
    assert any((windows[split] != splits[split].items).any() for split in windows) == bool(options)
    (items,) = folder.glob("*/*.item")
    assert items.read_text().splitlines()[1:] == [f"{item}\tItem {item}" for item in range(1, n_items + 1)]
    yaml = next(folder.glob("*.yaml")).read_text()
    assert str(folder.resolve()) in yaml and "MAX_ITEM_LIST_LENGTH: 10" in yaml


def interrupt(*_):
    raise KeyboardInterrupt


def test_exports_stand_beside_each_other_and_repeat(tmp_path, capsys, monkeypatch):
    write_denoised(tmp_path)
    noisy, filtered, clean = exported(tmp_path), exported(tmp_path, "--denoise_category", "train"), exported(tmp_path, "--clean")
    assert len({noisy, filtered, clean}) == 3 and exported(tmp_path) == noisy
    assert rows_of(noisy, "test") == rows_of(filtered, "test") and rows_of(noisy, "train") != rows_of(filtered, "train")
    assert not list(noisy.parent.glob(".*")) and np.all([path.exists() for path in (noisy, filtered, clean)])
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", interrupt)  # a kill before the new export is in its place
        exported(tmp_path)
    assert rows_of(noisy, "test") == rows_of(filtered, "test") and not list(noisy.parent.glob(".*"))
    for wrong, message in (
        (["--lr", "1"], "unrecognized arguments"),
        (["--clean", "--denoise_category", "all"], "nothing to denoise"),
    ):
        with pytest.raises(SystemExit):
            exported(tmp_path, *wrong)
        assert message in capsys.readouterr().err


STRANGE_TITLES = [
    '"Deluxe" Kit', 'The "Quoted" One', '5" pipe', '"', '""', '"open', "it's", "NA", "null", "nan", "None", "N/A", "#N/A N/A", "<NA>",
    "-1.#IND", "NULL", "n/a", "a\\b", "1,2;3", "#1", "0012", "映画の夜", "tab\tand\nline",
]  # fmt: skip


@pytest.fixture
def strange_items(tmp_path):
    """RecBole's files of a data set whose items have STRANGE_TITLES, and one of whose users is called NA."""
    folder = write_denoised(tmp_path, n_items=len(STRANGE_TITLES), rows=(20, 20, 20))
    (folder / "id2name4Rec.json").write_text(json.dumps(dict(enumerate(STRANGE_TITLES, 1))))
    table = pd.read_csv(folder / "train.csv", dtype=str)
    table.loc[0, "user_id"] = "NA"
    table.to_csv(folder / "train.csv", index=False)
    return exported(tmp_path)


def read_as_recbole_does(path):
    """RecBole 1.2.1's call (recbole/data/dataset/dataset.py, _load_feat): every column as text."""
    return pd.read_csv(path, delimiter="\t", dtype=str, encoding="utf-8", engine="python")


def test_recbole_s_arguments_read_what_was_written(strange_items):
    (items,), (train,) = strange_items.glob("*/*.item"), strange_items.glob("*/*.train.inter")
    table = read_as_recbole_does(items)
    assert table["item_id:token"].tolist() == [str(item) for item in range(1, len(STRANGE_TITLES) + 1)]
    assert [title.split() for title in table["title:token_seq"]] == [title.split() for title in STRANGE_TITLES]
    users = read_as_recbole_does(train)["user_id:token"]
    assert users[0].strip() == "NA" and not users.isna().any()


def test_what_pandas_takes_for_missing():
    """The names are pandas' own: a new version that takes more of them for missing shows here."""
    from pandas._libs.parsers import STR_NA_VALUES

    assert set(STR_NA_VALUES) == export.READ_AS_MISSING


def test_recbole_s_own_reader_reads_what_was_written(strange_items, monkeypatch):
    if importlib.util.find_spec("recbole") is None:
        pytest.skip("the wheel recbole is not installed")
    for name in ("colorlog", "colorama", "texttable"):  # what it logs with, which the wheel alone does not bring
        if importlib.util.find_spec(name) is None:
            monkeypatch.setitem(sys.modules, name, MagicMock())
    from recbole.data.dataset.dataset import Dataset, FeatureSource

    config = {
        "load_col": {"item": ["item_id", "title"], "inter": ["user_id", "item_id_list", "item_id"]}, "unload_col": None,
        "field_separator": "\t", "encoding": "utf-8", "seq_separator": " ", "seq_len": None,
    }  # fmt: skip
    reader = SimpleNamespace(
        config=config, logger=MagicMock(), field2source={}, field2type={}, field2seqlen={}, field2bucketnum={}
    )
    reader._get_load_and_unload_col = lambda source: Dataset._get_load_and_unload_col(reader, source)
    (items,), (train,) = strange_items.glob("*/*.item"), strange_items.glob("*/*.train.inter")
    titles = Dataset._load_feat(reader, items, FeatureSource.ITEM)["title"]
    assert [list(words) for words in titles] == [title.split() for title in STRANGE_TITLES]
    rows = Dataset._load_feat(reader, train, FeatureSource.INTERACTION)
    expected = rows_of(strange_items, "train")
    assert [[*map(int, history), int(target)] for history, target in zip(rows["item_id_list"], rows["item_id"])] == [
        items for _, items in expected
    ]


def test_samples_are_named_and_all_rows_can_be_had(tmp_path, capsys):
    folder = write_denoised(tmp_path, rows=(30, 10, 10))
    exported(tmp_path)
    printed = capsys.readouterr().out
    assert "valid: valid_5000.csv is a sample of 10 rows, there is no valid.csv" in printed and "train:" not in printed
    with pytest.raises(SystemExit):
        exported(tmp_path, "--rows", "all")
    assert "--rows all: no valid.csv in Z_denoise_user0.1_8_1" in capsys.readouterr().err
    for split in ("valid", "test"):
        table = pd.read_csv(folder / f"{split}_5000.csv")
        pd.concat([table, table.head(3)]).to_csv(folder / f"{split}.csv", index=False)
    sample = exported(tmp_path)
    assert "test: test_5000.csv is a sample of 10 rows; --rows all takes those of test.csv" in capsys.readouterr().out
    whole = exported(tmp_path, "--rows", "all")
    assert "is a sample" not in capsys.readouterr().out and whole != sample
    assert [len(rows_of(of_export, "test")) for of_export in (sample, whole)] == [10, 13]

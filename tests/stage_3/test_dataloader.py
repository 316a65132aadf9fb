"""denoise_code/data_set/padded_rows.py: rows as they are, rows that are refused."""

import ast
import json

import main as sasrec
import numpy as np
import pandas as pd
import pytest
from conftest import sasrec_command, sasrec_refused, write_denoised

from denoise_code.data_set import catalogue, padded_rows


def test_noisy_targets_of_valid_are_restored(tmp_path):
    folder = write_denoised(tmp_path, rows=(5, 5, 5))
    table = pd.read_csv(folder / "valid_5000.csv")
    table.loc[0, ["item_ids", "mask", "replaced_item_titles"]] = "[1, 2, 3, 9]", "[0, 1, 0, 1]", "['Item 7', \"Item 4\"]"
    table.loc[0, "noise_prob"] = "[-1, -2, -3]"
    table.to_csv(folder / "valid_5000.csv", index=False)
    split = padded_rows.read_split(folder / "valid_5000.csv", catalogue.read_catalogue(folder), "needed")
    assert split.items[0, -4:].tolist() == [1, 2, 3, 4] and split.clean[0, -4:].tolist() == [1, 7, 3, 4]


def break_cell(folder, file, row, column, text):
    table = pd.read_csv(folder / file, dtype=str)
    if row is None:
        table = table.drop(columns=column)
    else:
        table.loc[row, column] = text
    table.to_csv(folder / file, index=False)


@pytest.mark.parametrize(
    "file, row, column, text, message",
    [
        ("train.csv", None, "noise_items", "", "train.csv: no column 'noise_items'"),
        ("train.csv", 3, "item_ids", "[99, 1, 2, 3]", "train.csv row 4: "),
        ("train.csv", 0, "item_ids", "[]", "train.csv row 1: 0 items"),
        ("train.csv", 0, "item_ids", "[1, 2, 3]", "train.csv row 1: 3 items and"),
        ("train.csv", 0, "item_ids", "__import__('os').getcwd()", "train.csv row 1: item_ids is"),
        ("train.csv", 4, "start", "-1", "train.csv row 5: start is '-1'"),
        ("test_5000.csv", 2, "start", "first", "test_5000.csv row 3: start is 'first'"),
        ("train.csv", 5, "noise_prob", "[NaN, 1.0]", "train.csv row 6: noise_prob"),
        ("test_5000.csv", 1, "noise_prob", "[1.0]", "test_5000.csv row 2: noise_prob has 1 values"),
        ("train.csv", 2, "noise_items", "[1, 2]", "train.csv row 3: noise_items, noise_items_prob"),
        ("train.csv", 2, "noise_items", json.dumps([1] * 12), "train.csv row 3: 12 noise_items for"),
        ("train.csv", 2, "suggest_item_ids", "[1, 2, 77]", "train.csv row 3: noise_items or suggest_item_ids outside"),
        ("valid_5000.csv", 0, "noise_items_prob", "[NaN, -1.0, -2.0]", "valid_5000.csv row 1: noise_prob or"),
    ],
)
def test_bad_rows(tmp_path, capsys, file, row, column, text, message):
    break_cell(write_denoised(tmp_path, rows=(20, 20, 20)), file, row, column, text)
    sasrec_refused(capsys, sasrec_command(tmp_path, "--denoise_category", "all"), message)


def test_the_authors_files(released, tmp_path):
    """Training and evaluation run on the release's rows as they are, beyond what guessing would give."""
    run = sasrec.main(
        [
            "--dataset",
            "Toy_denoise_user0.1",
            "--data_root",
            str(released.parent),
            "--output_root",
            str(tmp_path),
            "--num_epochs",
            "2",
        ]
    )
    assert run["rows"] == {"train": 5000, "valid": 4793, "test": 4794} and run["n_items"] == 11758
    split = padded_rows.read_split(released / "valid_5000.csv", catalogue.read_catalogue(released), "ignored")
    noisy, raw = np.flatnonzero(split.mask[:, -1] == 1), pd.read_csv(released / "valid_5000.csv")
    titles = catalogue.read_catalogue(released)
    assert 0.08 < len(noisy) / len(raw) < 0.12
    for row in noisy:
        assert titles[split.items[row, -1]] == ast.literal_eval(raw.replaced_item_titles[row])[-1]
        assert json.loads(raw.item_ids[row])[:-1][-10:] == split.items[row, -11:-1][split.items[row, -11:-1] != 0].tolist()


def test_places_of_padded_and_cut_rows(tmp_path):
    (tmp_path / "train.csv").write_text('user_id,item_ids,mask,start\n1,"[3, 1, 2]","[0, 0, 0]",4\n1,"[3, 1]","[0, 0]",0\n')
    read = padded_rows.read_split(tmp_path / "train.csv", ["", "a", "b", "c"], "ignored")
    split = padded_rows.resize(read, 2)
    assert split.items.tolist() == [[1, 2], [3, 1]] and split.places.tolist() == [[5, 6], [0, 1]]
    wide = padded_rows.resize(read, 4)
    assert wide.places[0, 1:].tolist() == [4, 5, 6]

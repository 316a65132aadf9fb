"""denoise_code/data_set/padded_rows.py: what the released rows say of the items before noise."""

import json

import pandas as pd

from denoise_code.data_set.padded_rows import read_split

TITLES = ["", "Pear", "Plum", "Plum", "Fig", "Date"]  # two items are called Plum


def write_released(path, replaced: list[list[str]]):
    """Rows as the authors have them: no true_item_ids, but the titles that noise replaced; the second place of each is noise."""
    rows = [
        {"user_id": row, "item_ids": "[1, 5, 4]", "mask": "[0, 1, 0]", "item_titles": "[]", "timestamp": row,
         "replaced_item_titles": json.dumps(titles)}
        for row, titles in enumerate(replaced)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(path, index=False)


def test_items_before_noise_by_their_titles(tmp_path, capsys):
    """The first of several items of a title, and what stands there where no item has it; both are counted."""
    write_released(tmp_path / "train.csv", [["Fig"], ["Plum"], ["Plum"], ["Quince"], []])
    split = read_split(tmp_path / "train.csv", TITLES, columns="ignored")
    assert split.clean[:, 1].tolist() == [4, 2, 2, 5, 5] and split.items[:, 1].tolist() == [5] * 5
    printed = capsys.readouterr().out
    assert "train.csv: 1 of replaced_item_titles are no titles of the catalogue" in printed
    assert "train.csv: 2 of replaced_item_titles are titles of several items, the first of them is taken" in printed

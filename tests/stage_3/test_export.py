"""SASRec_code/export.py: RecBole's files hold the windows, noisy or filtered, and every item."""

import export
import main as sasrec
import numpy as np
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


@pytest.mark.parametrize(
    "options", [[], ["--denoise_category", "all", "--test_noise_filter_threshold", "0.6", "--edit", "delete"]]
)
def test_the_same_windows_that_sasrec_trains_on(tmp_path, options):
    from experiment import read_rows
    from options import FilterOptions, RowsOptions

    write_denoised(tmp_path)
    args = sasrec.parse_args(sasrec_command(tmp_path, *options))
    rows = read_rows(RowsOptions.from_arguments(args), FilterOptions.from_arguments(args))
    splits, n_items, windows = rows.splits, rows.n_items, rows.edited()
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


def test_exports_stand_beside_each_other_and_repeat(tmp_path, capsys):
    write_denoised(tmp_path)
    noisy, filtered, clean = exported(tmp_path), exported(tmp_path, "--denoise_category", "train"), exported(tmp_path, "--clean")
    assert len({noisy, filtered, clean}) == 3 and exported(tmp_path) == noisy
    assert rows_of(noisy, "test") == rows_of(filtered, "test") and rows_of(noisy, "train") != rows_of(filtered, "train")
    assert not list(noisy.parent.glob(".*")) and np.all([path.exists() for path in (noisy, filtered, clean)])
    for wrong, message in (
        (["--lr", "1"], "unrecognized arguments"),
        (["--clean", "--denoise_category", "all"], "nothing to denoise"),
    ):
        with pytest.raises(SystemExit):
            exported(tmp_path, *wrong)
        assert message in capsys.readouterr().err

"""SASRec_code/compare.py: finished runs beside each other."""

from pathlib import Path

import compare
import comparison
import main as sasrec
import numpy as np
import pytest
import report
from conftest import sasrec_command, write_denoised
from options import OPTIONS_OF_ROWS, filter_parser


def runs_of(capsys, tmp_path, *settings):
    """The folders of runs with these options."""
    folders = []
    for options in settings:
        command = sasrec_command(tmp_path, "--seeds", 2, *options)
        sasrec.main(command)
        capsys.readouterr()
        sasrec.main([*command, "--where"])
        folders.append(Path(capsys.readouterr().out.splitlines()[-1]))
    return folders


def test_compare(tmp_path, capsys):
    write_denoised(tmp_path, rows=(200, 60, 60))
    found = [
        "--denoise_category",
        "all",
        "--evidence",
        "fused",
        "--edit",
        "delete",
        "--train_noise_filter_threshold",
        0.3,
    ]
    at_random = [*found, "--evidence", "random"]
    folders = runs_of(capsys, tmp_path, [], found, at_random, ["--clean"])
    compared = compare.main(list(map(str, folders)))
    printed = capsys.readouterr().out
    assert [run.rows for run in compared] == [
        "noisy",
        "fused, delete",
        "fused, delete at random places",
        "clean",
    ] and "60 test rows of 7 users, 2 seeds" in printed
    ranks = [np.load(folder / "test_ranks.npz")["ranks"] for folder in folders]
    assert all(values.shape == (2, 60, 2) and (values[..., 1] == 1).all() for values in ranks)  # no ties here
    gains = [np.where(values[..., 0] < 20, 1 / np.log2(values[..., 0] + 2), 0).mean() for values in ranks]
    for run, gain in zip(compared, gains):
        assert run.metrics["NDCG@20"]["mean"] == pytest.approx(gain)
    for run, gain in zip(compared[1:], gains[1:]):
        assert run.difference["mean"] == pytest.approx(gain - gains[0])
        low, high = run.difference["interval_95"]
        assert low < gain - gains[0] < high
        says = "higher" if low > 0 else "lower" if high < 0 else "nothing is shown"
        assert f"NDCG@20 of {run.rows} against noisy: {says}" in printed
    assert compared[1].to_random_places["mean"] == pytest.approx(gains[1] - gains[2])
    assert ["to random places" in run.as_row() for run in compared] == [False, True, False, False]
    assert "against as many edits at random places: " in printed
    assert max(len(line) for line in printed.splitlines() if line.startswith("|")) <= 110
    report.main(["--dataset", "Z_denoise_user0.1_8_1", "--data_root", str(tmp_path), "--runs", *map(str, folders)])
    page = (tmp_path / "Z_denoise_user0.1_8_1" / "report.html").read_text()
    assert "What it is worth to the recommender" in page and comparison.sentence(compared[1], compared[0]) in page


def test_runs_that_cannot_be_compared(tmp_path, capsys):
    write_denoised(tmp_path, rows=(60, 60, 60))
    write_denoised(tmp_path, rows=(60, 60, 60), seed=1, name="Y_denoise_user0.1_8_1")
    (one,) = runs_of(capsys, tmp_path, [])
    (other,) = runs_of(capsys, tmp_path, ["--dataset", "Y_denoise_user0.1_8_1"])
    compare.main(list(map(str, runs_of(capsys, tmp_path, [], ["--clean", "--lr", 0.01, "--seeds", 1]))))
    printed = capsys.readouterr().out
    assert "not only their rows differ: --lr is 0.001 and 0.01" in printed and "--clean" not in printed and "one seed" in printed
    for folders, message in (
        ([one, other], "ranks other test rows"),
        ([one, one], "is given twice"),
        ([one, tmp_path], "no run.json and test_ranks.npz"),
        ([one], "two runs"),
    ):
        with pytest.raises(SystemExit):
            compare.main(list(map(str, folders)))
        assert message in capsys.readouterr().err
    with np.load(one / "test_ranks.npz") as file:
        arrays = dict(file)
    np.savez(one / "test_ranks.npz", **arrays | {"ranks": arrays["ranks"].mean(2)})
    with pytest.raises(SystemExit):
        compare.main([str(one), str(other)])
    assert "ranks of shape (2, 60), expected (seeds, rows, 2)" in capsys.readouterr().err


def test_controls_that_control_something_else(tmp_path, capsys):
    """A random run with another threshold, or of other evidence, says nothing of a run."""
    write_denoised(tmp_path, rows=(200, 60, 60))
    found = ["--denoise_category", "all", "--edit", "delete", "--train_noise_filter_threshold"]
    settings = [[], [*found, 0.3, "--evidence", "fused"], [*found, 0.4, "--evidence", "random"]]
    settings.append([*found, 0.4, "--evidence", "collaborative"])
    compared = compare.main(list(map(str, runs_of(capsys, tmp_path, *settings))))
    assert [run.rows for run in compared] == ["noisy", "fused, delete", "random, delete", "collaborative, delete"]
    assert not any(run.to_random_places for run in compared)


def test_each_setting_has_its_own_control(tmp_path, capsys):
    write_denoised(tmp_path, rows=(200, 60, 60))
    found = ["--denoise_category", "all", "--edit", "delete", "--train_noise_filter_threshold"]
    settings = [[*found, share, "--evidence", kind] for share in (0.3, 0.4) for kind in ("fused", "random")]
    folders = runs_of(capsys, tmp_path, [], *settings)
    compared = compare.main(list(map(str, folders)))
    assert [run.to_random_places is not None for run in compared] == [False, True, False, True, False]
    assert compared[3].rows == f"fused, delete ({folders[3]})"
    assert compared[4].rows == compared[3].rows + " at random places"


def test_no_run_is_dropped_for_its_name():
    """Two controls of equal settings, of two output roots: one takes the name of the edits, both are there."""

    def run(folder, evidence):
        settings = {"clean": False, "denoise_category": "all", "evidence": evidence, "edit": "replace"}
        return comparison.Run(Path(folder), settings, None, None, None)

    runs = [run("a/found", "fused"), run("a/random", "random"), run("b/random", "random")]
    names = ["fused, replace", "fused, replace at random places", "random, replace (b/random)"]
    assert list(comparison.name_runs(runs)) == names


def test_sentences():
    for interval, word in (([0.1, 0.2], "higher"), ([-0.2, -0.1], "lower"), ([-0.1, 0.1], "nothing is shown")):
        run = comparison.ComparedRun("b", {}, difference={"interval_95": interval})
        assert comparison.sentence(run, comparison.ComparedRun("a", {})).startswith(f"NDCG@20 of b against a: {word}")


def test_options_of_rows_are_those_of_the_filter():
    """What compare.py expects to differ: all options of the filter, but for the places and the length, which shapes models too."""
    options = vars(filter_parser("").parse_args(["--dataset", ""])).keys()
    assert set(OPTIONS_OF_ROWS) == options - {"maxlen", "data_root", "output_root"}


@pytest.mark.parametrize("rows", [1, 40])
def test_one_user_has_no_interval_and_no_verdict(rows):
    """However many rows: what another user would give is in none of them."""
    ranks = {"noisy": np.full((2, rows, 2), (30, 1)), "a": np.full((2, rows, 2), (0, 1)), "clean": np.full((2, rows, 2), (0, 1))}
    compared = comparison.compare(np.repeat("user", rows), ranks)
    assert [run.difference for run in compared] == [None, *[{"mean": 1.0, "interval_95": None}] * 2]
    assert not any("gap won back" in run.as_row() for run in compared)
    assert (
        comparison.sentence(compared[1], compared[0]) == "NDCG@20 of a against noisy: nothing is shown: one user has no interval"
    )
    assert "| +1.0000 (no interval) |" in comparison.table([run.as_row() for run in compared], ("rows", "difference"))
    two_users = comparison.compare(np.array(["a", "b"]), {name: of_run[:, [0, 0]] for name, of_run in ranks.items()})
    assert two_users[1].difference["interval_95"] == [1.0, 1.0]

"""SASRec_code/sweep.py: valid chooses, test is looked at once."""

import copy
import json
from dataclasses import FrozenInstanceError, replace

import bench
import filter as threshold_filter
import main as sasrec
import numpy as np
import pandas as pd
import pytest
import ranking
import sweep
import torch
from conftest import sasrec_arguments, sasrec_command, write_denoised
from experiment import read_rows
from options import EditLimits, FilterOptions, RecommenderOptions, RowsOptions, TrainingOptions
from training import Trainer

EDITS = ("delete", "replace")
GRIDS = ["--train_thresholds", 0.3, "--test_thresholds", 0.2, 0.4, "--train_caps", 2, "--test_caps", 1, "--seeds", 2]


def run(tmp_path, *options):
    """(what the sweep returns, its folder)"""
    result = sweep.main(sasrec_command(tmp_path, *GRIDS, *options, epochs=3))
    return result, max((tmp_path / "out").rglob("report.json"), key=lambda path: path.stat().st_mtime_ns).parent


def test_sweep(tmp_path):
    write_denoised(tmp_path, rows=(200, 60, 60))
    compared = ["--evidence", "collaborative", "--edit", *EDITS]
    result, folder = run(tmp_path, *compared)
    table = pd.read_csv(folder / "sweep.csv")
    names = [f"collaborative, {edit}{places}" for edit in EDITS for places in ("", " at random places")]
    assert len(table) == 2 * 2 * 2 * 3
    for name in names:  # the control chooses as well
        best = table.loc[table[table.rows == name]["valid NDCG@20"].idxmax()]
        chosen = result["chosen"]["SASRec"][name]
        assert chosen == {key: best[key] for key in chosen}
    assert [row["rows"] for row in result["report"]] == ["noisy", *names, *(f"oracle, {edit}" for edit in EDITS), "clean"]
    noisy, clean = (result["report"][place] for place in (0, -1))
    anew = ["--seeds", 2, "--output_root", tmp_path / "anew"]
    assert noisy["NDCG@20"] == sasrec.main(sasrec_command(tmp_path, *anew, epochs=3))["metrics"]["test"]["NDCG@20"]
    of_clean = sasrec.main(sasrec_command(tmp_path, *anew, "--clean", epochs=3))["metrics"]["test"]["NDCG@20"]
    assert clean["NDCG@20"] == of_clean
    for row in result["report"][1:-1]:
        won, gap = row["NDCG@20"]["mean"] - noisy["NDCG@20"]["mean"], of_clean["mean"] - noisy["NDCG@20"]["mean"]
        assert row["difference"]["mean"] == pytest.approx(won)
        assert "gap won back" not in row or row["gap won back"]["mean"] == pytest.approx(won / gap)
        assert row["difference"]["interval_95"][0] <= won <= row["difference"]["interval_95"][1]
        assert ("to random places" in row) == (row["rows"] in names[::2])
    assert all(row["rows"] in (folder / "report.md").read_text() for row in result["report"])


@pytest.mark.parametrize("edit", EDITS)
def test_a_row_of_a_sweep_is_a_run_of_main(tmp_path, monkeypatch, edit):
    """Each row, the oracle's too: the same settings given to main.py train the same models, whose epochs noisy histories chose."""
    write_denoised(tmp_path, rows=(200, 60, 60))
    monkeypatch.setattr(bench, "grid", lambda *of_part, grid=bench.grid: grid(*of_part)[1:])  # something is edited
    shared = ["--evidence", "fused", "--edit", edit, "--lr", 0.01]
    report, _ = run(tmp_path, *shared, "--train_thresholds", 0.25, "--test_thresholds", 0.2, "--test_caps", 5)
    rows = {row["rows"]: row for row in report["report"]}
    anew = ["--seeds", 2, "--lr", 0.01, "--output_root", tmp_path / "anew"]
    of_oracle = ["--denoise_category", "all", "--evidence", "oracle", "--edit", edit]
    of_main = {"noisy": [], "clean": ["--clean"], f"oracle, {edit}": of_oracle}
    for name, kind in ((f"fused, {edit}", "fused"), (f"fused, {edit} at random places", "random")):
        options = ["--denoise_category", "all", "--evidence", kind, "--edit", edit]
        options += [part for key, value in report["chosen"]["SASRec"][name].items() for part in (f"--{key}", value)]
        of_main[name] = options
    for name, options in of_main.items():
        result = sasrec.main(sasrec_command(tmp_path, *anew, *options, epochs=3))
        assert {metric: rows[name][metric] for metric in result["metrics"]["test"]} == result["metrics"]["test"], name
        for of_draw, of_seed in zip(report["edits"]["SASRec"].get(name, []), result["edits"]):
            assert {split: of_seed[split] for split in of_draw} == of_draw and of_draw["train"]["flagged"] > 0, name
    assert report["edits"]["SASRec"].keys() == of_main.keys() - {"noisy", "clean"}
    assert report["evidence"]["fused"]["kind"] == "fused" and report["evidence"]["fused"]["coefficients"]
    models = {path.name for path in (tmp_path / "anew").rglob("models/*")}
    assert models <= {path.name for path in (tmp_path / "out").rglob("models/*")}, "main.py and sweep.py share what they train"


def test_sweep_goes_on_and_test_chooses_nothing(tmp_path):
    write_denoised(tmp_path, rows=(200, 60, 60))
    raw = ["--edit", "delete", "--train_thresholds", 0.8, "--test_thresholds", 0.5, 0.8]
    result, folder = run(tmp_path, *raw)
    table_before = (folder / "sweep.csv").read_bytes()
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("models/*")}
    assert len(models) == 2 * 4  # noisy, edited, oracle, clean; 2 seeds
    assert run(tmp_path, *raw)[0] == result
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("models/*")} == models
    test_rows = tmp_path / "Z_denoise_user0.1_8_1" / "test_5000.csv"
    changed = pd.read_csv(test_rows)
    changed["item_ids"] = changed["item_ids"].map(lambda text: json.dumps([*json.loads(text)[:-1], 1]))
    changed.to_csv(test_rows, index=False)
    other, folder = run(tmp_path, *raw)
    assert (folder / "sweep.csv").read_bytes() == table_before and other["report"] != result["report"]
    assert other["chosen"] == result["chosen"]


def test_shares_of_test_are_counted_in_valid(tmp_path):
    """As in main.py: at the setting that valid chose, the same metrics."""
    write_denoised(tmp_path, rows=(200, 60, 60))
    result, _ = run(tmp_path, "--train_thresholds", "--test_thresholds", 0.5, "--test_caps", 2)
    chosen = result["chosen"]["SASRec"]["raw, replace"]
    assert [row["rows"] for row in result["report"]] == ["noisy", "raw, replace", "clean"]  # others have no suggestions elsewhere
    assert chosen["test_noise_filter_threshold"] == 0.5, "choose other rows: valid must prefer to edit"
    options = ["--denoise_category", "test", "--test_noise_filter_threshold", 0.5, "--test_max_denoise_num", 2]
    rows = read_rows(*options_of(sasrec_arguments(tmp_path, *options)))
    expected = rows.edited()["test"].windows
    tried = make_bench(rows, sasrec_arguments(tmp_path, *options))
    arm = bench.Arm("raw, replace", rows.filtering, [rows.probabilities])
    limits = EditLimits(chosen["test_noise_filter_threshold"], chosen["test_max_denoise_num"])
    (edited,) = tried.windows("test", arm, limits)
    assert (edited.numpy() == expected).all() and (expected != rows.loaded.splits["test"].items).any()


def options_of(args):
    return RowsOptions.from_arguments(args), FilterOptions.from_arguments(args)


def make_bench(rows, args, grids=None, first_seed=None, n_seeds=None):
    """A bench of SASRec for these arguments."""
    args = sweep.with_settings(args, maxlen=rows.loaded.splits["train"].items.shape[1] - 1)
    recommender, training = RecommenderOptions.from_arguments(args, "SASRec"), TrainingOptions.from_arguments(args)
    models = args.output_root / args.dataset / "models"
    trainer = Trainer(rows.loaded.n_items, recommender, training, torch.device("cpu"), models)
    first_seed = first_seed or args.seed
    seeds = range(first_seed, first_seed + (n_seeds or args.seeds))
    return bench.Bench(rows.loaded, trainer, seeds, grids, {})


def test_each_seed_has_its_own_random_places(tmp_path):
    """Seeds are independent: what one of several gives is what it gives by itself, of its own draw."""
    write_denoised(tmp_path, rows=(200, 60, 60))
    args = sasrec_arguments(tmp_path, "--denoise_category", "all", "--seeds", 2, "--num_epochs", 2, "--edit", "delete")
    rows = read_rows(*options_of(args))
    splits = rows.loaded.splits
    weights = {name: np.where(split.editable, 1 / (2 + split.items), np.nan) for name, split in splits.items()}
    draws = [
        {name: threshold_filter.shuffle_probabilities(rows.loaded, name, prob, draw) for name, prob in weights.items()}
        for draw in (0, 1)
    ]
    limits, no_edits = EditLimits(0.05, 3), EditLimits(1.0, 0)
    setting = bench.Setting(limits, limits)
    filtering = replace(rows.filtering, evidence="collaborative")
    arm, alone_arms = bench.Arm("arm", filtering, draws), [bench.Arm("arm", filtering, [draw]) for draw in draws]
    of_both = make_bench(rows, args)
    both = of_both.test(arm, setting).ranks
    for place, alone_arm in enumerate(alone_arms):
        alone = make_bench(rows, args, first_seed=args.seed + place, n_seeds=1)
        assert (both[place] == alone.test(alone_arm, setting).ranks[0]).all()
    assert (both != of_both.test(alone_arms[0], setting).ranks).any((1, 2)).tolist() == [False, True]
    histories = bench.Grids(bench.grid([], []), bench.grid([0.05], [3]))
    assert histories == bench.Grids([no_edits], [no_edits, limits])
    _, record = make_bench(rows, args, histories).choose(arm).records
    ranks = []
    for place, alone_arm in enumerate(alone_arms):
        (valid,) = of_both.windows("valid", alone_arm, limits)
        (noisy_train,), (noisy_valid,) = (of_both.windows(name, alone_arm, no_edits) for name in ("train", "valid"))
        assert (noisy_train.numpy() == splits["train"].items).all()
        ranks += of_both.ranks(noisy_train, noisy_valid, [valid], args.seed + place)
    assert record["valid NDCG@20"] == pytest.approx(np.mean([ranking.ndcg_per_row(of_seed).mean() for of_seed in ranks]))
    edits_alone = bench.Grids([limits], [limits])  # unedited is best here
    choice = make_bench(rows, args, edits_alone).choose(arm)
    assert choice.setting == setting
    edits, anew = choice.train_edits, of_both.test(arm, choice.setting)
    same = of_both.test(arm, choice.setting, edits)
    assert (same.ranks == anew.ranks).all() and same.edits == anew.edits
    assert (of_both.test(arm, choice.setting, edits[::-1]).ranks != anew.ranks).any()


def test_models_beside_each_other(tmp_path):
    """Each model's part is what it has alone."""
    write_denoised(tmp_path, rows=(200, 60, 60))
    few = ["--evidence", "collaborative", "--edit", "delete", "--loss", "ce"]
    both, folder = run(tmp_path, *few, "--model", "GRU4Rec", "SASRec")
    alone, _ = run(tmp_path, *few)
    assert [row for row in both["report"] if row["model"] == "SASRec"] == alone["report"]
    assert [row["model"] for row in both["report"]] == ["GRU4Rec"] * 5 + ["SASRec"] * 5
    assert set(both["chosen"]) == set(pd.read_csv(folder / "sweep.csv").model) == {"GRU4Rec", "SASRec"}


def test_shares_and_probabilities_do_not_mix(tmp_path, capsys):
    with pytest.raises(SystemExit):
        sweep.main(["--dataset", "Z", "--evidence", "raw", "fused"])
    assert "--evidence raw has shares for thresholds" in capsys.readouterr().err


def test_a_sweep_of_nothing_is_refused(tmp_path, capsys):
    for options, message in (
        (["--train_thresholds", "--test_thresholds"], "nothing would be edited"),
        (["--threshold_from", "split"], "--threshold_from changes nothing with --evidence fused"),
    ):
        with pytest.raises(SystemExit):
            sweep.parse_args(["--dataset", "Z", "--evidence", "fused", *options])
        assert message in capsys.readouterr().err


def test_an_oracle_that_cannot_replace_is_left_out(tmp_path, capsys):
    """Where only probable noise has replacements, as in a large log, it would delete nearly all that is marked."""
    record = write_denoised(tmp_path, rows=(60, 20, 20)) / "evidence.json"
    some = {"replacements": json.loads(record.read_text())["replacements"] | {"least_probability": 0.1}}
    record.write_text(json.dumps(json.loads(record.read_text()) | some))
    result, _ = run(tmp_path, "--evidence", "fused", "--edit", *EDITS, "--seeds", 1)
    arms = ["fused, delete", "fused, delete at random places", "fused, replace"]
    assert [row["rows"] for row in result["report"]] == ["noisy", *arms, "oracle, delete", "clean"]
    assert "oracle, replace: left out, as not every place has a replacement" in capsys.readouterr().out


def test_rows_without_scores_are_refused(tmp_path, capsys):
    write_denoised(tmp_path, name="Y_noise_user0.1", denoised=False)
    for kinds, message in ((["raw"], "no column 'noise_prob'"), (["collaborative", "llm"], "no evidence.json")):
        with pytest.raises(SystemExit):
            sweep.main(sasrec_command(tmp_path, "--evidence", *kinds, name="Y_noise_user0.1"))
        assert message in capsys.readouterr().err


def test_grids_that_nobody_gives(tmp_path):
    """Shares and the release's caps of raw scores; probabilities without a cap of all others."""
    for kind, thresholds, caps in (("raw", [0.5, 0.7, 0.9], [1, 3]), ("fused", [0.1, 0.2, 0.3, 0.5], [10**6])):
        args = sweep.parse_args(["--dataset", "Z", "--evidence", kind])
        assert (args.train_thresholds, args.test_thresholds, args.train_caps, args.test_caps) == (
            thresholds,
            thresholds,
            caps,
            caps,
        )


def test_settings_are_copied_not_shared(tmp_path):
    args = sasrec_arguments(tmp_path)
    before = copy.copy(vars(args))
    sweep.with_settings(args, seed=1, clean=True)
    assert vars(args) == before
    with pytest.raises(FrozenInstanceError):
        FilterOptions.from_arguments(args).clean = True

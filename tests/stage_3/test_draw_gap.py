"""SASRec_code/draw_gap.py: what runs and sweeps won back, by level of noise."""

import json

import draw_gap
import numpy as np
import pytest

SETTINGS = {"model": "SASRec", "clean": False, "denoise_category": "none", "evidence": "raw", "edit": "replace"}


def write_run(folder, dataset, mean_rank, **settings):
    """A folder as main.py writes it: two seeds, 80 rows of 40 users; the ranks are spread around their mean."""
    folder.mkdir(parents=True)
    ranks = np.random.default_rng(0).poisson(mean_rank, size=(2, 80))
    users, targets = np.repeat(np.arange(40), 2).astype(str), np.arange(80)
    np.savez(folder / "test_ranks.npz", users=users, targets=targets, ranks=np.stack([ranks, np.ones_like(ranks)], axis=2))
    (folder / "run.json").write_text(json.dumps({"arguments": SETTINGS | {"dataset": dataset} | settings}))
    return folder


def of_model(share):
    """The rows of a model in the report of a sweep; share: of the gap that is won back, None where there is no gap."""
    return [{"rows": "noisy"}, {"rows": "fused, replace"} | ({"gap won back": share} if share else {}), {"rows": "clean"}]


def test_runs_are_grouped_by_data_noise_and_model(tmp_path):
    found = {"denoise_category": "all", "evidence": "fused"}
    folders = [
        write_run(tmp_path / "a", "Toy_denoise_user0.1_0", 6, **found),
        write_run(tmp_path / "b", "Toy_denoise_user0.1_0", 8),
        write_run(tmp_path / "c", "Toy_denoise_user0.2_0", 9, **found),
        write_run(tmp_path / "d", "Toy_noise_user0.2", 12),
        write_run(tmp_path / "e", "Toy_noise_user0.1", 3, clean=True),
        write_run(tmp_path / "f", "Toy_denoise_user0.1_0", 5, model="GRU4Rec", **found),
        write_run(tmp_path / "g", "Toy_denoise_user0.1_0", 8, model="GRU4Rec"),
        write_run(tmp_path / "h", "Toy_noise_user0.1", 3, model="GRU4Rec", clean=True),
    ]
    sweep = tmp_path / "sweep_1"
    sweep.mkdir()
    share = {"mean": 0.4, "interval_95": [0.1, 0.8]}
    rows = [{"model": "SASRec"} | row for row in of_model(share)]
    rows += [{"model": "GRU4Rec"} | row for row in of_model(share)] + [{"model": "BERT4Rec"} | row for row in of_model(None)]
    (sweep / "report.json").write_text(json.dumps({"arguments": {"dataset": "Movie_denoise_user0.2_0"}, "report": rows}))
    levels = draw_gap.main([*map(str, [*folders, sweep]), "--out", str(tmp_path / "gap.png")])
    panels = ["Movie", "Movie, GRU4Rec", "Toy", "Toy", "Toy, GRU4Rec"]  # BERT4Rec has no gap
    assert [(level.panel, level.noise) for level in levels] == list(zip(panels, [0.2, 0.2, 0.1, 0.2, 0.1]))
    assert [[run.rows for run in level.runs] for level in levels] == [["noisy", "fused, replace", "clean"]] * 5
    won_back = [level.runs[1].gap_won_back for level in levels]
    assert won_back[:2] == [share] * 2 and all(0 < of_level["mean"] < 1 for of_level in won_back)
    assert won_back[2]["interval_95"][0] < won_back[2]["mean"] < won_back[2]["interval_95"][1]
    assert (tmp_path / "gap.png").read_bytes().startswith(b"\x89PNG") and not list(tmp_path.glob("*.partial*"))


def test_what_cannot_be_drawn_is_said(tmp_path, capsys):
    run = write_run(tmp_path / "a", "Toy_noise_user0.1", 8)
    for folders, message in (
        ([run], "no gap between noisy and clean rows"),
        ([write_run(tmp_path / "b", "Mine", 8)], "Mine: its name"),
    ):
        with pytest.raises(SystemExit):
            draw_gap.main(list(map(str, folders)))
        assert message in capsys.readouterr().err

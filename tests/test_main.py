"""SASRec_code/main.py: commands, options, errors."""

import json
import subprocess
import sys

import evidence
import main as sasrec
import pytest
import sweep
from conftest import sasrec_command, sasrec_refused, write_denoised


def test_the_commands_of_the_release(tmp_path, root):
    write_denoised(tmp_path, "Toy_noise_user0.1", denoised=False)
    write_denoised(tmp_path, "Toy_denoise_user0.1_5000_2000")
    none = ["--dataset", "Toy_denoise_user0.1", "--denoise_category", "none"]
    full = (
        "--dataset Toy_denoise_user0.1_5000_2000 --denoise_category all --train_noise_filter_threshold 0.6 "
        "--test_noise_filter_threshold 0.9 --train_max_denoise_num 2 --test_max_denoise_num 1"
    ).split()
    places = ["--data_root", str(tmp_path), "--output_root", str(tmp_path / "out"), "--num_epochs", "1"]
    for folder, script in ((root / "SASRec_code", "main.py"), (root, "SASRec_code/main.py")):
        for options in (none, full):
            done = subprocess.run([sys.executable, script, *options, *places], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert ("reading Toy_noise_user0.1" in done.stdout) == (options is none)
            assert ("positions flagged" in done.stdout) == (options is full)


def test_runs_repeat_and_weights_reload(tmp_path, capsys):
    write_denoised(tmp_path)
    options = sasrec_command(tmp_path, "--denoise_category", "all", "--seeds", 2)
    first, anew = sasrec.main(options), sasrec.main([*options, "--output_root", str(tmp_path / "anew")])
    assert first["per_seed"] == anew["per_seed"] and first["metrics"]["test"]["MRR"]["std"] > 0
    assert "trained before" not in capsys.readouterr().out
    folder = next((tmp_path / "out").rglob("run.json")).parent
    (folder / "run.json").unlink()  # as after a kill
    again = sasrec.main(options)
    assert capsys.readouterr().out.count("trained before") == 2 and again["fits"] == first["fits"]
    assert json.loads((folder / "run.json").read_text()) == again and again["per_seed"] == first["per_seed"]
    assert list(folder.glob("tensorboard_seed2024/events*"))
    loaded = sasrec.main([*options, "--state_dict_path", str(folder / "seed2024.safetensors")])
    assert loaded["per_seed"]["test"] == [first["per_seed"]["test"][0]]


def test_random_places_are_other_ones_for_each_seed(tmp_path):
    write_denoised(tmp_path, rows=(200, 60, 60))
    found = ["--denoise_category", "all", "--edit", "delete", "--train_noise_filter_threshold", 0.2]
    for kind, alike in (("fused", True), ("random", False)):
        both = sasrec.main(sasrec_command(tmp_path, *found, "--evidence", kind, "--seeds", 2))
        second = sasrec.main(sasrec_command(tmp_path, *found, "--evidence", kind, "--seed", 2025))
        assert (both["per_seed"]["test"][1] == second["per_seed"]["test"][0]) == alike


OPTIONS = {
    "--batchsize": 32, "--lr": 0.01, "--hidden_units": 32, "--num_blocks": 1, "--num_heads": 2, "--num_epochs": 3,
    "--dropout_rate": 0.1, "--weight_decay": 0.1, "--maxlen": 4, "--seed": 7, "--loss": "ce",
    "--denoise_category": "train", "--train_noise_filter_threshold": 0.5, "--test_noise_filter_threshold": 0.5,
    "--train_max_denoise_num": 1, "--test_max_denoise_num": 1, "--threshold_from": "split", "--evidence": "collaborative",
    "--edit": "delete", "--replace_with": "neighbours", "--model": "GRU4Rec",
}  # fmt: skip


@pytest.fixture(scope="module")
def option_base(tmp_path_factory):
    root = tmp_path_factory.mktemp("options")
    write_denoised(root, rows=(300, 60, 90))
    base = [
        "--denoise_category",
        "all",
        "--train_noise_filter_threshold",
        0.6,
        "--test_noise_filter_threshold",
        0.7,
        "--lr",
        0.005,
    ]
    return root, base, sasrec.main(sasrec_command(root, *base))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_something(option_base, option):
    root, base, before = option_base
    given = [option] if OPTIONS[option] is None else [option, OPTIONS[option]]
    after = sasrec.main(sasrec_command(root, *base, *given))
    assert after["per_seed"] != before["per_seed"] or after["fits"][0]["epochs"] != before["fits"][0]["epochs"]


def test_patience_selection_and_clean(option_base):
    root, _, _ = option_base
    short = sasrec.main(sasrec_command(root, "--patience", 1, "--lr", 0.05, epochs=60))
    assert short["fits"][0]["epochs"] == short["fits"][0]["best_epoch"] + 1 < 60
    plain, by_test = sasrec.main(sasrec_command(root)), sasrec.main(sasrec_command(root, "--select_on", "test"))
    curve = by_test["fits"][0]["selection_NDCG@20"]
    assert curve != plain["fits"][0]["selection_NDCG@20"]
    assert max(curve) == pytest.approx(by_test["metrics"]["test"]["NDCG@20"]["mean"])
    clean = sasrec.main(sasrec_command(root, "--clean"))
    assert clean["per_seed"] != sasrec.main(sasrec_command(root))["per_seed"]


def test_bad_options(tmp_path, capsys):
    write_denoised(tmp_path, rows=(20, 20, 20))
    sasrec_refused(capsys, sasrec_command(tmp_path, name="Absent"), "there are: Z_denoise_user0.1_8_1")
    write_denoised(tmp_path, "Y_noise_user0.1", denoised=False, rows=(20, 20, 20))
    sasrec_refused(capsys, sasrec_command(tmp_path, "--denoise_category", "all", name="Y_denoise_user0.1"), "no train.csv in")
    sasrec_refused(
        capsys, sasrec_command(tmp_path, "--denoise_category", "all", name="Y_noise_user0.1"), "no column 'noise_prob'"
    )
    sasrec_refused(capsys, sasrec_command(tmp_path, "--clean", "--denoise_category", "all"), "--clean has nothing to denoise")
    sasrec_refused(capsys, sasrec_command(tmp_path, "--num_heads", 3), "--hidden_units 64 is not a multiple")
    sasrec_refused(capsys, sasrec_command(tmp_path, "--test_noise_filter_threshold", 1.5), "1.5 is not in 0..1")
    sasrec_refused(capsys, sasrec_command(tmp_path, "--state_dict_path", "absent.safetensors"), "no such file")
    sasrec_refused(capsys, sasrec_command(tmp_path, "--model", "BERT4Rec"), "--model BERT4Rec predicts masked items")
    sasrec_refused(capsys, sasrec_command(tmp_path, "--device", "nowhere"), "--device nowhere: ")
    everything = ["--denoise_category", "all", "--evidence"]
    sasrec_refused(capsys, sasrec_command(tmp_path, *everything, "random"), "--evidence random edits other places than")
    unread = sasrec_command(tmp_path, *everything, "collaborative", name="Y_noise_user0.1")
    sasrec_refused(capsys, unread, "train.csv: suggests no replacements; use --replace_with neighbours")
    (tmp_path / "w.safetensors").write_bytes(b"junk")
    sasrec_refused(capsys, sasrec_command(tmp_path, "--state_dict_path", tmp_path / "w.safetensors"), "does not fit this model")
    with pytest.raises(SystemExit):
        sweep.main(sasrec_command(tmp_path, "--clean"))
    assert "--clean: sweep.py decides it" in capsys.readouterr().err


def test_main_uses_every_kind(denoised):
    root, results = denoised.parent, {}
    base = ["--denoise_category", "all", "--train_noise_filter_threshold", 0.3, "--test_noise_filter_threshold", 0.3]
    for kind in ("raw", *evidence.FEATURES, "collaborative+semantic", "fused", "oracle"):
        edit = "delete" if kind == "oracle" else "replace"
        results[kind] = sasrec.main(sasrec_command(root, *base, "--evidence", kind, "--edit", edit))["per_seed"]["test"]
    assert len({json.dumps(value) for value in results.values()}) == 7

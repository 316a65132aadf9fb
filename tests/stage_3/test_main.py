"""SASRec_code/main.py: commands, options, errors."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import experiment
import export
import main as sasrec
import pytest
import rows
import sweep
import torch
import training
from conftest import sasrec_command, sasrec_refused, write_denoised, write_rows
from hand_evidence import KINDS, write_evidence_by_hand
from options import RowsOptions
from safetensors.torch import load_file

from denoise_code.common.resources import peak_memory_gib


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
    loaded = sasrec.main([*options, "--seeds", "1", "--state_dict_path", str(folder / "seed2024.safetensors")])
    assert loaded["per_seed"]["test"] == [first["per_seed"]["test"][0]]


def test_edits_of_histories_choose_no_epoch(tmp_path, capsys):
    """The epoch is chosen with the histories as they are: one training serves all edits of valid and test histories."""
    write_denoised(tmp_path, rows=(200, 60, 60))
    base = ["--evidence", "collaborative", "--edit", "delete", "--test_noise_filter_threshold", 0.2]
    noisy = sasrec.main(sasrec_command(tmp_path, epochs=4))
    capsys.readouterr()
    edited = sasrec.main(sasrec_command(tmp_path, *base, "--denoise_category", "test", epochs=4))
    assert "trained before" in capsys.readouterr().out
    assert edited["fits"] == noisy["fits"] and edited["per_seed"] != noisy["per_seed"]
    by_test = sasrec.main(sasrec_command(tmp_path, *base, "--denoise_category", "test", "--select_on", "test", epochs=4))
    curve = by_test["fits"][0]["selection_NDCG@20"]  # the release's way: the best epoch of the rows that are reported
    assert max(curve) == by_test["metrics"]["test"]["NDCG@20"]["mean"]


def test_memory_is_that_of_the_device(monkeypatch):
    """On a GPU what the model took there; else what the process took."""
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30 if device.index == 1 else 0)
    assert peak_memory_gib(torch.device("cuda:1")) == 3
    of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert peak_memory_gib(torch.device("cpu")) == pytest.approx(of_process, rel=0.2)


def test_weights_are_kept_once(tmp_path, monkeypatch):
    """The weights of a run are a link to the model that is kept; a file system without links gets a copy."""
    write_denoised(tmp_path, rows=(60, 20, 20))

    def files(root):
        return next(root.rglob("models/*")), next(root.rglob("seed2024.safetensors"))

    sasrec.main(sasrec_command(tmp_path))
    kept, of_run = files(tmp_path / "out")
    assert kept.samefile(of_run)
    sasrec.main(sasrec_command(tmp_path))
    assert kept.samefile(of_run) and not list((tmp_path / "out").rglob("*.partial*"))
    kept.unlink()  # clearing models/ takes nothing from a run

    def no_links(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    sasrec.main(sasrec_command(tmp_path, "--output_root", tmp_path / "copied"))
    copied_kept, copied = files(tmp_path / "copied")
    assert not copied_kept.samefile(copied) and copied.read_bytes() == copied_kept.read_bytes()
    weights, expected = load_file(copied), load_file(of_run)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("script", [sasrec, sweep, export])
def test_absent_evidence_is_refused_before_anything_is_learned(tmp_path, capsys, script):
    """A folder without evidence gets one line with the command that makes it, before anything is written."""
    write_denoised(tmp_path, "Y_noise_user0.1", denoised=False, rows=(60, 20, 20))
    options = ["--dataset", "Y_denoise_user0.1_0", "--data_root", str(tmp_path), "--output_root", str(tmp_path / "out")]
    options += ["--evidence", "fused"] + ([] if script is sweep else ["--denoise_category", "all"])
    with pytest.raises(SystemExit):
        script.main(options)
    error = capsys.readouterr().err
    command = f"python generate_denoised.py --noise_dataset_path {tmp_path / 'Y_noise_user0.1'} makes it"
    assert "Y_denoise_user0.1_0: no evidence.json; " in error and command in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_needs_no_evidence_reads_none(tmp_path):
    """Noisy and clean rows, raw scores and an oracle that deletes: folders of before have these alone."""
    write_denoised(tmp_path, rows=(60, 20, 20))
    for path in (tmp_path / "Z_denoise_user0.1_8_1").glob("evidence.*"):
        path.unlink()
    everything = ["--denoise_category", "all", "--evidence"]
    oracle = [*everything, "oracle", "--edit", "delete"]
    for options in ([], ["--clean"], [*everything, "raw"], oracle):
        assert sasrec.main(sasrec_command(tmp_path, *options, epochs=1))["rows"]["train"] == 60


def test_a_kind_that_stage_2_has_not_made_is_refused(tmp_path, capsys):
    write_denoised(tmp_path, "Y_noise_user0.1", denoised=False, rows=(60, 20, 20))
    (tmp_path / "Y_denoise_user0.1_0").mkdir()
    write_evidence_by_hand(tmp_path / "Y_denoise_user0.1_0", tmp_path / "Y_noise_user0.1", kinds=("collaborative", "fused"))
    options = sasrec_command(tmp_path, "--denoise_category", "all", "--evidence", "semantic", name="Y_denoise_user0.1_0")
    sasrec_refused(capsys, options, f"--evidence semantic: {tmp_path / 'Y_denoise_user0.1_0'} has collaborative, fused; ")
    several = ["--evidence", "collaborative", "llm"]
    with pytest.raises(SystemExit):
        sweep.main(sasrec_command(tmp_path, *several, name="Y_denoise_user0.1_0"))
    assert f"--evidence llm: {tmp_path / 'Y_denoise_user0.1_0'} has collaborative, fused; " in capsys.readouterr().err
    of_noisy_rows = sasrec_command(tmp_path, "--denoise_category", "all", "--evidence", "fused", name="Y_denoise_user0.1_0")
    assert sasrec.main(of_noisy_rows)["edits"][0]["train"]["flagged"] > 0


def test_evidence_of_other_rows_is_refused(tmp_path, capsys):
    folder = write_denoised(tmp_path, rows=(60, 20, 20))
    text = (folder / "test_5000.csv").read_text()
    options = sasrec_command(tmp_path, "--denoise_category", "all", "--evidence", "fused")
    for file in ("train", "test_5000"):
        path = folder / f"{file}.csv"
        text = path.read_text()
        first = text[text.index('"[') + 2 : text.index(",", text.index('"['))]
        path.write_text(text.replace(f'"[{first},', f'"[{1 + int(first) % 30},', 1))
        sasrec_refused(capsys, options, f"made for other rows than {file}.csv has now; remove it, python generate_denoised.py")
        path.write_text(text)
    sasrec.main(options)


def test_busy_cores_are_said(monkeypatch, capsys, tmp_path):
    """Where others run on all cores now and did so in the last minute, and this process would take more than one thread."""
    loadavg = tmp_path / "loadavg"
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for device, threads, load, running, said in (
        (cpu, 4, 4.2, 5, 1), (cpu, 4, 3.9, 5, 0), (cpu, 4, 4.2, 4, 0), (cpu, 1, 9.0, 9, 0), (gpu, 4, 9.0, 9, 0),
    ):  # fmt: skip
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        loadavg.write_text(f"{load} 1.00 0.50 {running}/120 4711\n")
        training.warn_of_busy_cores(device, loadavg)
        assert capsys.readouterr().out.count("OMP_NUM_THREADS=1") == said
    loadavg.unlink()  # no such file on other systems
    training.warn_of_busy_cores(cpu, loadavg)


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
    "--denoise_category": "none", "--train_noise_filter_threshold": 0.5, "--test_noise_filter_threshold": 0.5,
    "--train_max_denoise_num": 1, "--test_max_denoise_num": 1, "--threshold_from": "split", "--evidence": "collaborative",
    "--edit": "delete", "--model": "GRU4Rec",
}  # fmt: skip


@pytest.fixture(scope="module")
def option_base(tmp_path_factory):
    root = tmp_path_factory.mktemp("options")
    write_denoised(root, rows=(300, 60, 90))
    base = ["--denoise_category", "all", "--lr", 0.005]
    shares = ["--train_noise_filter_threshold", 0.6, "--test_noise_filter_threshold", 0.7]
    return root, base, shares, sasrec.main(sasrec_command(root, *base, *shares))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_something(option_base, option):
    root, base, shares, before = option_base
    shares = [] if option == "--denoise_category" else shares
    after = sasrec.main(sasrec_command(root, *base, *shares, option, OPTIONS[option]))
    assert after["per_seed"] != before["per_seed"] or after["fits"][0]["epochs"] != before["fits"][0]["epochs"]


def test_a_share_of_noise_changes_something(option_base):
    root, *_ = option_base
    fused = ["--denoise_category", "all", "--evidence", "fused"]
    results = [sasrec.main(sasrec_command(root, *fused, *more)) for more in ([], ["--noise_share", 0.06])]
    assert results[0]["per_seed"] != results[1]["per_seed"]


def test_patience_selection_and_clean(option_base):
    root, *_ = option_base
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
    sasrec_refused(
        capsys, sasrec_command(tmp_path, "--model", "BERT4Rec"), "--model BERT4Rec does not learn by --loss bce: use --loss ce"
    )
    sasrec_refused(capsys, sasrec_command(tmp_path, "--device", "nowhere"), "--device nowhere: ")
    everything = ["--denoise_category", "all", "--evidence"]
    for kind in ("raw", "oracle"):
        with_share = sasrec_command(tmp_path, *everything, kind, "--noise_share", 0.1)
        sasrec_refused(capsys, with_share, f"--noise_share changes nothing with --evidence {kind}")
    sasrec_refused(capsys, sasrec_command(tmp_path, "--noise_share", 0), "--noise_share: 0 is not in")
    for kind in ("collaborative+semantic", "mark"):
        sasrec_refused(capsys, sasrec_command(tmp_path, *everything, kind), f"invalid choice: '{kind}'")
    sasrec_refused(capsys, sasrec_command(tmp_path, "--replace_with", "neighbours"), "unrecognized arguments: --replace_with")
    unread = sasrec_command(tmp_path, *everything, "collaborative", name="Y_noise_user0.1")
    sasrec_refused(capsys, unread, "Y_noise_user0.1: no evidence.json")
    with pytest.raises(SystemExit):
        sweep.main(sasrec_command(tmp_path, "--evidence", "raw", "--noise_share", 0.1))
    assert "--noise_share changes nothing with --evidence raw" in capsys.readouterr().err
    (tmp_path / "w.safetensors").write_bytes(b"junk")
    sasrec_refused(capsys, sasrec_command(tmp_path, "--state_dict_path", tmp_path / "w.safetensors"), "does not fit this model")
    with pytest.raises(SystemExit):
        sweep.main(sasrec_command(tmp_path, "--clean"))
    assert "--clean: sweep.py decides it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, refused",
    [
        ("--evidence fused --train_noise_filter_threshold 0.3", "train_noise_filter_threshold --denoise_category none"),
        ("--evidence fused", "evidence --denoise_category none"),
        ("--edit delete", "edit --denoise_category none"),
        ("--test_max_denoise_num 1", "test_max_denoise_num --denoise_category none"),
        ("--clean --edit delete", "edit --denoise_category none"),
        ("--denoise_category test --train_max_denoise_num 2", "train_max_denoise_num --denoise_category test"),
        ("--denoise_category train --test_noise_filter_threshold 0.2", "test_noise_filter_threshold --denoise_category train"),
        ("--denoise_category train --threshold_from split", "threshold_from --denoise_category train"),
        ("--denoise_category all --evidence fused --threshold_from split", "threshold_from --evidence fused"),
        ("--state_dict_path {weights} --seeds 2", "seeds --state_dict_path"),
    ],
)
def test_what_changes_nothing_is_refused(tmp_path, capsys, options, refused):
    weights = tmp_path / "w.safetensors"
    weights.touch()
    option, reason = refused.split(maxsplit=1)
    with pytest.raises(SystemExit):
        sasrec.parse_args(["--dataset", "Z", *options.format(weights=weights).split()])
    error = capsys.readouterr().err
    assert f"--{option} " in error and f"changes nothing with {reason}" in error


def test_other_weights_in_one_file_have_another_folder(tmp_path, capsys):
    write_denoised(tmp_path, rows=(20, 20, 20))
    folders = []
    for content in (b"a", b"b", b"a"):
        (tmp_path / "w.safetensors").write_bytes(content)
        sasrec.main(sasrec_command(tmp_path, "--state_dict_path", tmp_path / "w.safetensors", "--where"))
        folders.append(capsys.readouterr().out)
    assert folders[0] == folders[2] != folders[1]


def test_main_uses_every_kind(denoised):
    root, results = denoised.parent, {}
    base = ["--denoise_category", "all", "--train_noise_filter_threshold", 0.3, "--test_noise_filter_threshold", 0.3]
    for kind in ("raw", *KINDS, "random", "oracle"):
        results[kind] = sasrec.main(sasrec_command(root, *base, "--evidence", kind))["per_seed"]["test"]
    assert len({json.dumps(value) for value in results.values()}) == 8


def test_stage_3_fits_nothing_about_noise(denoised):
    """Main.py with evidence imports nothing of what evidence is made by."""
    script = (
        "import sys, main; main.main(sys.argv[1:]); "
        "print([name for name in sys.modules if name.startswith('denoise_code.') or name == 'sklearn'])"
    )
    options = sasrec_command(denoised.parent, "--denoise_category", "all", "--evidence", "fused", epochs=1)
    folder = Path(experiment.__file__).parent
    done = subprocess.run([sys.executable, "-c", script, *options], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout.splitlines()[-1].replace("'", '"'))
    assert "denoise_code.data_set.evidence_files" in modules
    assert {name.split(".")[1] for name in modules if name != "sklearn"} == {"common", "data_set"} and "sklearn" not in modules


def test_no_history_is_cut_unsaid(tmp_path, capsys):
    """Without --maxlen the longest history of the data set counts; what a smaller one cuts is said; both have one folder."""
    folder = tmp_path / "Long_noise_user0.1"
    folder.mkdir()
    (folder / "id2name4Rec.json").write_text(json.dumps({str(item): f"Item {item}" for item in range(1, 41)}))
    windows = [[(start + step) % 40 + 1 for step in range(width)] for start, width in enumerate([21, 5, 2] * 8)]
    for split, longest in (("train", 21), ("valid", 15), ("test", 15)):
        write_rows(folder / f"{split}.csv", [window[-longest:] for window in windows])
    splits = rows.load(RowsOptions(folder.name, tmp_path)).splits
    assert splits["train"].items.shape == (24, 21) and splits["train"].items[0].tolist() == windows[0]
    run = sasrec.main(sasrec_command(tmp_path, name=folder.name))
    assert run["arguments"]["maxlen"] == 20 and run["users"] == {"train": 5, "valid": 5, "test": 5}
    assert "cuts" not in capsys.readouterr().out
    shorter = sasrec.main(sasrec_command(tmp_path, "--maxlen", 10, name=folder.name))
    assert shorter["per_seed"] != run["per_seed"]
    printed = capsys.readouterr().out
    assert "train: --maxlen 10 cuts the oldest items of 8 of 24 histories; the longest has 20 items" in printed
    assert "test: --maxlen 10 cuts the oldest items of 8 of 24 histories; the longest has 14 items" in printed
    given, default = (sasrec_command(tmp_path, *extra, "--where", name=folder.name) for extra in (["--maxlen", 20], []))
    sasrec.main(given), sasrec.main(default)
    assert len(set(capsys.readouterr().out.split())) == 1


def test_replacements_that_were_made_otherwise_give_another_result_folder(tmp_path, capsys):
    """r is the same with --noise_share of stage 2, replacements are not."""
    write_denoised(tmp_path)
    record = tmp_path / "Z_denoise_user0.1_8_1" / "evidence.json"
    command = sasrec_command(tmp_path, "--denoise_category", "all", "--evidence", "fused", "--where")
    for share in (None, 0.3, None):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"options": {"noise_share": share, "replace_all": False}}))
        sasrec.main(command)
    first, other, again = capsys.readouterr().out.split()
    assert first == again != other

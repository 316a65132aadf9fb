"""generate_denoised.py: its options, its files, its errors."""

import json
import os
import shutil
import subprocess

import main as sasrec
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import DENOISED, FRUIT, ON_THE_CPU, TITLES, TWO_PROCESSES, arguments, csvs, refused, run, write_tiny_data

import generate_denoised as generate
from denoise_code import making_evidence
from denoise_code.data_set.catalogue import fingerprint_of_catalogue, read_catalogue
from denoise_code.data_set.evidence_files import read_evidence
from denoise_code.data_set.folder import data_fingerprint
from denoise_code.data_set.padded_rows import read_split
from denoise_code.data_set.planted_rows import DEFAULT_PLANTED
from denoise_code.language_model import loading
from denoise_code.reading.assembling import NEW_COLUMNS
from denoise_code.reading.job import describe_job
from denoise_code.reading.options import RowOptions


def test_two_processes_write_what_one_writes(tiny_adapters, data, tmp_path):
    adapter = tiny_adapters["gpt2"]
    one = csvs(run(adapter, data, out=tmp_path / "one"))
    two = [*TWO_PROCESSES, generate.__file__, *arguments(adapter, data, "--limit", 1000, out=tmp_path / "two")]
    done = subprocess.run(two, capture_output=True, text=True, env=os.environ | ON_THE_CPU)
    assert done.returncode == 0, done.stderr[-2000:]
    assert csvs(tmp_path / "two" / DENOISED) == one


def test_min_percentile_leaves_out_what_no_threshold_uses(tiny_adapters, data, tmp_path):
    everything = run(tiny_adapters["llama"], data, "--suggest", "catalogue", out=tmp_path / "all")
    some = run(tiny_adapters["llama"], data, "--suggest", "catalogue", "--min_percentile", 0.8, out=tmp_path / "some")
    a, b = pd.read_csv(everything / "train.csv"), pd.read_csv(some / "train.csv")
    pilot = json.loads((some / "run.json").read_text())["parts"]["train"]["pilot"]
    probs = np.concatenate(a.noise_prob.map(json.loads).tolist())
    assert pilot["stretches"] == 9 and 0.05 < (probs > pilot["threshold"]).mean() < 0.4  # 0.2 were it not of nine of ninety rows
    for x, y in zip(a.itertuples(), b.itertuples()):
        kept = sum(prob > pilot["threshold"] for prob in json.loads(x.noise_items_prob))
        assert x.noise_prob == y.noise_prob and len(json.loads(y.noise_items)) == kept
        assert json.loads(x.noise_items)[:kept] == json.loads(y.noise_items)
        assert json.loads(x.suggest_item_ids)[:kept] == json.loads(y.suggest_item_ids)
    assert b.noise_items.map(json.loads).map(len).sum() < 0.8 * a.noise_items.map(json.loads).map(len).sum()


def test_options_change_something(tiny_adapters, data, tmp_path):
    base = csvs(run(tiny_adapters["llama"], data, out=tmp_path / "base"))
    options = (
        ["--top_k", 1],
        ["--score", "likelihood"],
        ["--suggest", "catalogue"],
        ["--max_new_tokens", 2],
        ["--limit", 5],
        ["--planted", 3],
        ["--ground", "title_vectors"],
    )
    for option in [*options, ["--dtype", "bfloat16"], ["--denoise_data", "test_5000"]]:
        assert csvs(run(tiny_adapters["llama"], data, *option, out=tmp_path / option[0])) != base, option


def adapter_of_catalogue(adapter, folder, fingerprint):
    """A copy of an adapter whose run.json says on which catalogue it was trained."""
    shutil.copytree(adapter, folder)
    record = json.loads((folder / "run.json").read_text())
    record["arguments"]["dataset_name"] = "Own_noise_user0.1"
    (folder / "run.json").write_text(json.dumps(record | {"catalogue_fingerprint": fingerprint}))
    return folder


def test_an_adapter_of_another_catalogue_is_refused(tiny_adapters, data, tmp_path, capsys):
    """Both are named, and nothing is written; --any_catalogue takes it and says so."""
    adapter = adapter_of_catalogue(tiny_adapters["llama"], tmp_path / "run_sample40" / "checkpoint-7", "0" * 64)
    few = ["--denoise_data", "test_5000", "--limit", 3, "--planted", 0]
    problem = f"{adapter} was trained on the catalogue of Own_noise_user0.1, and that of {data} is another one"
    refused(capsys, arguments(adapter, data, *few), f"--denoise_model_path {problem}: --any_catalogue takes it all the same")
    assert not (data.parent / DENOISED).exists()
    folder = run(adapter, data, *few, "--any_catalogue")
    assert (folder / "test_5000.csv").exists() and problem in capsys.readouterr().out


def test_an_adapter_of_the_same_catalogue_is_taken(tiny_adapters, data, tmp_path, capsys):
    """One that does not say on which catalogue it was trained is taken too, with a warning."""
    fingerprint = fingerprint_of_catalogue(read_catalogue(data))
    adapter = adapter_of_catalogue(tiny_adapters["llama"], tmp_path / "run_sample40" / "checkpoint-7", fingerprint)
    few = ["--denoise_data", "test_5000", "--limit", 3, "--planted", 0]
    run(adapter, data, *few, out=tmp_path / "own")
    assert "catalogue" not in capsys.readouterr().out
    run(tiny_adapters["llama"], data, *few, out=tmp_path / "unknown")
    assert "its run.json does not say on which catalogue it was trained" in capsys.readouterr().out
    without_adapter = ["--noise_dataset_path", str(data), "--any_catalogue"]
    refused(capsys, without_adapter, "--any_catalogue needs --denoise_model_path")


def test_options_that_change_nothing_are_refused(tiny_adapters, data, capsys):
    for name, value in (("--ground", "title_vectors"), ("--max_new_tokens", 9)):
        extra = [name, value, "--suggest", "catalogue"]
        refused(capsys, arguments(tiny_adapters["llama"], data, *extra), f"{name} changes nothing with --suggest catalogue")


def test_options_that_went_are_refused(tiny_adapters, data, capsys):
    for name, value, message in (
        ("--overlap", 0.5, "unrecognized arguments: --overlap 0.5"),
        ("--span", 4, "unrecognized arguments: --span 4"),
        ("--score", "title", "invalid choice: 'title'"),
    ):
        refused(capsys, arguments(tiny_adapters["llama"], data, name, value), message)


def test_contract_with_sasrec(tiny_adapters, data, tmp_path):
    """The columns that stage 3 reads, and the input's rows and columns in the input's order."""

    folder = run(tiny_adapters["llama"], data)
    for split in ("train", "valid_5000", "test_5000"):
        before, after = pd.read_csv(data / f"{split}.csv"), pd.read_csv(folder / f"{split}.csv")
        assert list(after.columns) == [*before.columns, *NEW_COLUMNS]
        assert (after[before.columns] == before).all(axis=None)
    places = ["--dataset", DENOISED, "--data_root", str(data.parent), "--output_root", str(tmp_path / "sasrec")]
    result = sasrec.main([*places, "--denoise_category", "all", "--train_noise_filter_threshold", "0.6", "--num_epochs", "1"])
    assert result["rows"] == {"train": 90, "valid": 23, "test": 40}
    titles = json.loads(pd.read_csv(folder / "train.csv").suggest_item_titles[0])
    assert titles and all(title in TITLES for title in titles)
    planted = read_split(folder / "planted.csv", read_catalogue(folder), "needed")
    assert planted.noise_prob.shape == (20, 11) and planted.suspects.max() <= 0  # only scored, to calibrate on


def test_evidence_is_the_last_act(tiny_adapters, data, capsys, quick_evidence):
    """Of the windows that the model read; made later for a finished folder, and left as it is where it is there."""
    folder = run(tiny_adapters["llama"], data, "--planted", 60)
    rows = csvs(folder)
    assert not (folder / "evidence.json").exists()
    run(tiny_adapters["llama"], data, "--planted", 60, evidence=True)
    out = capsys.readouterr().out
    record = read_evidence(folder).record
    assert record["kinds"] == ["collaborative", "semantic", "detector", "llm", "fused"] and csvs(folder) == rows
    assert f"{folder} is complete" in out and "noise at most" in out
    run(tiny_adapters["llama"], data, "--planted", 60, "--noise_share", 0.02, evidence=True)
    assert read_evidence(folder).noise_share == 0.02
    run(tiny_adapters["llama"], data, "--planted", 60, "--noise_share", 0.02, evidence=True)
    assert f"the evidence in {folder} is complete" in capsys.readouterr().out


@pytest.mark.parametrize("part", [["--limit", 5], ["--users", 3]], ids=lambda part: part[0])
def test_a_part_of_the_rows_has_no_evidence(tiny_adapters, data, capsys, part):
    """It is said, and the rows of the paper stand and can be filtered by what the model said."""
    folder = run(tiny_adapters["llama"], data, *part, evidence=True)
    assert "no evidence: --limit and --users read a part of the rows" in capsys.readouterr().out
    assert not list(folder.glob("evidence*")) and list(pd.read_csv(folder / "train.csv").columns)[-5:] == list(NEW_COLUMNS)
    places = ["--dataset", DENOISED, "--data_root", str(data.parent), "--output_root", str(data.parent / "sasrec")]
    assert sasrec.main([*places, "--denoise_category", "all", "--num_epochs", "1"])["rows"]["train"] < 90


def test_evidence_that_cannot_be_made_leaves_the_rows(tiny_adapters, data, capsys):
    table = pd.read_csv(data / "train.csv").assign(user_id=1)
    table.to_csv(data / "train.csv", index=False)
    folder = run(tiny_adapters["llama"], data, evidence=True)
    assert "so stage 3 has the paper's noise_prob alone: its train rows are of too few users" in capsys.readouterr().out
    assert {"train.csv", "valid_5000.csv", "test_5000.csv"} <= csvs(folder).keys() and not list(folder.glob("evidence*"))


def test_options_without_an_adapter(data, tiny_adapters, capsys):
    none = ["--noise_dataset_path", str(data), "--language_model", "none"]
    refused(capsys, [*none, "--planted", "5"], "--planted needs --denoise_model_path")
    refused(capsys, [*none, "--noise_share", "2"], "2 is not between 0 and 1")
    contradiction = arguments(tiny_adapters["llama"], data, "--language_model", "none")
    refused(capsys, contradiction, "--language_model none and --denoise_model_path contradict each other")
    for option in (["--base_model", "x"], ["--dtype", "bfloat16"], ["--load_in_8bit"], ["--batch_size", "4"]):
        refused(capsys, [*none, *option], f"--language_model none and {option[0]} contradict each other")


def test_no_language_model_reads_no_title_vectors_of_before(data, capsys, monkeypatch):
    """Where a language model made the folder it is refused; --overwrite takes the vectors away and says so in run.json."""
    seen = []
    monkeypatch.setattr(
        making_evidence, "make_evidence", lambda folder, *_: seen.append({path.name for path in folder.iterdir()})
    )
    folder = data.parent / generate.output_name(data.name, None, 0)
    folder.mkdir()
    (folder / "title_vectors.safetensors").touch()
    (folder / "run.json").write_text('{"job": {"denoise_model_path": "base"}}')
    none = ["--noise_dataset_path", str(data), "--language_model", "none"]
    refused(capsys, none, f"{folder} was made with a language model: --overwrite replaces it, another --output_root keeps it")
    assert (folder / "title_vectors.safetensors").exists() and not seen
    generate.main([*none, "--overwrite"])
    generate.main(none)
    assert len(seen) == 2 and all("title_vectors.safetensors" not in names for names in seen)
    assert json.loads((folder / "run.json").read_text()) == {"job": {"language_model": "none"}}


def test_progress_and_figures_are_kept(tiny_adapters, data, capsys):
    folder = run(tiny_adapters["llama"], data)
    out = capsys.readouterr().out
    assert all(text in out for text in ("windows/s", "noise told by noise_prob", "auc_context", "nearest taken: train"))
    tables = out[out.index("read by a process") :].splitlines()[:-1]  # the last line names the folder
    assert max(map(len, tables)) <= 100
    measured = json.loads((folder / "run.json").read_text())
    part, test = measured["parts"]["test_5000"], measured["splits"]["test_5000"]
    assert part["tokens"]["score"] > 0 and part["seconds"].keys() == {"score", "suggest"} and part["rows"] == test["rows"] == 40
    assert test["detection"]["share_noise"] > 0 and "detection_natural" not in test


def test_windows_of_two_items(tiny_adapters, tmp_path, capsys):
    """A history of one item is noise or it is not: no figure within windows, neither in run.json nor in the table."""
    data = write_tiny_data(
        tmp_path / "Two_noise_user0.1", FRUIT, {"train": 30, "valid_5000": 12, "test_5000": 12}, lengths=(2, 3)
    )
    table = pd.read_csv(data / "test_5000.csv")
    table["mask"] = ["[1, 0]" if row % 3 == 0 else "[0, 0]" for row in range(len(table))]
    table.to_csv(data / "test_5000.csv", index=False)
    run(tiny_adapters["llama"], data, "--planted", 10)
    folder = next(tmp_path.glob("Two_denoise*"))

    def refuse(name):
        raise AssertionError(f"run.json holds {name}, which is no JSON")

    splits = json.loads((folder / "run.json").read_text(), parse_constant=refuse)["splits"]
    test, planted = splits["test_5000"]["detection"], splits["planted"]["detection"]
    assert test["share_noise"] == 1 / 3 and 0 <= test["auc"] <= 1
    assert test["auc_window"] is None and test["top1"] is None
    assert splits["valid_5000"]["detection"] is None  # all of its histories are noise
    assert 0 <= planted["auc_window"] <= 1
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("test_5000") and "%" in line)
    assert row.split()[1:] == ["33.3%", f"{test['auc']:.3f}", "-", f"{test['average_precision']:.3f}", "-"]


def test_a_catalogue_as_large_as_a_window(tiny_adapters, tmp_path, capsys):
    """A train row of eleven of twelve items leaves one to suggest, of eleven none."""
    adapter, few = tiny_adapters["llama"], ["--planted", 0, "--suggest", "catalogue", "--denoise_data", "train"]
    data = write_tiny_data(tmp_path / "Few_noise_user0.1", FRUIT[:11], {"train": 5})
    refused(capsys, arguments(adapter, data, *few), "11 items are too few, up to 11 stand around a suspect")
    data = write_tiny_data(tmp_path / "More_noise_user0.1", FRUIT[:12], {"train": 5})
    run(adapter, data, *few)
    rows = pd.read_csv(next(tmp_path.glob("More_denoise*")) / "train.csv")
    for items, suggested in zip(rows.item_ids.map(json.loads), rows.suggest_item_ids.map(json.loads)):
        assert set(suggested) == set(range(1, 13)) - set(items)


def test_what_a_gpu_is_asked_for(tiny_adapters, data, monkeypatch):
    """By the size of the model, and said in the description of the job; --where needs nothing of a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    for small, dtype, described, batch_size in ((1e9, "tf32", "tf32", 1024), (1000, "bfloat16", "torch.bfloat16", 128)):
        monkeypatch.setattr(loading, "SMALL_MODEL", small)
        options = arguments(tiny_adapters["llama"], data, "--batch_size", "auto")
        request = generate.read_request(generate.parse_args(options))
        assert (request.model.precision.dtype, request.reading.batch_size) == (dtype, batch_size)
        assert describe_job(request.rows, request.model, request.reading)["dtype"] == described


def test_folders_of_samples_alone_are_read(data):
    """As the authors' folders are, which have no train.csv."""
    (data / "train.csv").rename(data / "train_5000.csv")
    (data / "valid_5000.csv").rename(data / "valid.csv")
    options = ["--denoise_model_path", "model", "--noise_dataset_path", str(data)]
    names = generate.parse_args(options).denoise_data
    files = generate.files_to_read(data, names)
    assert files == ["train_5000", "valid", "test_5000"]
    notes = generate.files_in_place_of(names, RowOptions(data, files))
    assert notes == [
        f"{data.name} has no {name}.csv: reading {file}.csv" for name, file in (("train", "train_5000"), ("valid_5000", "valid"))
    ]
    named = generate.parse_args([*options, "--denoise_data", "train"]).denoise_data
    assert generate.files_to_read(data, named) == ["train"]  # what is asked for by name is not exchanged


def test_as_many_rows_are_planted_as_there_are(tiny_adapters, data, tmp_path, capsys):
    """With the default of --planted; an adapter that saw all users leaves none, and the rows are read all the same."""
    folder = run(tiny_adapters["llama"], data, "--planted", DEFAULT_PLANTED, "--denoise_data", "test_5000", "--limit", 3)
    assert len(pd.read_csv(folder / "planted.csv")) == 90 and "90 are planted in place of 1000" in capsys.readouterr().out
    saw_all = shutil.copytree(tiny_adapters["llama"], tmp_path / "llama_sample90" / "checkpoint-7")
    record = {"arguments": {"sample": 90, "eval_sample": 0, "seed": 1}, "held_out": "users"}
    (saw_all / "run.json").write_text(json.dumps(record | {"data_fingerprint": data_fingerprint(data)}))
    generate.main(arguments(saw_all, data, "--planted", DEFAULT_PLANTED))
    denoised = data.parent / "Hard_denoise_user0.1_90_7"
    assert len(pd.read_csv(denoised / "train.csv")) == 90 and not (denoised / "planted.csv").exists()
    assert "0 are planted in place of 1000" in capsys.readouterr().out


def test_bad_rows_and_options(tiny_adapters, data, tmp_path, capsys):
    adapter, row = tiny_adapters["llama"], '{user},"{items}","{mask}",[],[],5\n'
    original = (data / "test_5000.csv").read_text()
    for items, mask, message in (
        ("[1, 999]", "[0, 0]", "test_5000.csv row 41: item ids 1..999"),
        ("[]", "[]", "test_5000.csv row 41: 0 items"),
        ("__import__('os')", "[0]", "test_5000.csv row 41: item_ids is"),
    ):
        (data / "test_5000.csv").write_text(original + row.format(user=1, items=items, mask=mask))
        refused(capsys, arguments(adapter, data), message)
    (data / "test_5000.csv").write_text(original)
    refused(capsys, arguments(adapter, data, "--denoise_data", "absent"), "absent.csv: no such file")
    refused(capsys, arguments(adapter, data, "--planted", 91), "--planted 91:")
    refused(capsys, arguments(adapter, data, "--batch_size", "many"), "--batch_size many")
    refused(capsys, arguments(adapter, data, "--min_percentile", 2), "2 is not between 0 and 1")
    if not torch.cuda.is_available():
        refused(capsys, arguments(adapter, data, "--dtype", "tf32"), "--dtype tf32 needs a CUDA device")
    refused(capsys, arguments(adapter, data, "--base_model", "gpt2"), "belongs to")
    (tmp_path / "file").write_text("")
    refused(capsys, arguments(adapter, data, out=tmp_path / "file"), "cannot write")
    (data / "id2name4Rec.json").unlink()
    refused(capsys, arguments(adapter, data), "id2name4Rec.json: no such file")
    assert not (data.parent / DENOISED / "run.json").exists()

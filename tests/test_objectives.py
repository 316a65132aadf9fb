"""denoise_code/objectives.py: the contrast loss against a plain loop, learning, two ranks, resuming."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import CARS, FRUIT, tiny_args, train_refused, write_rows, write_tiny_data

import train_denoise_model as train
from denoise_code.objectives import TEMPERATURE, contrast_loss


def test_contrast_loss_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    vectors = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(9, 4))), dim=1)
    log_counts = torch.tensor(rng.normal(size=9))
    windows = [[0, 1, 2], [3, 4], [5, 2, 6, 6], [7, 8, 0]]  # items 0 and 2 stand in two windows, 6 twice in one
    losses = []
    for window in windows:
        for i in window:
            for j in window:
                if i != j:
                    rated = {k: float(vectors[i] @ vectors[k]) / TEMPERATURE - float(log_counts[k]) for k in range(9)}
                    others = sum(np.exp(rated[k]) for k in range(9) if k not in window)
                    losses.append(-np.log(np.exp(rated[j]) / (np.exp(rated[j]) + others)))
    padded = torch.tensor([[-1] * (4 - len(window)) + window for window in windows])
    assert contrast_loss(vectors, padded, log_counts).item() == pytest.approx(np.mean(losses))


@pytest.fixture
def kinds(tmp_path):
    """Windows of every other item, or of those between; nothing in a title tells which, so that it must be learned."""
    titles = [*FRUIT[:10], *CARS[:18]]
    folder = write_tiny_data(tmp_path / "Kind_noise_user0.0", titles, {"train": 300}, lengths=(6, 10))
    rng = np.random.default_rng(0)
    windows = [(1 + row % 2 + 2 * rng.choice(14, size=8, replace=False)).tolist() for row in range(300)]
    write_rows(folder / "train.csv", windows, None)
    return folder


def contrast_args(folder, model, out, *extra):
    options = ["--objective", "contrast", "--lora_target_modules", "all-linear", "--lora_dropout", 0, "--eval_sample", 60]
    return tiny_args(folder, model, out, *options, *extra)


def test_contrast_learns_which_titles_go_together(kinds, tiny_models, tmp_path):
    train.main(contrast_args(kinds, tiny_models["llama"], tmp_path, "--sample", 200, "--num_epochs", 4))
    run = json.loads(next(tmp_path.rglob("run.json")).read_text())
    aucs = [entry["eval_auc"] for entry in run["history"] if "eval_auc" in entry]
    assert max(run["auc_context"].values()) < 0.6 and aucs[-1] > 0.75, aucs  # a planted item is of the window's kind at times
    assert run["layer"] in (1, 2) and set(run["auc_context"]) == {"1", "2"}


def test_contrast_resumes_to_the_same_losses(kinds, tiny_models, tmp_path):
    quick = ["--eval_steps", 3, "--max_steps", 6]
    train.main(contrast_args(kinds, tiny_models["gpt2"], tmp_path, *quick))
    run = next(tmp_path.rglob("batch*/run.json"))
    whole = [entry["loss"] for entry in json.loads(run.read_text())["history"] if "loss" in entry]
    for path in run.parent.glob("checkpoint-6/*"):
        path.unlink()
    train.main(contrast_args(kinds, tiny_models["gpt2"], tmp_path, *quick, "--resume_from_checkpoint"))
    again = [entry["loss"] for entry in json.loads(run.read_text())["history"] if "loss" in entry]
    assert again == pytest.approx(whole, abs=1e-5) and len(whole) == 6


def test_contrast_on_two_processes(kinds, tiny_models, tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", train.__file__]
    args = contrast_args(kinds, tiny_models["llama"], tmp_path, "--micro_batch_size", 4)
    done = subprocess.run([*launch, *args], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    run = json.loads(next(tmp_path.rglob("batch*/run.json")).read_text())
    assert run["steps"] == 6 and any("eval_auc_context" in entry for entry in run["history"])


def test_what_contrast_cannot_take(kinds, tiny_models, tmp_path, capsys):
    args = contrast_args(kinds, tiny_models["llama"], tmp_path)
    train_refused(capsys, [*args, "--manual_noise", "0.2"], "--objective contrast has no --score and no --manual_noise")
    train_refused(capsys, [*args, "--sample", "999"], "has 300 rows")

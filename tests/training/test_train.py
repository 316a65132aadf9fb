"""train_denoise_model.py: learning, checkpoints, options, errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from conftest import CARS, FRUIT, ON_THE_CPU, TWO_PROCESSES, tiny_args, train_refused, write_tiny_data
from transformers import BloomConfig, LlamaConfig

import train_denoise_model as train
from denoise_code.common.errors import InputError
from denoise_code.data_set.catalogue import fingerprint_of_catalogue
from denoise_code.data_set.held_out import split_rows
from denoise_code.language_model.loading import load_base_model, load_tokenizer
from denoise_code.language_model.noise_scores import first_token_log_probs
from denoise_code.language_model.prompt import Prompt
from denoise_code.training import trainer
from denoise_code.training.encoding import FOR_METRICS, Collator, encode
from denoise_code.training.examples import load_examples
from denoise_code.training.held_out_metrics import detection_metrics, held_out_metrics


def test_learns_what_does_not_belong(genres, tiny_models, tmp_path):
    extra = ["--sample", 300, "--batch_size", 16, "--micro_batch_size", 16, "--num_epochs", 5, "--eval_sample", 64]
    args = tiny_args(
        genres, tiny_models["llama"], tmp_path / "out", *extra, "--lora_target_modules", "all-linear", "--eval_steps", 15
    )
    train.main(args)
    output = tmp_path / "out" / genres.name / "batch16_sample300_epoch5"
    run = json.loads((output / "run.json").read_text())
    aucs = [entry["eval_auc"] for entry in run["history"] if "eval_auc" in entry]
    assert aucs[-1] > 0.95, aucs
    best = json.loads((output / run["best_checkpoint"] / "run.json").read_text())
    assert max(aucs) == [entry["eval_auc"] for entry in best["history"] if "eval_auc" in entry][-1]
    before = untrained_auc(genres, tiny_models["llama"])
    assert 0.3 < before < 0.7, before


def untrained_auc(folder, model):
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(str(model))
    held_out = load_examples(folder, 300, 64, 2024, None).held_out
    rows = [encode(tokenizer, Prompt(), example, 512) for example in held_out]
    batch = Collator(tokenizer.pad_token_id)(rows)
    extra = {key: batch.pop(key) for key in FOR_METRICS}
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model)(**batch).logits
    scores = first_token_log_probs(logits, extra["answer_length"], extra["candidates"])
    return detection_metrics(scores.numpy(), extra["planted"].numpy(), extra["popular"].numpy())["auc"]


def test_likelihoods_are_learned_and_choose_the_checkpoint(genres, tiny_models, tmp_path, capsys):
    extra = ["--sample", 300, "--batch_size", 16, "--micro_batch_size", 16, "--eval_sample", 64, "--eval_steps", 6]
    args = tiny_args(genres, tiny_models["llama"], tmp_path / "out", *extra, "--lora_target_modules", "all-linear")
    train_refused(capsys, [*args, "--score", "likelihood"], "--score likelihood needs --loss_on all or unplanted")
    train.main([*args, "--loss_on", "unplanted", "--score", "likelihood"])
    run = json.loads((tmp_path / "out" / genres.name / "batch16_sample300_epoch1" / "run.json").read_text())
    aucs = {entry["step"]: entry["eval_likelihood_auc"] for entry in run["history"] if "eval_auc" in entry}
    assert aucs[max(aucs)] > 0.95 and run["best_checkpoint"] == f"checkpoint-{max(aucs, key=aucs.get)}", aucs


def losses(folder):
    return [entry["loss"] for entry in json.loads((folder / "run.json").read_text())["history"] if "loss" in entry]


def adapter(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_checkpoint_folder_and_resume_after_a_kill(genres, tiny_models, tmp_path):
    name = f"{genres.name}/batch8_sample48_epoch1"
    straight, killed = (
        tiny_args(genres, tiny_models["llama"], tmp_path / out, "--eval_steps", 3, "--logging_steps", 2)
        for out in ("straight", "killed")
    )
    train.main(straight)
    folder = tmp_path / "straight" / name
    assert {"adapter_model.safetensors", "adapter_config.json", "prompt.json", "run.json", "tokenizer.json"} <= {
        path.name for path in (folder / "checkpoint-6").iterdir()
    }
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_models["llama"]), folder / "checkpoint-6")

    process = subprocess.Popen([sys.executable, train.__file__, *killed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    half = tmp_path / "killed" / name / "checkpoint-3"
    for _ in range(1200):
        if (half / "run.json").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    shutil.rmtree(half.parent / "checkpoint-6", ignore_errors=True)
    train.main([*killed, "--resume_from_checkpoint"])
    assert losses(half.parent) == pytest.approx(losses(folder), abs=1e-5) and len(losses(folder)) == 4  # steps 2, 3, 4, 6
    expected, found = adapter(folder / "checkpoint-6"), adapter(half.parent / "checkpoint-6")
    assert max((expected[name] - found[name]).abs().max().item() for name in expected) < 1e-5


def test_resume_refuses_what_changed(genres, tiny_models, tmp_path, capsys):
    args = tiny_args(genres, tiny_models["llama"], tmp_path / "out", "--max_steps", 2, "--eval_sample", 0, "--eval_steps", 1)
    train.main(args)
    train_refused(capsys, args, "holds checkpoints")
    train_refused(capsys, [*args, "--resume_from_checkpoint", "--learning_rate", "0.5"], "--learning_rate 0.01, not 0.5")
    train_refused(capsys, [*args, "--resume_from_checkpoint", str(tmp_path)], "no complete checkpoint")
    record = next((tmp_path / "out").rglob("checkpoint-2")) / "run.json"
    run = json.loads(record.read_text())
    assert run["held_out"] == "users" and run["windows"] == {"trained": 48, "held_out": 0}
    record.write_text(json.dumps({key: value for key, value in run.items() if key != "held_out"}))
    train_refused(capsys, [*args, "--resume_from_checkpoint"], "was made when single rows were held out")
    record.write_text(json.dumps(run))
    with (genres / "train.csv").open("a") as file:
        file.write('1,"[1, 2]","[0, 0]",[],[],5\n')
    train_refused(capsys, [*args, "--resume_from_checkpoint"], "was made from other data")


def test_what_is_held_out_is_said(genres, tiny_models, tmp_path, capsys):
    """400 rows of 5 users: 384 leave no whole user over, so one is held out of the sample."""
    args = tiny_args(genres, tiny_models["llama"], tmp_path / "out", "--max_steps", 1, "--eval_steps", 1, "--sample", 384)
    train.main(args)
    printed = capsys.readouterr().out
    assert "16 held-out windows of 1 users, of whom nothing is trained on; 5 users in all" in printed
    assert "--sample 384: 320 windows are trained on" in printed
    run = json.loads(next((tmp_path / "out").rglob("checkpoint-1/run.json")).read_text())
    assert run["windows"] == {"trained": 320, "held_out": 16} and run["held_out_users"] == 1
    assert run["catalogue_fingerprint"] == fingerprint_of_catalogue(["", *FRUIT, *CARS])


def test_a_held_out_row_that_is_too_long_is_refused_before_weights_are_loaded(genres, tiny_models, tmp_path, capsys):
    """Trained windows have 5 items, held-out ones 11: the model can read the first, not the second."""
    table = pd.read_csv(genres / "train.csv")
    held_out_users = set(table["user_id"][split_rows(table["user_id"], 48, 16, 2024).held_out])
    n_items = [11 if user in held_out_users else 5 for user in table["user_id"]]
    table["item_ids"] = [json.dumps(list(range(row % 90 + 1, row % 90 + 1 + count))) for row, count in enumerate(n_items)]
    table["mask"] = [json.dumps([0] * count) for count in n_items]
    table.to_csv(genres / "train.csv", index=False)
    examples, tokenizer = load_examples(genres, 48, 16, 2024, None), load_tokenizer(str(tiny_models["llama"]))
    longest = [
        max(encode(tokenizer, examples.prompt, example, 512)["length"] for example in part)
        for part in (examples.trained, examples.held_out)
    ]
    short = shutil.copytree(tiny_models["llama"], tmp_path / "short")
    LlamaConfig.from_pretrained(short, max_position_embeddings=longest[0]).save_pretrained(short)
    message = f"takes up to {longest[1]} tokens, the model reads {longest[0]}"
    (short / "model.safetensors").unlink()  # not read
    train_refused(capsys, tiny_args(genres, short, tmp_path / "out", "--max_steps", 1), message)
    assert longest[0] < longest[1]


def test_rates_are_of_training_alone_and_the_time_is_said_before(genres, tiny_models, tmp_path, monkeypatch, capsys):
    """Three evaluations that sleep: their time is kept apart. 44 windows in steps of 8 are 6 steps, the last of 4."""

    def slow_metrics(prediction):
        time.sleep(1)
        return held_out_metrics(prediction)

    monkeypatch.setattr(trainer, "held_out_metrics", slow_metrics)
    train.main(tiny_args(genres, tiny_models["llama"], tmp_path / "out", "--sample", 44, "--eval_steps", 2))
    run = json.loads(next((tmp_path / "out").glob("*/*/run.json")).read_text())
    seconds = run["seconds_of"]
    assert seconds["evaluating"] >= 3 and seconds["saving"] > 0 and run["examples_trained"] == 44
    assert sum(seconds.values()) <= run["seconds"] + 0.1
    assert run["examples_per_second"] == pytest.approx(44 / seconds["training"], rel=0.01)
    printed = capsys.readouterr()
    assert "6 optimiser steps" in printed.out and "operations" in printed.out
    assert "step 4: about" in printed.out + printed.err
    if not torch.cuda.is_available():
        assert "on this CPU about" in printed.out


THEN_COUNT_THREADS = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path({script!r}).parent))
import train_denoise_model
train_denoise_model.main()
threads = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in threads if "gloo" in name], threads
"""


def test_two_processes_train_like_one(genres, tiny_models, tmp_path):
    """Losses, and the held-out figures, whose windows are of other lengths on the other process.

    No communication thread is left at the end: one that outlives the interpreter aborts a process that has done its work.
    """
    options = ["--lora_dropout", 0, "--eval_steps", 3, "--loss_on", "unplanted", "--eval_sample", 31]
    train.main(tiny_args(genres, tiny_models["llama"], tmp_path / "one", *options))
    two = tiny_args(genres, tiny_models["llama"], tmp_path / "two", *options, "--micro_batch_size", 4)
    script = tmp_path / "train.py"
    script.write_text(THEN_COUNT_THREADS.format(script=train.__file__))
    launch = [*TWO_PROCESSES, script, *two]
    done = subprocess.run(launch, capture_output=True, text=True, env=os.environ | ON_THE_CPU)
    assert done.returncode == 0, done.stderr[-3000:]
    name = f"{genres.name}/batch8_sample48_epoch1"
    one, other = (tmp_path / run / name for run in ("one", "two"))
    assert losses(other) == pytest.approx(losses(one), abs=1e-3)
    measured = [
        {
            key: value
            for entry in json.loads((run / "run.json").read_text())["history"]
            for key, value in entry.items()
            if "auc" in key
        }
        for run in (one, other)
    ]
    assert {"eval_auc", "eval_auc_context", "eval_likelihood_auc"} <= measured[0].keys()
    assert measured[0] == pytest.approx(measured[1], abs=0.01)
    shutil.rmtree(other / "checkpoint-6")  # what two began, one may end, with the micro batch that fits it
    train.main(tiny_args(genres, tiny_models["llama"], tmp_path / "two", *options, "--resume_from_checkpoint"))
    assert losses(other) == pytest.approx(losses(one), abs=1e-3)


@pytest.mark.parametrize(
    "extra",
    [
        ["--seed", 1], ["--manual_noise", 0.5], ["--plant", "popularity"],
        ["--loss_on", "all"], ["--loss_on", "unplanted"], ["--lora_r", 4], ["--lora_alpha", 64],
        ["--lora_dropout", 0.5], ["--learning_rate", 0.1], ["--cutoff_len", 60],
        ["--warmup_steps", 5], ["--sample", 40], ["--batch_size", 16],
    ],
    ids=lambda extra: extra[0],
)  # fmt: skip
def test_every_option_changes_something(genres, tiny_models, tmp_path, extra, baseline={}):  # noqa: B006
    quick = ["--max_steps", 2, "--eval_sample", 0, "--eval_steps", 2]
    if not baseline:
        train.main(tiny_args(genres, tiny_models["llama"], tmp_path / "base", *quick))
        baseline.update(adapter(next((tmp_path / "base").rglob("checkpoint-2"))))
    train.main(tiny_args(genres, tiny_models["llama"], tmp_path / "other", *quick, *extra))
    other = adapter(next((tmp_path / "other").rglob("checkpoint-2")))
    assert any(other[name].shape != baseline[name].shape or not torch.equal(other[name], baseline[name]) for name in baseline)


def test_options_that_change_the_way_not_the_result(genres, tiny_models, tmp_path):
    """Checkpointed activations and another micro batch give the same steps; --dtype gives bfloat16 weights."""
    quick = ["--max_steps", 2, "--eval_sample", 0, "--eval_steps", 2, "--lora_dropout", 0]
    results = []
    for number, extra in enumerate([[], ["--gradient_checkpointing"], ["--micro_batch_size", 2]]):
        train.main(tiny_args(genres, tiny_models["llama"], tmp_path / str(number), *quick, *extra))
        results.append(adapter(next((tmp_path / str(number)).rglob("checkpoint-2"))))
    for other in results[1:]:
        assert max((results[0][name] - other[name]).abs().max().item() for name in other) < 1e-3
    assert load_base_model(str(tiny_models["llama"]), "bfloat16").dtype == torch.bfloat16


def test_gpt2_trains(genres, tiny_models, tmp_path):
    train.main(tiny_args(genres, tiny_models["gpt2"], tmp_path, "--max_steps", 2, "--eval_steps", 2, kind="gpt2"))
    assert list(tmp_path.rglob("checkpoint-2/adapter_model.safetensors"))


def test_bad_input(genres, tiny_models, tmp_path, capsys):
    args = tiny_args(genres, tiny_models["llama"], tmp_path / "out")
    train_refused(capsys, [*args, "--dataset_name", "Absent"], "there are: Genre_noise_user0.0")
    train_refused(capsys, [*args, "--sample", "999"], "train.csv: --sample 999 needs 999 rows, there are 400")
    train_refused(capsys, [*args, "--batch_size", "12"], "--batch_size 12 is not a multiple of --micro_batch_size 8")
    train_refused(capsys, [*args, "--base_model", str(tmp_path / "none")], "Embedded is HuggingFaceTB/SmolLM2-135M-Instruct")
    train_refused(capsys, [*args, "--lora_target_modules", "c_attn"], "--lora_target_modules c_attn: no such module")
    for name, config, message in (
        ("bloom", BloomConfig(vocab_size=400, hidden_size=64, n_layer=1, n_head=4), "stage 2 cannot read with BloomForCausalLM"),
        ("short", LlamaConfig.from_pretrained(tiny_models["llama"], max_position_embeddings=20), "the model reads 20"),
    ):
        folder = shutil.copytree(tiny_models["llama"], tmp_path / name)
        config.save_pretrained(folder)
        train_refused(capsys, [*args, "--base_model", str(folder)], message)
    train_refused(capsys, [*args, "--manual_noise", "1.5"], "1.5 is not between 0 and 1")
    train_refused(capsys, [*args, "--cutoff_len", "8"], "no example fits")
    train_refused(capsys, [*args, "--unknown"], "unrecognized arguments: --unknown")
    if not torch.cuda.is_available():
        train_refused(capsys, [*args, "--load_in_8bit"], "--load_in_8bit needs a CUDA device")
    (genres / "id2name4Rec.json").write_text('{"1": "a", "3": "b"}')
    train_refused(capsys, args, "id2name4Rec.json: expected the ids 1..2")
    assert not (tmp_path / "out").exists()


def test_the_command_of_the_release(tiny_models, tmp_path):
    """`accelerate launch train_denoise_model.py --dataset_name "Movie_noise_user0.0" --sample 5000`, on stand-ins."""
    write_tiny_data(tmp_path / "data" / "Movie_noise_user0.0", FRUIT + CARS, {"train": 5300}, genre=12, lengths=(5, 7))
    small = [
        "--data_root",
        tmp_path / "data",
        "--output_root",
        tmp_path / "out",
        "--base_model",
        tiny_models["llama"],
        "--max_steps",
        1,
    ]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        train.__file__,
        "--dataset_name",
        "Movie_noise_user0.0",
    ]
    done = subprocess.run([*launch, "--sample", "5000", *map(str, small)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out/Movie_noise_user0.0/batch128_sample5000_epoch50/checkpoint-1/prompt.json").exists()


def test_no_pass_waits_for_what_nobody_reads(genres, tiny_models, tmp_path):
    """No look at each loss, no counting of operations; batches are made by other processes on a GPU alone."""
    options = train.parse_args(tiny_args(genres, tiny_models["llama"], tmp_path, "--dtype", "float32"))
    for cpu_only, n_workers in ((True, 0), (False, 2)):
        arguments = trainer.training_arguments(options, cpu_only, has_held_out=False)
        assert arguments.dataloader_num_workers == n_workers and not arguments.logging_nan_inf_filter
    train.main(tiny_args(genres, tiny_models["llama"], tmp_path, "--max_steps", 1, "--eval_sample", 0, "--eval_steps", 1))
    state = json.loads(next(tmp_path.rglob("trainer_state.json")).read_text())
    assert state["total_flos"] == 0


def test_a_loss_that_is_no_number_ends_the_training(genres, tiny_models, tmp_path, capsys):
    """Before it is saved, however seldom the loss is logged."""
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(tiny_models["llama"], tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    few = ["--eval_sample", 0, "--logging_steps", 100, "--max_steps", 1]
    train_refused(capsys, tiny_args(genres, broken, tmp_path / "out", *few), "the loss is nan: a smaller --learning_rate")
    assert not list(tmp_path.rglob("checkpoint-*"))


@pytest.mark.parametrize(
    "options, message",
    [
        ("--seed -1", "--seed: -1 is below 0"),
        ("--lora_dropout 1.5", "--lora_dropout: 1.5 is not in [0, 1)"),
        ("--learning_rate nan", "--learning_rate: nan is not a finite number"),
        ("--learning_rate inf", "--learning_rate: inf is not a finite number"),
        ("--learning_rate -1", "--learning_rate: -1 is below"),
        ("--warmup_steps -5", "--warmup_steps: -5 is below 0"),
        ("--max_steps -7", "--max_steps -7: -1, or 1 and more"),
        ("--max_steps 0", "--max_steps 0: -1, or 1 and more"),
        ("--sample 0", "--sample: 0 is below 1"),
        ("--eval_sample 1", "--eval_sample 1: 0, or 2 and more"),
        ("--score likelihood --loss_on all --eval_sample 0", "picks no checkpoint with --eval_sample 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(capsys, options, message):
    with pytest.raises(SystemExit):
        train.parse_args(["--dataset_name", "X", *options.split()])
    assert message in capsys.readouterr().err


def test_a_second_training_in_one_folder_is_refused(tmp_path):
    folder = tmp_path / "out" / "batch8"
    with train.only_training_in(folder), pytest.raises(InputError, match="runs already"), train.only_training_in(folder):
        pass
    with train.only_training_in(folder):
        pass  # it is free again

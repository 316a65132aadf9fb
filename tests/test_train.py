"""train_denoise_model.py: wording, examples, tokens, learning, checkpoints, errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CARS, FRUIT, HARD_TITLES, write_tiny_data
from transformers import BloomConfig, LlamaConfig

import train_denoise_model as train
from train_denoise_model import IGNORED, Prompt

TARGETS = {"llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}


def tiny_args(folder, model, out, *extra, kind="llama"):
    options = {
        "--dataset_name": folder.name, "--data_root": folder.parent, "--output_root": out, "--base_model": model, "--sample": 48,
        "--eval_sample": 16, "--batch_size": 8, "--micro_batch_size": 8, "--num_epochs": 1, "--learning_rate": 1e-2,
        "--warmup_steps": 0, "--report_to": "none", "--logging_steps": 1,
    }  # fmt: skip
    flat = [str(part) for pair in options.items() for part in pair]
    return [*flat, "--lora_target_modules", *TARGETS[kind], *map(str, extra)]


@pytest.fixture
def genres(tmp_path):
    """Windows of fruit; nearly all of the catalogue is vehicles."""
    return write_tiny_data(tmp_path / "Genre_noise_user0.0", FRUIT + CARS, {"train": 400}, genre=len(FRUIT), lengths=(6, 10))


# ---------------------------------------------------------------- wording and examples


def test_golden_strings():
    prompt = Prompt()
    assert prompt.question(["Heat", "Up\n2"]) == (
        "One item of this sequence does not fit the user's interests. Name it and an item that fits better."
        "\nSequence:\n Heat\n Up 2\nNoise item:"
    )
    assert prompt.answer([("Up", "Heat")]) == " Up\nReplacement: Heat\n"
    assert prompt.answer([("Up", "Heat"), ("A", "B")]) == " Up\nReplacement: Heat\nNoise item: A\nReplacement: B\n"
    assert prompt.answer([("Up", "Heat")]).startswith(prompt.title("Up") + prompt.suggest_cue)


def test_prompt_json_round_trip(tmp_path):
    prompt = Prompt(instruction="Another", open='"', close='"', separator=", ")
    prompt.save(tmp_path)
    assert Prompt.load(tmp_path) == prompt and prompt.question(["a", "b"]).count('"a", "b"') == 1
    (tmp_path / "prompt.json").write_text('{"unknown": 1}')
    with pytest.raises(train.InputError, match="prompt.json"):
        Prompt.load(tmp_path)


def test_planting_is_uniform():
    from scipy.stats import chisquare

    rng, items, positions, planted = np.random.default_rng(0), [3, 1, 7, 9], np.zeros(4), np.zeros(21)
    for _ in range(20_000):
        ((position, item),) = train.plant(items, 20, rng).items()
        positions[position] += 1
        planted[item] += 1
    assert planted[items].sum() == 0 and planted[0] == 0
    assert chisquare(positions).pvalue > 0.001 and chisquare(np.delete(planted[1:], [0, 2, 6, 8])).pvalue > 0.001
    counts = [len(train.plant(list(range(1, 11)), 50, rng, 0.3)) for _ in range(5000)]
    assert np.mean(counts) == pytest.approx(3 + 0.7**10, abs=0.08) and min(counts) == 1


def test_example_names_what_was_planted():
    catalogue = ["", *FRUIT, *CARS]
    for rate in (None, 0.4):
        rng = np.random.default_rng(1)
        for _ in range(50):
            items = list(range(1, 9))
            example = train.make_example(items, catalogue, rng, rate)
            for noise, fit in example["pairs"]:
                assert example["titles"].index(noise) == [catalogue[item] for item in items].index(fit)
            changed = sum(title != catalogue[item] for title, item in zip(example["titles"], items))
            assert changed == len(example["pairs"]) and (rate or changed == 1)


def test_sample_and_held_out_rows_are_disjoint():
    chosen, held_out = train.split_rows(100, 60, 30, 5)
    assert len(set(chosen) | set(held_out)) == 90
    assert (train.split_rows(100, 60, 30, 5)[0] == chosen).all() and (train.split_rows(100, 60, 30, 6)[0] != chosen).any()


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_tokens_labels_and_round_trip(tiny_models, kind):
    tokenizer, prompt = train.load_tokenizer(str(tiny_models[kind])), Prompt()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    for noise in HARD_TITLES:
        titles = [title for title in HARD_TITLES[:10] if title != noise] + [noise]
        example = {"titles": titles, "pairs": [(noise, "Heat")]}
        row = train.encode(tokenizer, prompt, example, 512)
        text = prompt.question(titles) + prompt.answer(example["pairs"])
        assert row["input_ids"] == tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
        answer = [token for token in row["labels"] if token != IGNORED]
        assert answer == row["input_ids"][-row["answer_length"] :] and row["labels"][: -len(answer)] == [IGNORED] * (
            len(row["labels"]) - len(answer)
        )
        assert tokenizer.decode(answer[:-1]) == prompt.answer(example["pairs"]) and answer[-1] == tokenizer.eos_token_id
        assert row["candidates"][row["planted"].index(1)] == answer[0]
        assert (row["input_ids"][0] == tokenizer.bos_token_id) == (kind == "llama")
        everything = train.encode(tokenizer, prompt, example, 512, "all")
        assert everything["labels"][1:] == everything["input_ids"][1:] == row["input_ids"][1:]
        unplanted = train.encode(tokenizer, prompt, example, 512, "unplanted")
        left_out = [place for place, label in enumerate(unplanted["labels"]) if label == IGNORED][1:]
        assert tokenizer.decode([row["input_ids"][place] for place in left_out]) == prompt.title(noise)
        assert left_out == list(range(left_out[0], left_out[-1] + 1)) and left_out[-1] < len(row["input_ids"]) - len(answer)


def test_cutoff_drops_the_oldest_items_and_never_the_answer(tiny_models):
    tokenizer, prompt = train.load_tokenizer(str(tiny_models["llama"])), Prompt()
    example = {"titles": CARS[:8], "pairs": [(CARS[0], "Heat")]}
    whole = train.encode(tokenizer, prompt, example, 512)
    cut = train.encode(tokenizer, prompt, example, whole["length"] - 5)
    assert cut["dropped"] > 0 and cut["length"] <= whole["length"] - 5 and whole["dropped"] == 0
    answer = whole["input_ids"][-whole["answer_length"] :]
    assert cut["input_ids"][-cut["answer_length"] :] == answer
    assert prompt.question([CARS[0], *CARS[1 + cut["dropped"] : 8]]) in tokenizer.decode(cut["input_ids"])
    assert train.encode(tokenizer, prompt, example, 20) is None


def test_a_cue_that_merges_with_titles_is_refused(tiny_models):
    tokenizer = train.load_tokenizer(str(tiny_models["gpt2"]))
    with pytest.raises(train.InputError, match="merges"):
        train.continue_tokens(tokenizer, "Noise item: tr", "uck 1")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_batched_loss_equals_single_loss(tiny_models, kind, loss_on):
    """Left padding and fewer logits change neither the loss nor the scores."""
    from transformers import AutoModelForCausalLM

    tokenizer = train.load_tokenizer(str(tiny_models[kind]))
    model = AutoModelForCausalLM.from_pretrained(tiny_models[kind]).eval()
    examples = [{"titles": FRUIT[: 3 + n] + [CARS[n]], "pairs": [(CARS[n], FRUIT[9])]} for n in range(4)]
    rows = [train.encode(tokenizer, Prompt(), example, 512, loss_on) for example in examples]
    batch = train.Collator(tokenizer.pad_token_id)(rows)
    extra = {key: batch.pop(key) for key in train.FOR_METRICS}
    assert batch["labels"].shape[1] == batch["logits_to_keep"] < 40 or loss_on == "all"
    out = model(**batch)
    total, count = 0.0, 0
    scores = train.first_token_scores(out.logits, (batch["labels"], *extra.values()))
    for row, score in zip(rows, scores):
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        labels = torch.tensor(row["labels"])[1:]
        picked = logits[:-1].gather(1, labels.clamp(min=0)[:, None])[:, 0]
        total, count = total - picked[labels != IGNORED].sum().item(), count + (labels != IGNORED).sum().item()
        first = logits[len(row["input_ids"]) - row["answer_length"] - 1, row["candidates"]]
        assert torch.allclose(score[-len(first) :], first, atol=1e-4)
    if loss_on == "all":
        likelihoods = train.title_log_likelihoods(out.logits, (batch["labels"], *extra.values()))
        for example, likelihood in zip(examples, likelihoods):
            before, titles = Prompt().instruction + Prompt().sequence_cue, example["titles"]
            for title, found in zip(titles, likelihood[-len(titles) :].tolist()):
                start = len(tokenizer(before)["input_ids"])
                before += Prompt().title(title)
                ids = torch.tensor(tokenizer(before)["input_ids"])
                logits = model(input_ids=ids[None]).logits[0].log_softmax(-1)
                assert found == pytest.approx(logits[range(start - 1, len(ids) - 1), ids[start:]].sum().item(), abs=1e-3)
    assert out.loss.item() == pytest.approx(total / count, abs=1e-4)


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("kind", ["llama"])
def test_learns_what_does_not_belong(genres, tiny_models, tmp_path, kind):
    extra = ["--sample", 300, "--batch_size", 16, "--micro_batch_size", 16, "--num_epochs", 5, "--eval_sample", 64]
    args = tiny_args(
        genres, tiny_models[kind], tmp_path / "out", *extra, "--lora_target_modules", "all-linear", "--eval_steps", 15
    )
    train.main(args)
    output = tmp_path / "out" / genres.name / "batch16_sample300_epoch5"
    run = json.loads((output / "run.json").read_text())
    aucs = [entry["eval_auc"] for entry in run["history"] if "eval_auc" in entry]
    assert aucs[-1] > 0.95, aucs
    best = json.loads((output / run["best_checkpoint"] / "run.json").read_text())
    assert max(aucs) == [entry["eval_auc"] for entry in best["history"] if "eval_auc" in entry][-1]
    before = untrained_auc(genres, tiny_models[kind])
    assert 0.3 < before < 0.7, before


def untrained_auc(folder, model):
    from transformers import AutoModelForCausalLM

    tokenizer = train.load_tokenizer(str(model))
    _, _, held_out = train.load_examples(folder, 300, 64, 2024, None)
    rows = [train.encode(tokenizer, Prompt(), example, 512) for example in held_out]
    batch = train.Collator(tokenizer.pad_token_id)(rows)
    extra = {key: batch.pop(key) for key in train.FOR_METRICS}
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model)(**batch).logits
    scores = train.first_token_scores(logits, (batch["labels"], *extra.values()))

    class Prediction:
        predictions, label_ids = scores.numpy(), (None, None, None, extra["planted"].numpy())

    return train.detection_metrics(Prediction)["auc"]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_question_spans(tiny_models, kind):
    """Each title's tokens decode to the title, whatever stands between titles."""
    tokenizer = train.load_tokenizer(str(tiny_models[kind]))
    for prompt in (Prompt(), Prompt(separator="-\n"), Prompt(instruction="")):
        ids, spans = train.tokenize_question(tokenizer, prompt, HARD_TITLES)
        assert ids == tokenizer(prompt.question(HARD_TITLES))["input_ids"]
        assert [tokenizer.decode(ids[start:end]) for start, end in spans] == list(map(prompt.title, HARD_TITLES))


def test_likelihoods_are_learned_and_choose_the_checkpoint(genres, tiny_models, tmp_path, capsys):
    extra = ["--sample", 300, "--batch_size", 16, "--micro_batch_size", 16, "--eval_sample", 64, "--eval_steps", 6]
    args = tiny_args(genres, tiny_models["llama"], tmp_path / "out", *extra, "--lora_target_modules", "all-linear")
    refused(capsys, [*args, "--score", "likelihood"], "--score likelihood needs --loss_on all or unplanted")
    train.main([*args, "--loss_on", "unplanted", "--score", "likelihood"])
    run = json.loads((tmp_path / "out" / genres.name / "batch16_sample300_epoch1" / "run.json").read_text())
    aucs = {entry["step"]: entry["eval_likelihood_auc"] for entry in run["history"] if "eval_auc" in entry}
    assert aucs[max(aucs)] > 0.95 and run["best_checkpoint"] == f"checkpoint-{max(aucs, key=aucs.get)}", aucs


def test_detection_metrics_by_hand():
    class Prediction:
        predictions = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
        label_ids = (None, None, None, np.array([[1, 0, 0], [IGNORED, 0, 1]]))

    # positives 3, 4; negatives 1, 2, 5: pairs won 2 + 2 of 6; windows: 1 and 0; highest of the second is no noise
    assert train.detection_metrics(Prediction) == {"auc": pytest.approx(4 / 6), "auc_window": 0.5, "top1": 0.5}


# ---------------------------------------------------------------- checkpoints


def losses(folder):
    return [entry["loss"] for entry in json.loads((folder / "run.json").read_text())["history"] if "loss" in entry]


def adapter(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_checkpoint_folder_and_resume_after_a_kill(genres, tiny_models, tmp_path):
    name = f"{genres.name}/batch8_sample48_epoch1"
    straight, killed = (
        tiny_args(genres, tiny_models["llama"], tmp_path / out, "--eval_steps", 3) for out in ("straight", "killed")
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
    assert losses(half.parent) == pytest.approx(losses(folder), abs=1e-5)
    expected, found = adapter(folder / "checkpoint-6"), adapter(half.parent / "checkpoint-6")
    assert max((expected[name] - found[name]).abs().max().item() for name in expected) < 1e-5


def test_resume_refuses_what_changed(genres, tiny_models, tmp_path, capsys):
    args = tiny_args(genres, tiny_models["llama"], tmp_path / "out", "--max_steps", 2, "--eval_sample", 0, "--eval_steps", 1)
    train.main(args)
    refused(capsys, args, "holds checkpoints")
    refused(capsys, [*args, "--resume_from_checkpoint", "--learning_rate", "0.5"], "--learning_rate 0.01, not 0.5")
    refused(capsys, [*args, "--resume_from_checkpoint", str(tmp_path)], "no complete checkpoint")
    with (genres / "train.csv").open("a") as file:
        file.write('1,"[1, 2]","[0, 0]",[],[],5\n')
    refused(capsys, [*args, "--resume_from_checkpoint"], "was made from other data")


def test_two_processes_train_like_one(genres, tiny_models, tmp_path):
    options = ["--lora_dropout", 0, "--eval_steps", 3]
    train.main(tiny_args(genres, tiny_models["llama"], tmp_path / "one", *options))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", train.__file__]
    two = tiny_args(genres, tiny_models["llama"], tmp_path / "two", *options, "--micro_batch_size", 4)
    done = subprocess.run([*launch, *two], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    name = f"{genres.name}/batch8_sample48_epoch1"
    assert losses(tmp_path / "two" / name) == pytest.approx(losses(tmp_path / "one" / name), abs=1e-3)


@pytest.mark.parametrize(
    "extra",
    [
        ["--seed", 1], ["--manual_noise", 0.5], ["--loss_on", "all"], ["--loss_on", "unplanted"], ["--lora_r", 4], ["--lora_alpha", 64],
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
    assert train.load_base_model(str(tiny_models["llama"]), "bfloat16").dtype == torch.bfloat16


def test_gpt2_trains(genres, tiny_models, tmp_path):
    train.main(tiny_args(genres, tiny_models["gpt2"], tmp_path, "--max_steps", 2, "--eval_steps", 2, kind="gpt2"))
    assert list(tmp_path.rglob("checkpoint-2/adapter_model.safetensors"))


# ---------------------------------------------------------------- TDMD and errors


def tdmd_rows():
    return [
        {
            "instruction": "Find the odd one out.",
            "input": 'The user has used: "apple 1", "Say ""Hi"", friend", "fig 2"',
            "output": 'Noise Items: "fig 2"\nSuggested Replacement: "plum 0"',
        }
    ] * 70


def test_tdmd_of_the_release(genres, tiny_models, tmp_path):
    (genres / "TDMD").mkdir()
    (genres / "TDMD" / "train.json").write_text(json.dumps(tdmd_rows()))
    prompt, examples, held_out = train.load_examples(genres, 48, 16, 1, None)
    assert prompt.instruction == "Find the odd one out." and prompt.noise_cue == Prompt().noise_cue
    assert examples[0]["titles"][0] == "apple 1" and examples[0]["titles"][-1] == "fig 2"
    assert examples[0]["pairs"] == [("fig 2", "plum 0")] and len(held_out) == 16
    train.main(tiny_args(genres, tiny_models["llama"], tmp_path / "out", "--max_steps", 1, "--eval_steps", 1))
    saved = next((tmp_path / "out").rglob("prompt.json"))
    assert json.loads(saved.read_text())["instruction"] == "Find the odd one out."


@pytest.mark.parametrize(
    "row", [{"input": "a"}, "text", {"instruction": "i", "input": '"a", "b"', "output": 'Noise Items: "c" for "b"'}]
)
def test_malformed_tdmd_names_the_row(genres, tiny_models, tmp_path, capsys, row):
    (genres / "TDMD").mkdir()
    (genres / "TDMD" / "train.json").write_text(json.dumps([*tdmd_rows(), row]))
    refused(capsys, tiny_args(genres, tiny_models["llama"], tmp_path / "out"), "TDMD/train.json row 71")


def refused(capsys, args, message):
    with pytest.raises(SystemExit) as stopped:
        train.main(args)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error.strip().splitlines()[-1], error


def test_bad_input(genres, tiny_models, tmp_path, capsys):
    args = tiny_args(genres, tiny_models["llama"], tmp_path / "out")
    refused(capsys, [*args, "--dataset_name", "Absent"], "there are: Genre_noise_user0.0")
    refused(capsys, [*args, "--sample", "999"], "need 1015 rows")
    refused(capsys, [*args, "--batch_size", "12"], "--batch_size 12 is not a multiple of --micro_batch_size 8")
    refused(capsys, [*args, "--base_model", str(tmp_path / "none")], "Embedded is HuggingFaceTB/SmolLM2-135M-Instruct")
    refused(capsys, [*args, "--lora_target_modules", "c_attn"], "--lora_target_modules c_attn: no such module")
    for name, config, message in (
        ("bloom", BloomConfig(vocab_size=400, hidden_size=64, n_layer=1, n_head=4), "stage 2 cannot read with BloomForCausalLM"),
        ("short", LlamaConfig.from_pretrained(tiny_models["llama"], max_position_embeddings=20), "the model reads 20"),
    ):
        folder = shutil.copytree(tiny_models["llama"], tmp_path / name)
        config.save_pretrained(folder)
        refused(capsys, [*args, "--base_model", str(folder)], message)
    refused(capsys, [*args, "--manual_noise", "1.5"], "1.5 is not between 0 and 1")
    refused(capsys, [*args, "--cutoff_len", "8"], "no example fits")
    refused(capsys, [*args, "--unknown"], "unrecognized arguments: --unknown")
    if not torch.cuda.is_available():
        refused(capsys, [*args, "--load_in_8bit"], "--load_in_8bit needs a CUDA device")
    (genres / "id2name4Rec.json").write_text('{"1": "a", "3": "b"}')
    refused(capsys, args, "id2name4Rec.json: expected the ids 1..2")
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


def test_imports_follow_the_pipeline(root):
    """generate_denoised imports train_denoise_model; no stage imports another way, nothing reads sys.path."""
    import ast

    folders = {path.stem: path for path in [*root.glob("*.py"), *root.glob("SASRec_code/*.py"), *root.glob("data/*.py")]}
    allowed = {"generate_denoised": {"train_denoise_model"}, "train_denoise_model": set(), "prepare_noise_data": set()}
    for name, path in folders.items():
        tree = ast.parse(path.read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        ours = {module for module in imported if module in folders}
        inside = (
            {other for other, place in folders.items() if place.parent == path.parent}
            if path.parent.name == "SASRec_code"
            else set()
        )
        assert ours <= allowed.get(name, inside), (name, ours)
        assert "sys.path" not in path.read_text() and "pickle" not in imported


def test_help_is_instant(root):
    for script in ("train_denoise_model.py", "generate_denoised.py"):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, Path(root) / script, "--help"], capture_output=True, text=True)
        assert done.returncode == 0 and time.perf_counter() - started < 10

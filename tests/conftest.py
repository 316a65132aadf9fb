"""Shared by all tests: the scripts as modules, tiny models, small data sets, the authors' files where they lie."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RELEASED = ROOT.parent / "shared" / "data"  # the authors' rows; tests that need them skip without
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# accelerate's own launcher starts one process where there is no GPU, whatever --num_processes says
TWO_PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ON_THE_CPU = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
sys.path[:0] = [str(ROOT), str(ROOT / "SASRec_code"), str(ROOT / "data")]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def released() -> Path:
    folder = RELEASED / "Toy_noise_user0.1"
    if not folder.is_dir():
        pytest.skip("the authors' Toy files are not beside this checkout")
    return folder


@pytest.fixture
def cases() -> Path:
    if not (RELEASED / "cases").is_dir():
        pytest.skip("the files that people report are not beside this checkout")
    return RELEASED / "cases"


@pytest.fixture(scope="session")
def ml_100k(tmp_path_factory) -> Path:
    """ML100K_noise_user0.1, made once."""
    if importlib.util.find_spec("recbole") is None:
        pytest.skip("the wheel recbole is not installed")
    import prepare_noise_data

    out = tmp_path_factory.mktemp("data")
    prepare_noise_data.main(["ml-100k", "--noise", "0.1", "--no_year", "--output_root", str(out)])
    return out / "ML100K_noise_user0.1"


@pytest.fixture(scope="session")
def few_movies(ml_100k, tmp_path_factory) -> Path:
    """ML100K_noise_user0.1 with 200 of its items: soon read by a real language model."""
    import prepare_noise_data

    out = tmp_path_factory.mktemp("few")
    prepare_noise_data.main(["ml-100k", "--noise", "0.1", "--no_year", "--sample_items", "200", "--output_root", str(out)])
    return out / "ML100K_noise_user0.1"


# Titles that break careless code: quotes, commas, entities, other scripts, one the start of another, two of one name.
HARD_TITLES = [
    "Heat", "Heat Wave", "Heat Wave 2", 'The "Quoted" One', "It's, a, List", "Munch &amp; Crunch", "映画の夜", "Ünïcode",
    "The", "The The", "[1, 2]", "__import__('os').system('true')", "../../x", "Replacement:", "Noise item: Heat",
    "3:10 to Yuma?", "Twins", "Twins",
]  # fmt: skip
FRUIT = [f"{word} {number}" for word in ("apple", "pear", "plum", "fig") for number in range(3)]
CARS = [f"{word} {number}" for word in ("truck", "bus", "van", "tram", "jeep") for number in range(20)]


def write_rows(path, windows, masks=None):
    """A split of the contract from lists of item ids."""
    import json

    import pandas as pd

    masks = masks or [[0] * len(items) for items in windows]
    rows = [
        {"user_id": row % 5, "item_ids": json.dumps(items), "mask": json.dumps(mask), "item_titles": "[]",
         "replaced_item_titles": "[]", "timestamp": row}
        for row, (items, mask) in enumerate(zip(windows, masks))
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(path, index=False)


def write_tiny_data(folder, titles, rows, genre=None, lengths=(11, 12), seed=0):
    """A data set of random windows over titles (the first `genre` of them), with marked noise from the others."""
    import json

    import numpy as np

    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for name in ("id2name4Rec.json", "id2name.json"):
        (folder / name).write_text(json.dumps({str(item): title for item, title in enumerate(titles, 1)}, ensure_ascii=False))
    for split, count in rows.items():
        windows, masks = [], []
        for _ in range(count):
            items = (1 + rng.choice(genre or len(titles), size=int(rng.integers(*lengths)), replace=False)).tolist()
            mask = [0] * len(items)
            if not split.startswith("train"):
                place = int(rng.integers(len(items) - 1))
                items[place], mask[place] = int(rng.integers(genre or 0, len(titles))) + 1, 1
            windows.append(items)
            masks.append(mask)
        write_rows(folder / f"{split}.csv", windows, masks)
    return folder


def make_tiny_model(folder, kind, titles):
    """A random Llama (rotary positions, with BOS) or GPT-2 (learned positions, no BOS) and a tokenizer trained on titles."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from denoise_code.language_model.prompt import Prompt

    prompt = Prompt()
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator([prompt.question(titles), *titles], trainer)
    if kind == "llama":
        raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    shared = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1}
    if kind == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                        initializer_range=0.2, **shared)
        )  # fmt: skip
    else:
        model = GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=1024, initializer_range=0.2, **shared))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: make_tiny_model(root / kind, kind, HARD_TITLES + FRUIT + CARS) for kind in ("llama", "gpt2")}


def make_adapter(folder, kind, model_path):
    """A random LoRA adapter in the form that train_denoise_model.py saves."""
    import json

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from denoise_code.language_model.prompt import Prompt

    model = AutoModelForCausalLM.from_pretrained(model_path)
    targets = ["q_proj", "v_proj"] if kind == "llama" else ["c_attn"]
    model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_path).save_pretrained(folder)
    Prompt().save(folder)
    (folder / "run.json").write_text(json.dumps({"arguments": {"sample": 40, "eval_sample": 10, "seed": 1}}))
    return folder


@pytest.fixture(scope="session")
def tiny_adapters(tiny_models, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return {kind: make_adapter(root / f"{kind}_sample40" / "checkpoint-7", kind, path) for kind, path in tiny_models.items()}


TITLES = HARD_TITLES + FRUIT + CARS[:30]
DENOISED = "Hard_denoise_user0.1_40_7"


@pytest.fixture
def data(tmp_path):
    rows = {"train": 90, "valid_5000": 23, "test_5000": 40}
    return write_tiny_data(tmp_path / "Hard_noise_user0.1", TITLES, rows, lengths=(2, 12))


def arguments(adapter, data, *extra, out=None):
    options = [
        "--denoise_model_path",
        adapter,
        "--noise_dataset_path",
        data,
        "--planted",
        20,
        "--batch_size",
        8,
    ]
    if "catalogue" not in extra:
        options += ["--max_new_tokens", 12]
    return [*map(str, options), *(["--output_root", str(out)] if out else []), *map(str, extra)]


def run(adapter, data, *extra, out=None, evidence=False):
    """The folder that generate_denoised.py writes; without `evidence` its last act, which takes longest, is left out."""
    import generate_denoised as generate
    from denoise_code import making_evidence

    with pytest.MonkeyPatch.context() as patch:
        if not evidence:
            patch.setattr(making_evidence, "make_evidence", lambda *_: None)
        generate.main(arguments(adapter, data, *extra, out=out))
    return (out or data.parent) / DENOISED


def csvs(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")}


def same_but_rounding(a, b):
    """The same rows; probabilities to the last printed digit, suspects the same where they do not tie by that."""
    import json

    import pandas as pd

    a, b = pd.read_csv(a), pd.read_csv(b)
    assert (a[["user_id", "item_ids", "mask"]] == b[["user_id", "item_ids", "mask"]]).all(axis=None)
    for x, y in zip(a.noise_prob, b.noise_prob):
        assert json.loads(x) == pytest.approx(json.loads(y), abs=3e-4)
    assert (a.noise_items == b.noise_items).mean() > 0.95 and (a.suggest_item_ids == b.suggest_item_ids).mean() > 0.95


def refused(capsys, args, message):
    import generate_denoised as generate

    with pytest.raises(SystemExit) as stopped:
        generate.main(args)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error.strip().splitlines()[-1], error


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


def train_refused(capsys, args, message):
    import train_denoise_model as train

    with pytest.raises(SystemExit) as stopped:
        train.main(args)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error.strip().splitlines()[-1], error


def write_denoised(root, name="Z_denoise_user0.1_8_1", n_items=30, rows=(120, 40, 40), seed=0, denoised=True):
    """Windows of a noisy cycle (item i is followed by i + 1) with injected noise and suspects that mostly hit it.

    denoised: with what a language model said, and with evidence by hand (hand_evidence.py).
    """
    import json

    import numpy as np
    import pandas as pd
    from hand_evidence import write_evidence_by_hand

    rng, folder = np.random.default_rng(seed), root / name
    folder.mkdir(parents=True)
    titles = {str(item): f"Item {item}" for item in range(1, n_items + 1)}
    (folder / "id2name4Rec.json").write_text(json.dumps(titles))
    for split, count in zip(("train", "valid_5000", "test_5000"), rows):
        records = []
        for row in range(count):
            length = int(rng.integers(4, 12))
            clean = (rng.integers(n_items) + np.arange(length)) % n_items + 1
            mask = rng.random(length) < 0.2
            if not split.startswith("train"):
                mask[-1] = False
            noisy = np.where(mask, rng.integers(1, n_items + 1, size=length), clean)
            scored = length if split.startswith("train") else length - 1
            base = -6 if split.startswith("test") else -5  # so that the percentiles of valid and test differ
            prob = np.round(base + 3 * mask[:scored] + rng.normal(size=scored), 3)
            top = np.argsort(-prob, kind="stable")[:3]
            record = {
                "user_id": row % 7,
                "item_ids": json.dumps(noisy.tolist()),
                "mask": json.dumps(mask.astype(int).tolist()),
                "item_titles": json.dumps([titles[str(item)] for item in noisy]),
                "replaced_item_titles": json.dumps([titles[str(item)] for item in clean[mask]]),
                "timestamp": row,
                "start": 20 * row,
            }
            if denoised:
                record |= {
                    "noise_prob": json.dumps(prob.tolist()),
                    "noise_items": json.dumps(noisy[top].tolist()),
                    "noise_items_prob": json.dumps(prob[top].tolist()),
                    "suggest_item_titles": json.dumps([titles[str(item)] for item in clean[top]]),
                    "suggest_item_ids": json.dumps(clean[top].tolist()),
                }
            records.append(record)
        pd.DataFrame(records).to_csv(folder / f"{split}.csv", index=False)
    if denoised:
        write_evidence_by_hand(folder)
    return folder


def sasrec_command(root, *extra, name="Z_denoise_user0.1_8_1", epochs=2):
    places = ["--dataset", name, "--data_root", str(root), "--output_root", str(root / "out"), "--num_epochs", str(epochs)]
    return [*places, *map(str, extra)]


def sasrec_arguments(root, *extra):
    import main as sasrec

    return sasrec.parse_args(sasrec_command(root, *extra))


def sasrec_refused(capsys, options, message):
    import main as sasrec

    with pytest.raises(SystemExit) as stopped:
        sasrec.main(options)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1, error


@pytest.fixture(scope="module")
def denoised(tmp_path_factory):
    """A denoised data set with evidence of every kind by hand: noise_prob and all probabilities are high at noise."""
    return write_denoised(tmp_path_factory.mktemp("evidence"), rows=(400, 80, 200), seed=3)


@pytest.fixture
def quick_evidence(monkeypatch):
    """Evidence in a second or two: fewer planted interactions, a small detector that learns for few steps."""
    from functools import partial

    from denoise_code.evidence import detector, fit

    settings = partial(detector.DetectorSettings, width=16, layers=1, heads=2, steps=25, batch_size=64)
    monkeypatch.setattr(detector, "DetectorSettings", settings)
    for name, count in (("PLANTED_TO_FIT", 600), ("PLANTED_TO_BOUND", 600), ("PLANTED_BY_POPULARITY", 300)):
        monkeypatch.setattr(fit, name, count)


SPLITS = ("train", "valid", "test")


def prepare_run(*arguments):
    import prepare_noise_data

    prepare_noise_data.main([str(argument) for argument in arguments])


def prepare_refused(capsys, out, arguments, message):
    before = sorted(out.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        prepare_run(*arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1, error
    assert sorted(out.rglob("*")) == before, "something was written"


def write_log(path, rows, columns=("user", "item", "timestamp", "title")):
    import pandas as pd

    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return ["csv", "--interactions", path, "--name", "X", "--output_root", path.parent]


def good_rows():
    return [(u, i, 10 * u + i, f"title {i}") for u in range(12) for i in range(6)]

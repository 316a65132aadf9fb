"""Shared by all tests: the scripts as modules, tiny models, small data sets, the authors' files where they lie."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RELEASED = ROOT.parent / "shared" / "data"  # the authors' rows; tests that need them skip without
os.environ.setdefault("HF_HUB_OFFLINE", "1")
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


@pytest.fixture(scope="session")
def ml_100k(tmp_path_factory) -> Path:
    """ML100K_noise_user0.1, made once."""
    if importlib.util.find_spec("recbole") is None:
        pytest.skip("the wheel recbole is not installed")
    import prepare_noise_data

    out = tmp_path_factory.mktemp("data")
    prepare_noise_data.main(["ml-100k", "--noise", "0.1", "--no_year", "--output_root", str(out)])
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

    import train_denoise_model as train

    prompt = train.Prompt()
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

    import train_denoise_model as train

    model = AutoModelForCausalLM.from_pretrained(model_path)
    targets = ["q_proj", "v_proj"] if kind == "llama" else ["c_attn"]
    model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_path).save_pretrained(folder)
    train.Prompt().save(folder)
    (folder / "run.json").write_text(json.dumps({"arguments": {"sample": 40, "eval_sample": 10, "seed": 1}}))
    return folder


@pytest.fixture(scope="session")
def tiny_adapters(tiny_models, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return {kind: make_adapter(root / f"{kind}_sample40" / "checkpoint-7", kind, path) for kind, path in tiny_models.items()}

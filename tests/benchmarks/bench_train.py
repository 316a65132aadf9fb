"""Training throughput beside the release's way, in one run.

The release's way: the loss (and so the logits) of every token, batches in random order, checkpointed activations.

    python tests/benchmarks/bench_train.py DATASET_FOLDER [--windows 64] [--batch 16]
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import train_denoise_model as train  # noqa: E402
from denoise_code.common.resources import peak_memory_gib
from denoise_code.language_model.loading import EMBEDDED_MODEL, add_adapter, load_base_model, load_tokenizer
from denoise_code.training.encoding import Collator, encode, tokenize
from denoise_code.training.examples import load_examples


def measure(folder: Path, way: str, windows: int, batch: int, micro: int) -> None:
    """Forward and backward over all windows once, after one batch that does not count."""
    options = train.parse_args(["--dataset_name", folder.name])
    prompt, examples = load_examples(folder, windows, 1, 0, None)[:2]
    tokenizer = load_tokenizer(options.base_model)
    rows = list(tokenize(tokenizer, prompt, examples, 512, "all" if way == "release" else "answer", for_metrics=False))
    model = add_adapter(load_base_model(options.base_model, "float32"), options.base_model, options.adapter).train()
    if way == "release":
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
        order = np.random.default_rng(0).permutation(len(rows))
    else:
        order = np.argsort([-row["length"] for row in rows], kind="stable")
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4)
    collate = Collator(tokenizer.pad_token_id)

    def step(chosen):
        for start in range(0, len(chosen), micro):
            part = collate([rows[row] for row in chosen[start : start + micro]])
            (model(**part).loss * len(part["input_ids"]) / len(chosen)).backward()
        optimiser.step()
        optimiser.zero_grad()

    step(order[:batch])
    started = time.perf_counter()
    for start in range(0, len(rows), batch):
        step(order[start : start + batch])
    seconds = time.perf_counter() - started
    tokens = sum(row["length"] for row in rows)
    # forward, and backward to the activations only: the base model's weights have no gradient
    parameters = sum(p.numel() for name, p in model.named_parameters() if "lora" not in name and "embed" not in name)
    flops = 4 * parameters * tokens / seconds
    print(
        f"{way:8s} micro batch {micro:2d}: {windows / seconds:6.3f} examples/s  {tokens / seconds:6.1f} tokens/s  "
        f"{tokens / windows:4.0f} tokens/example  {flops / 1e9:5.1f} GFLOP/s  peak memory {peak_memory_gib():5.2f} GiB",
        flush=True,
    )


def measure_encoding(folder: Path, windows: int) -> None:
    """Seconds to turn windows into tokens with what only measuring reads and without it: the least of three rounds each."""
    prompt, examples = load_examples(folder, windows, 0, 0, None)[:2]
    tokenizer = load_tokenizer(EMBEDDED_MODEL)
    seconds = {True: [], False: []}
    for _ in range(3):
        for for_metrics in seconds:
            started = time.perf_counter()
            for example in examples:
                encode(tokenizer, prompt, example, 512, for_metrics=for_metrics)
            seconds[for_metrics].append(time.perf_counter() - started)
    print(
        f"{windows} windows as tokens: {min(seconds[True]):.2f} s with what only measuring reads, {min(seconds[False]):.2f} s without"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--only", nargs=2, help="way and micro batch, in this process")
    args = parser.parse_args()
    if args.only:
        measure(args.dataset, args.only[0], args.windows, args.batch, int(args.only[1]))
        return
    a, b = torch.randn(2048, 576), torch.randn(576, 1536)
    started = time.perf_counter()
    for _ in range(100):
        a @ b
    print(f"float32 products: {100 * 2 * 2048 * 576 * 1536 / (time.perf_counter() - started) / 1e9:.0f} GFLOP/s")
    measure_encoding(args.dataset, 500)
    for way, micro in (("release", 16), ("ours", 16), ("ours", 4)):  # a process each, so that each peak is its own
        sizes = ["--windows", str(args.windows), "--batch", str(args.batch)]
        command = [sys.executable, __file__, str(args.dataset), *sizes, "--only", way, str(micro)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

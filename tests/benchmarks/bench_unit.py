"""Each row read, or each interaction once: time of planning, of lengths in tokens, and of both units on the same users in one run.

    python tests/benchmarks/bench_unit.py                               # plans 1 M windows of 100,000 users
    python tests/benchmarks/bench_unit.py ADAPTER DATASET_FOLDER        # and times both units on some users, taking turns

Of the rows of these users every --every-th is read by itself, as their time grows with their number.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import generate_denoised as generate  # noqa: E402
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.windows import ScoredSplit, Window
from denoise_code.data_set.windows import read_scored_windows as read_split
from denoise_code.language_model.loading import check_adapter, load_model, load_tokenizer
from denoise_code.language_model.prompt import Prompt, Titles
from denoise_code.reading.denoiser import Denoiser
from denoise_code.reading.job import plan_part
from denoise_code.reading.plan import plan_interactions, plan_parts, plan_rows


def plan(users: int, rows_each: int) -> None:
    rng, windows, columns = np.random.default_rng(0), [], {"user_id": [], "start": [], "timestamp": []}
    for user in range(users):
        log = rng.integers(1, 50_000, size=rows_each + 10).tolist()
        for start in range(rows_each):
            windows.append(Window(len(windows), tuple(log[start : start + 11])))
            for column, value in zip(columns.values(), (user, start, start)):
                column.append(value)
    table, before = pd.DataFrame(columns).astype({"start": str}), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for score, causal in (("likelihood", True), ("first_token", False)):
        started = time.perf_counter()
        stretches = plan_interactions({"train": ScoredSplit(table, windows)}, causal)
        seconds = time.perf_counter() - started
        lengths_read = [len(text.items) for stretch in stretches for text in stretch.texts]
        texts, items = len(lengths_read), sum(lengths_read)
        gib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
        print(
            f"{score}: {len(windows):,} windows of {users:,} users planned in {seconds:.1f} s: {texts:,} texts of {items:,} "
            f"items where the windows hold {11 * len(windows):,}; memory {gib:+.2f} GiB",
            flush=True,
        )


def lengths(titles: Titles, windows: list) -> None:
    """What the batches are planned by: the tokens of titles, and as it was until 2026-11-26, all rows as tokens."""
    ways = {
        "of their titles": lambda: [titles.length(window.items) for window in windows],
        "of all rows, tokenised": lambda: [titles.questions([window.items]) for window in windows],
    }
    for way, run in ways.items():
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kept = run()
        gib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
        print(f"lengths of {len(kept):,} windows {way}: {time.perf_counter() - started:.2f} s, {gib:+.2f} GiB", flush=True)


def pair(adapter: Path, data: Path, users: int, every: int, rounds: int) -> None:
    options = ["--denoise_model_path", adapter, "--noise_dataset_path", data, "--score", "likelihood", "--suggest", "catalogue"]
    request = generate.read_request(generate.parse_args([*map(str, options), "--unit", "interaction", "--batch_size", "16"]))
    catalogue = read_catalogue(data)
    splits = {name: read_split(data, name, catalogue, None, 0, request.adapter_record) for name in request.rows.denoise_data}
    stretches = plan_parts(splits, by_interaction=True, causal=True, data_set=data)["interactions"]
    stretches = sorted(stretches, key=lambda stretch: -len(stretch.interactions))
    stretches = [stretches[place] for place in np.linspace(0, len(stretches) - 1, users).astype(int)]
    rows = [splits[row.split].windows[row.row] for stretch in stretches for row in stretch.rows]
    model = load_model(adapter, check_adapter(adapter, None).base_model, request.model.precision)
    model.merge_adapter()
    titles = Titles(load_tokenizer(str(adapter)), Prompt.load(adapter), catalogue)
    lengths(titles, [window for scored in splits.values() for window in scored.windows])
    best, ways = {}, {}
    for unit, these in (("interaction", stretches), ("window", plan_rows("rows", rows[::every]))):
        denoiser = Denoiser(model, titles, request.reading)
        denoiser.begin([text.items for stretch in these for text in stretch.texts])
        ways[unit] = denoiser, plan_part(these, titles, request.reading.batch_size)
    for _ in range(rounds):
        for unit, (denoiser, part) in ways.items():
            denoiser.seconds.clear()
            denoiser.tokens.clear()
            read = sum(len(denoiser.run([part.stretches[number] for number in batch])) for batch in part.batches)
            cost = sum(denoiser.seconds.values()) / read, dict(denoiser.seconds), dict(denoiser.tokens), read
            best[unit] = min(best.get(unit, cost), cost, key=lambda found: found[0])
            denoiser.end()
    print(f"{users} users of {data.name}, {len(rows):,} rows, {torch.get_num_threads()} threads, fastest of {rounds} rounds")
    for unit, (each, seconds, tokens, read) in best.items():
        steps = ", ".join(f"{step} {seconds[step] / read:.4f} s and {tokens[step] / read:.1f} tokens" for step in seconds)
        print(f"{unit:12s} {each:.4f} s a row ({steps}; {read:,} rows)")
    print(f"{best['window'][0] / best['interaction'][0]:.1f}x")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path, nargs="?")
    parser.add_argument("dataset", type=Path, nargs="?")
    parser.add_argument("--users", type=int, default=12)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    if args.dataset:
        pair(args.adapter, args.dataset, args.users, args.every, args.rounds)
    else:
        plan(100_000, 10)


if __name__ == "__main__":
    main()

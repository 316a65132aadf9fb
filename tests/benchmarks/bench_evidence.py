"""Time and memory of the table of interactions, evidence of each kind, and replacements, on synthetic sliding windows.

Must grow linearly with windows. A line a step: seconds, and the peak of memory up to its end. `titles`: with title vectors, too.

python tests/benchmarks/bench_evidence.py 100000 300000 1000000 titles
python tests/benchmarks/bench_evidence.py 10000 width=201
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from denoise_code.data_set.interactions import Rows, build_data_set
from denoise_code.evidence import cooccurrence
from denoise_code.evidence.fit import learn_evidence
from denoise_code.evidence.learned import learn_models
from denoise_code.evidence.unseen_items import unseen_items
from denoise_code.replacement import fit_ranker, replace_interactions

N_ITEMS, WINDOWS_PER_USER, DIMENSIONS = 100_000, 10, 576
REPLACED = 20_000  # interactions


class Stopwatch:
    """Prints what each step took."""

    def __init__(self):
        self.started = time.perf_counter()

    def print_step(self, step: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{step:>36s} {time.perf_counter() - self.started:>9.1f} s {peak:>7.2f} GiB", flush=True)
        self.started = time.perf_counter()


def synthetic_rows(n_windows: int, width: int) -> Rows:
    """Sliding windows (N, W) of users, items of Zipf-like popularity."""
    rng = np.random.default_rng(0)
    n_users = n_windows // WINDOWS_PER_USER
    logs = 1 + (rng.random((n_users, width + WINDOWS_PER_USER - 1)) ** 3 * N_ITEMS).astype(np.int64)
    items = np.concatenate([logs[:, start : start + width] for start in range(WINDOWS_PER_USER)])
    users = np.tile(np.arange(n_users), WINDOWS_PER_USER).astype(str)
    starts = np.repeat(np.arange(WINDOWS_PER_USER), n_users)
    return Rows(users, items, np.zeros_like(items), starts.astype(np.float64), starts)


def random_vectors() -> np.ndarray:
    """Title vectors (n_items + 1, D) float16 of length 1, zero for padding."""
    vectors = np.random.default_rng(0).normal(size=(N_ITEMS + 1, DIMENSIONS)).astype(np.float16)
    vectors[1:] /= np.linalg.norm(vectors[1:].astype(np.float32), axis=1, keepdims=True)
    vectors[0] = 0
    return vectors


def measure(n_windows: int, width: int, with_titles: bool) -> None:
    print(f"{n_windows:,} windows of {width}" + (", titles" if with_titles else ""), flush=True)
    rows, vectors = synthetic_rows(n_windows, width), random_vectors() if with_titles else None
    watch = Stopwatch()
    data = build_data_set(rows, {}, N_ITEMS)
    watch.print_step(f"table of {len(data.interactions):,} interactions")
    unseen = unseen_items(data)
    counts = cooccurrence.count(data.interactions, unseen.n_items_and_stand_ins, width)
    watch.print_step(f"{counts.pairs.nnz:,} pairs counted")
    halvings = data.interactions.halvings()
    models = learn_models(data, vectors, halvings)
    watch.print_step("maps of titles and detectors learned")
    evidence = learn_evidence(data, models.kinds(counts, unseen.with_stand_ins(vectors), halvings), counts, unseen)
    watch.print_step("evidence " + ", ".join(evidence.kinds))
    ranker = fit_ranker(data, vectors, halvings[0]).ranker
    watch.print_step("what ranks replacements")
    noise = np.zeros(len(data.interactions))
    noise[:REPLACED] = 0.5
    replace_interactions(data, ranker, noise, least=0.1)
    watch.print_step(f"{REPLACED:,} replacements")


if __name__ == "__main__":
    options = sys.argv[1:]
    width = next((int(option.removeprefix("width=")) for option in options if option.startswith("width=")), 11)
    sizes = [int(option) for option in options if option.isdigit()] or [100_000, 300_000, 1_000_000]
    if len(sizes) == 1:
        measure(sizes[0], width, "titles" in options)
    else:
        for size in sizes:
            others = [option for option in options if not option.isdigit()]
            subprocess.run([sys.executable, __file__, str(size), *others], check=True)

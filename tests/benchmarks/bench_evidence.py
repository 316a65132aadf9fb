"""Time and memory of evidence and of replacements on synthetic windows; must grow linearly with windows.

Replacements by co-occurrence, of 6 % of all positions; `titles`: by title vectors too.

python tests/benchmarks/bench_evidence.py 100000 300000 1000000 titles
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "SASRec_code"))
from denoise_code.evidence.counts import Counts
from denoise_code.evidence.similarity import learn
from denoise_code.evidence.window_features import collaborative_features, semantic_features
from denoise_code.neighbours import Replacer

from denoise_code.data_set.padded_rows import Split

N_ITEMS, WIDTH, WINDOWS_PER_USER, DIMENSIONS, FLAGGED = 100_000, 11, 10, 576, 0.06


def synthetic(windows: int) -> Split:
    """Sliding windows of users with 20 interactions each, items of Zipf-like popularity."""
    rng = np.random.default_rng(0)
    users = windows // WINDOWS_PER_USER
    logs = 1 + (rng.random((users, WIDTH + WINDOWS_PER_USER - 1)) ** 3 * N_ITEMS).astype(np.int64)
    items = np.concatenate([logs[:, start : start + WIDTH] for start in range(WINDOWS_PER_USER)])
    owner = np.tile(np.arange(users), WINDOWS_PER_USER)
    return Split(Path("train.csv"), owner, items, np.zeros_like(items), items)


def measure(windows: int) -> None:
    split = synthetic(windows)
    started = time.perf_counter()
    counts = Counts.of(split, N_ITEMS)
    counted = time.perf_counter()
    collaborative_features(split, counts)
    joined = time.perf_counter()
    vectors = np.random.default_rng(0).normal(size=(N_ITEMS + 1, DIMENSIONS)).astype(np.float16)
    made = time.perf_counter()
    similarity = learn(split, vectors)
    learned = time.perf_counter()
    semantic_features(split, similarity)
    likened = time.perf_counter()
    vectors[1:] /= np.linalg.norm(vectors[1:].astype(np.float32), axis=1, keepdims=True)
    prepared = time.perf_counter()
    replacer = Replacer(split, N_ITEMS, vectors if "titles" in sys.argv else None)
    ready = time.perf_counter()
    flagged = np.random.default_rng(1).random(split.items.shape) < FLAGGED
    replacer.replacements(split, flagged)
    replaced = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = [counted - started, joined - counted, learned - made, likened - learned, ready - prepared, replaced - ready]
    print(f"{windows:>10,}" + "".join(f"{value:>12.1f}" for value in seconds) + f"{flagged.sum():>10,} {peak:>8.2f}", flush=True)


if __name__ == "__main__":
    titles = ["titles"] if "titles" in sys.argv else []
    sizes = [int(size) for size in sys.argv[1:] if size != "titles"] or [100_000, 300_000, 1_000_000]
    if len(sizes) == 1:
        measure(sizes[0])
    else:
        steps = ("count s", "co-occur s", "learn s", "alike s", "neighbours s", "replace s")
        print("   windows" + "".join(f"{step:>12s}" for step in steps) + "    places      GiB")
        for size in sizes:
            subprocess.run([sys.executable, __file__, str(size), *titles], check=True)

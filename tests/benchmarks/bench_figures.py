"""Figures of detection over rows of 11 positions: the library's functions called for each draw and window, and evidence.py.

python tests/benchmarks/bench_figures.py 5000
"""

import sys
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "SASRec_code"))
from denoise_code.evidence.detection import weighted_auc, within_windows

DRAWS = 20


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(rows: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((rows, 11)) < 0.1
    score, scored = rng.random(truth.shape) + 0.1 * truth, np.ones_like(truth)
    times = [rng.integers(3, size=truth.size) for _ in range(DRAWS)]
    level = np.unique(score, return_inverse=True)[1].ravel()
    mixed = [(t, s) for t, s in zip(truth, score) if t.any()]
    print(f"{rows:,} rows                 library       here")
    library = seconds(lambda: [roc_auc_score(truth.ravel(), score.ravel(), sample_weight=w) for w in times])
    here = seconds(lambda: [weighted_auc(truth.ravel(), level, w) for w in times])
    print(f"{DRAWS} draws of the bootstrap {library:8.3f} s {here:8.3f} s")
    library = seconds(lambda: [(roc_auc_score(t, s), average_precision_score(t, s)) for t, s in mixed])
    here = seconds(lambda: within_windows(truth, score, scored))
    print(f"{len(mixed):,} windows              {library:8.3f} s {here:8.3f} s")


if __name__ == "__main__":
    for size in sys.argv[1:] or ["5000"]:
        measure(int(size))

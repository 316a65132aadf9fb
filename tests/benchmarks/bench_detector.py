"""Which form of the detector finds most: each is learned twice, and marks items planted in windows of users that neither learned from.

Three rows for each form: the first detector, the second, and the mean of their log-odds, which is what counts. Columns: AUC and average
precision on items planted uniformly, the AUC on items as popular as the rest (auc_context), CPU seconds of both. A new form is a line of
SETTINGS. Titles exchanged for none or for random
vectors say what titles are worth. A minute or two a form on one core.

python tests/benchmarks/bench_detector.py data/Toy_noise_user0.1 data/Toy_denoise_user0.1_0
python tests/benchmarks/bench_detector.py data/Toy_noise_user0.1 data/Toy_denoise_user0.1_0 "planted_share 0.12" "no titles"
"""

import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from denoise_code.common.text_table import text_table
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.folder import file_of_split
from denoise_code.data_set.padded_rows import read_split, read_vectors
from denoise_code.evidence.detection import auc
from denoise_code.evidence.detector import DetectorSettings, learn_detector, planted_log_odds

SETTINGS = {
    "as it is": {},
    "width 32": {"width": 32},
    "width 128": {"width": 128},
    "layers 1": {"layers": 1},
    "feed_forward 1": {"feed_forward": 1},
    "feed_forward 4": {"feed_forward": 4},
    "dropout 0.1": {"dropout": 0.1},
    "dropout 0.3": {"dropout": 0.3},
    "free_vector_dropout 0": {"free_vector_dropout": 0.0},
    "free_vector_dropout 0.5": {"free_vector_dropout": 0.5},
    "planted_share 0.12": {"planted_share": 0.12},
    "planted_share 0.2": {"planted_share": 0.2},
    "planted_by_popularity 0": {"planted_by_popularity": 0.0},
    "planted_by_popularity 0.8": {"planted_by_popularity": 0.8},
    "steps 750": {"steps": 750},
    "steps 3000": {"steps": 3000},
    "learning_rate 0.004": {"learning_rate": 4e-3},
    "no titles": {},
    "random vectors": {},
}
MOST_WINDOWS = 8000  # to measure on


def planted_windows(windows: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Windows (N, W) with one item of the pool planted in each, and where it stands (N, W) bool; none where the window has it."""
    rows = np.arange(len(windows))
    place = windows.shape[1] - 1 - (rng.random(len(windows)) * (windows != 0).sum(1)).astype(int)
    items = rng.choice(pool, len(windows))
    is_planted = ~(items[:, None] == windows).any(1)
    truth = np.zeros(windows.shape, dtype=bool)
    truth[rows[is_planted], place[is_planted]] = True
    return np.where(truth, items[:, None], windows), truth


def figures(log_odds: list[np.ndarray], planted: list[tuple[np.ndarray, np.ndarray]]) -> list[str]:
    """AUC and average precision of items planted uniformly, the AUC of those planted by popularity."""
    from sklearn.metrics import average_precision_score

    results = []
    for values, (windows, truth) in zip(log_odds, planted):
        held = windows != 0
        results += [auc(truth[held], values[held]), average_precision_score(truth[held], values[held])]
    return [f"{value:.4f}" for value in results[:3]]


def measure(data_set: Path, denoised: Path, forms: list[str]) -> None:
    titles = read_catalogue(data_set, allow_untitled=True)
    train = file_of_split([data_set], "train")
    split = read_split(train, titles, columns="ignored")
    quarters = np.array([zlib.crc32(str(user).encode()) & 3 for user in split.users])
    vectors = read_vectors(denoised, titles)
    rng = np.random.default_rng(7)
    measured = split.items[quarters == 3]
    measured = measured[rng.permutation(len(measured))[:MOST_WINDOWS]]
    pools = np.arange(1, len(titles)), split.items[split.items != 0]
    planted = [planted_windows(measured, pool, rng) for pool in pools]
    taught = [split.items[quarters & 1 == 0], split.items[quarters & 2 == 0]]  # two halves; the last quarter is in neither
    random_vectors = None
    if vectors is not None:
        random_vectors = np.random.default_rng(1).normal(size=vectors.shape) / vectors.shape[1] ** 0.5
        random_vectors[0] = 0
    lines = []
    for form in forms:
        read = {"no titles": None, "random vectors": random_vectors}.get(form, vectors)
        settings, started, log_odds = replace(DetectorSettings(), **SETTINGS[form]), time.process_time(), []
        for windows in taught:
            detector = learn_detector(windows, len(titles) - 1, read, settings)
            log_odds.append([planted_log_odds(detector, with_planted) for with_planted, _ in planted])
        seconds = f"{time.process_time() - started:.0f}"
        both = [first + second for first, second in zip(*log_odds)]
        for name, values in zip(("first", "second", "mean"), (*log_odds, both)):
            lines.append([form, name, *figures(values, planted), seconds])
        print(" ".join(lines[-1]), flush=True)
    print(text_table(["form", "detector", "AUC", "AP", "auc_context", "CPU s"], lines))


if __name__ == "__main__":
    unknown = [form for form in sys.argv[3:] if form not in SETTINGS]
    if unknown:
        sys.exit(f"no form {unknown[0]!r}; there are {', '.join(SETTINGS)}")
    measure(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or list(SETTINGS))

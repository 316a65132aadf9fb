"""Time and memory of data preparation on synthetic logs: windowing and noise must grow linearly with interactions.

python tests/benchmarks/bench_prepare.py 100000 1000000 10000000
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data"))
import prepare_noise_data as prepare  # noqa: E402


def measure(total: int) -> None:
    """A log-normal number of interactions a user (mean about 15) and items of Zipf-like popularity."""
    rng = np.random.default_rng(0)
    users = rng.integers(total // 15, size=total)
    items = (rng.random(total) ** 3 * (total // 50)).astype(np.int64)
    log = prepare.Log(users, items, rng.integers(10**9, size=total), [f"title of item {item}" for item in range(total // 50)])
    started = time.perf_counter()
    log = prepare.number_and_sort(prepare.k_core(log, 5))
    cored = time.perf_counter()
    bounds = prepare.window_bounds(log.users, 11, 1)
    splits = prepare.time_split(log.times[bounds[1]])
    noisy, injected = prepare.inject_noise(log.items, len(log.titles) - 1, 0.1, np.random.default_rng(1))
    mask = prepare.mark_noise(injected, log, None)
    windowed = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepare.write_data_set(Path(folder) / "out", log, noisy, mask, bounds, splits, 0)
    written = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = windowed - started
    print(
        f"{total:>12,} {len(log.users):>12,} {len(bounds[0]):>12,} {cored - started:>10.2f} {windowed - cored:>10.2f} "
        f"{total / seconds:>14,.0f} {written - windowed:>10.1f} {peak:>8.2f} {peak * 2**30 / total:>10.0f}",
        flush=True,
    )


if __name__ == "__main__":
    sizes = [int(size) for size in sys.argv[1:]] or [100_000, 1_000_000, 10_000_000]
    if len(sizes) == 1:
        measure(sizes[0])
    else:  # a process each, so that each peak is its own
        print("interactions    in k-core      windows  k-core s  windows s interactions/s  write s      GiB  B/interaction")
        for size in sizes:
            subprocess.run([sys.executable, __file__, str(size)], check=True)

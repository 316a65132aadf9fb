"""Time and memory of data preparation on synthetic logs: reading, windowing and noise must grow linearly with interactions.

python tests/benchmarks/bench_prepare.py 100000 1000000 10000000     from interactions to the data set folder
python tests/benchmarks/bench_prepare.py read 1000000 10000000       from files (CSV, JSON lines, Parquet) to interactions
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data"))
import prepare_noise_data as prepare  # noqa: E402

BLOCK = 1_000_000  # interactions that are written at once
KINDS = ("csv", "jsonl", "parquet")


def measure(total: int) -> None:
    """A log-normal number of interactions a user (mean about 15) and items of Zipf-like popularity."""
    rng = np.random.default_rng(0)
    users = rng.integers(total // 15, size=total)
    items = (rng.random(total) ** 3 * (total // 50)).astype(np.int64)
    keys = [f"u{user}" for user in range(total // 15)], [f"i{item}" for item in range(total // 50)]
    log = prepare.Log(
        users,
        items,
        rng.integers(10**9, size=total),
        titles=[f"title of item {item}" for item in range(total // 50)],
        rows=np.arange(total),
        user_keys=keys[0],
        item_keys=keys[1],
    )
    started = time.perf_counter()
    log = prepare.number_and_sort(prepare.k_core(log, 5))
    cored = time.perf_counter()
    bounds = prepare.window_bounds(log.users, 11)
    splits = prepare.time_split(log.times[bounds[1]])
    noisy, mask = prepare.inject_noise(log.items, len(log.titles) - 1, 0.1, np.random.default_rng(1))
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


def write_files(folder: Path, total: int) -> None:
    """The same random log as CSV, JSON lines and Parquet: user, item, timestamp, rating."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    rng = np.random.default_rng(0)
    schema = pa.schema({"user": pa.string(), "item": pa.string(), "timestamp": pa.int64(), "rating": pa.float64()})
    with (
        parquet.ParquetWriter(folder / "log.parquet", schema) as columns,
        (folder / "log.csv").open("wb") as text,
        (folder / "log.jsonl").open("w") as lines,
    ):
        text.write(b"user,item,timestamp,rating\n")
        for start in range(0, total, BLOCK):
            count = min(BLOCK, total - start)
            users = [f"U{user:07}" for user in rng.integers(total // 15, size=count).tolist()]
            items = [f"B{int(item):09}" for item in (rng.random(count) ** 3 * (total // 50)).tolist()]
            times, ratings = 1_300_000_000 + rng.integers(10**8, size=count), rng.integers(1, 6, size=count)
            block = pa.table([users, items, times, ratings.astype(float)], schema=schema)
            columns.write_table(block)
            csv.write_csv(block, text, csv.WriteOptions(include_header=False, quoting_style="none"))
            for user, item, time_, rating in zip(users, items, times.tolist(), ratings.tolist()):
                lines.write(f'{{"user": "{user}", "item": "{item}", "timestamp": {time_}, "rating": {rating}.0}}\n')


def measure_reading(path: Path) -> None:
    """Processor seconds, so that other work on the machine counts less, and the peak of the process's memory."""
    from denoise_code.common.delimited import Dialect
    from denoise_code.common.records import open_table
    from denoise_code.data_set.log.tables import Columns, read_log

    started = time.process_time()
    columns = Columns("user", "item", "timestamp", "rating")
    log = read_log(open_table(path, Dialect()), columns, prepare.Account())
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{len(log.users):>12,} {path.suffix[1:]:>8} {seconds:>10.1f} {len(log.users) / seconds:>14,.0f} {peak:>8.2f}", flush=True
    )


def compare_readers(sizes: list[int]) -> None:
    print("interactions     kind  processor s   rows/s      GiB")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), size)
            for kind in KINDS:
                subprocess.run([sys.executable, __file__, "read-file", f"{folder}/log.{kind}"], check=True)


if __name__ == "__main__" and sys.argv[1:2] == ["read-file"]:
    measure_reading(Path(sys.argv[2]))
elif __name__ == "__main__" and sys.argv[1:2] == ["read"]:
    compare_readers([int(size) for size in sys.argv[2:]])
elif __name__ == "__main__":
    sizes = [int(size) for size in sys.argv[1:]] or [100_000, 1_000_000, 10_000_000]
    if len(sizes) == 1:
        measure(sizes[0])
    else:  # a process each, so that each peak is its own
        print("interactions    in k-core      windows  k-core s  windows s interactions/s  write s      GiB  B/interaction")
        for size in sizes:
            subprocess.run([sys.executable, __file__, str(size)], check=True)

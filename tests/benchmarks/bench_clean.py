"""./denoise.sh LOG measured: costs by step on a made-up log, planted noise found on any log, kills at random moments.

    python tests/benchmarks/bench_clean.py made_up FOLDER --records 1000000     # in the shape of MovieLens-1M, without titles
    python tests/benchmarks/bench_clean.py planted FOLDER LOG.csv               # 10 % of the lines get a random item: how many are found
    python tests/benchmarks/bench_clean.py killed FOLDER LOG.csv --kills 10     # the files after kills are those of an undisturbed run

Options behind -- go to ./denoise.sh, such as -- --language_model none. FOLDER holds what is made on the way.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
SHARE = 0.1  # of the lines that get a random item
COMPARED = (
    "scored.csv", "cleaned.csv", "edits.csv", "report.html", "interactions.csv", "users.csv", "items.csv", "evidence.safetensors",
    "learned.safetensors", "self_test.safetensors",
)  # fmt: skip


def clean_command(log: Path, options: list[str]) -> list[str]:
    return [sys.executable, str(ROOT / "denoise_code" / "clean_log_file.py"), str(log), *options]


def made_up_log(n_records: int, seed: int = 0) -> pd.DataFrame:
    """Users and items in MovieLens-1M's proportions (6,040 users and 3,706 items a million), histories of uneven length, 20 tastes."""
    rng = np.random.default_rng(seed)
    n_users, n_items, n_tastes = max(50, n_records * 6040 // 1_000_209), max(60, n_records * 3706 // 1_000_209), 20
    lengths = rng.lognormal(4.5, 1.0, n_users)
    lengths = np.maximum(20, lengths * n_records / lengths.sum()).astype(int)
    popularity = 1 / np.arange(1, n_items + 1) ** 0.8
    taste_of_item = rng.integers(n_tastes, size=n_items)
    parts = []
    for user, length in enumerate(lengths):
        weights = popularity * np.where(np.isin(taste_of_item, rng.choice(n_tastes, 3, replace=False)), 12, 1)
        items = rng.choice(n_items, size=min(length, n_items), replace=False, p=weights / weights.sum())
        parts.append(pd.DataFrame({"user": user, "item": items, "timestamp": rng.integers(10**9) + np.arange(len(items)) * 60}))
    return pd.concat(parts).sample(frac=1, random_state=seed)


def measure_costs(folder: Path, n_records: int, options: list[str]) -> None:
    log = folder / "made_up.csv"
    made_up_log(n_records).to_csv(log, index=False)
    subprocess.run(clean_command(log, ["--language_model", "none", *options]), check=True)
    run = json.loads((folder / "made_up_cleaned" / "run.json").read_text())
    for step, costs in run["steps"].items():
        seconds = f"{costs['seconds']:8.1f} s, of the processor {costs['processor_seconds']:8.1f} s"
        print(f"{run['counts']['rows_read']:,} records  {step:30s} {seconds}  {costs['peak_memory_gib']:.2f} GiB")


def find_planted(folder: Path, log: Path, options: list[str]) -> None:
    """Replace items of a log's lines by others, drawn uniformly, and see which lines are flagged."""
    table = pd.read_csv(log, dtype=str, keep_default_na=False)
    rng = np.random.default_rng(7)
    planted = rng.random(len(table)) < SHARE
    catalogue = table.drop_duplicates("item")
    drawn = catalogue.iloc[rng.integers(len(catalogue), size=int(planted.sum()))]
    for column in ("item", *(["title"] if "title" in table else [])):
        table.loc[planted, column] = drawn[column].to_numpy()
    noisy = folder / "noisy.csv"
    table.to_csv(noisy, index=False)
    subprocess.run(clean_command(noisy, options), check=True)
    scored = pd.read_csv(folder / "noisy_cleaned" / "scored.csv", dtype={"user": str, "item": str}, keep_default_na=False)
    flagged = scored["flagged"].to_numpy() == 1
    users_of_item = scored.groupby("item")["user"].nunique()
    rarity = -scored["item"].map(users_of_item).to_numpy() + rng.random(len(scored)) * 0.5  # ties at random
    rarest = np.zeros(len(scored), dtype=bool)
    rarest[np.argsort(-rarity)[: flagged.sum()]] = True
    by_chance = rng.permutation(flagged)
    print(f"{len(scored):,} lines, {planted.sum():,} with a planted item ({planted.mean():.1%})")
    for name, chosen in (
        ("flagged", flagged),
        ("as many of the rarest items", rarest),
        ("as many by chance", by_chance),
    ):
        right = (chosen & planted).sum()
        print(
            f"{name:28s} {chosen.sum():7,} lines: {right / max(chosen.sum(), 1):.1%} are planted, {right / planted.sum():.1%} of planted"
        )


def kill_at_random(folder: Path, log: Path, kills: int, options: list[str]) -> None:
    """Kill runs at random moments, let the last one end, and compare its files with those of an undisturbed run."""
    started = time.perf_counter()
    subprocess.run(clean_command(log, ["--out", str(folder / "whole"), *options]), check=True, capture_output=True)
    seconds = time.perf_counter() - started
    rng = np.random.default_rng(0)
    for moment in np.sort(rng.random(kills)) * seconds:
        with subprocess.Popen(
            clean_command(log, ["--out", str(folder / "killed"), *options]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                process.wait(timeout=moment)
                print(f"ended before {moment:.1f} s")
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                print(f"killed after {moment:.1f} s")
    subprocess.run(clean_command(log, ["--out", str(folder / "killed"), *options]), check=True, capture_output=True)
    names = [name for name in COMPARED if (folder / "whole" / name).read_bytes() != (folder / "killed" / name).read_bytes()]
    print(f"an undisturbed run takes {seconds:.0f} s; files that differ: {names or 'none'}")
    print(f"left half written: {[path.name for path in (folder / 'killed').glob('.*')] or 'nothing'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["made_up", "planted", "killed"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("log", type=Path, nargs="?")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=10)
    own, _, options = " ".join(sys.argv[1:]).partition(" -- ")
    args = parser.parse_args(own.split())
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.what == "made_up":
        measure_costs(args.folder, args.records, options.split())
    elif args.what == "planted":
        find_planted(args.folder, args.log, options.split())
    else:
        kill_at_random(args.folder, args.log, args.kills, options.split())


if __name__ == "__main__":
    main()

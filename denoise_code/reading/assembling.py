"""Puts the finished batches of a job together: rows with their new columns, run.json, what is printed."""

import fcntl
import json
import shutil
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.common.files import read_json, write_atomically, write_json
from denoise_code.common.text_table import text_table
from denoise_code.data_set.planting import PLANTED
from denoise_code.evidence.detection import measure, planted_detection
from denoise_code.reading.shards import Shards, lock

NEW_COLUMNS = ["noise_prob", "noise_items", "noise_items_prob", "suggest_item_titles", "suggest_item_ids"]


def merge(split: str, table: pd.DataFrame, records: list[dict], catalogue, nearest) -> tuple[pd.DataFrame, dict]:
    """The table with its new columns, each row exactly once, and how well they tell the noise."""
    from denoise_code.reading.grounding import ground

    rows = sorted(record["row"] for record in records)
    if rows != list(range(len(table))):
        raise InputError(f"{split}: the shards hold {len(rows)} records for {len(table)} rows, each row is needed once")
    records.sort(key=lambda record: record["row"])
    grounded = None
    if any("texts" in record for record in records):
        texts = [text for record in records for text in record.get("texts", [])]
        ids, grounded = ground(texts, catalogue, nearest)
        for record in records:
            record["ids"] = [ids[text] for text in record.get("texts", [])]
    for record in records:
        record["suggest_item_ids"] = record.get("ids", [])
        record["suggest_item_titles"] = [catalogue[item] for item in record["suggest_item_ids"]]
    done = table.copy()
    for column in ("item_ids", "mask"):
        done[column] = done[column].map(json.dumps)
    for column in NEW_COLUMNS:
        done[column] = [json.dumps(record[column], ensure_ascii=False) for record in records]
    noise_probs = [record["noise_prob"] for record in records]
    found = {
        "rows": len(table),
        "share_grounded_by_embedding": grounded,
        "detection": measure(table["mask"], noise_probs, 1),
        "detection_natural": measure(table["mask"], noise_probs, 3),
    }
    if split == PLANTED:
        truths = [[int(value == 2) for value in mask] for mask in table["mask"]]
        found["detection"] = planted_detection(truths, noise_probs, table["drawn"] == "popularity")
    return done, found


def cost(lines: dict[int, dict]) -> dict:
    """Time, tokens and memory of the finished batches of a part."""
    seconds, tokens = Counter(), Counter()
    for line in lines.values():
        seconds.update(line["seconds"])
        tokens.update(line["tokens"])
    rows, total = sum(len(line["records"]) for line in lines.values()), max(sum(seconds.values()), 1e-9)
    return {
        "rows": rows,
        "seconds": {step: round(value, 2) for step, value in seconds.items()},
        "tokens": dict(tokens),
        "windows_per_second": round(rows / total, 3),
        "tokens_per_second": round(sum(tokens.values()) / total, 1),
        "peak_memory_gib": round(max(line["peak_memory_gib"] for line in lines.values()), 3),
    }


def complete(output: Path, job: dict) -> bool:
    return (output / "run.json").exists() and read_json(output / "run.json").get("job") == job


def finish(args, output: Path, shards: Shards, splits: dict, counts: dict, catalogue, nearest, vectors, job: dict) -> bool:
    """Write all files once every batch is there; only one process does, and none waits for another.

    nearest: texts -> items; vectors: () -> (tensors of the title vectors, how they were made).
    """
    from denoise_code.language_model.title_vectors import save_tensors

    with (shards.folder / "lock").open("w") as lock_file:
        lock(lock_file, fcntl.LOCK_EX)
        if complete(output, job):
            return True
        lines = {part: shards.read(part) for part in counts}
        if any(len(lines[part]) < counts[part] for part in counts):
            return False
        for cut_off in output.glob(".*.partial-*"):  # of a process that was killed here
            cut_off.unlink()
        run = {"job": job, "versions": {name: version(name) for name in ("torch", "transformers", "peft")}, "splits": {}}
        run["parts"] = {part: cost(batches) for part, batches in lines.items()}
        for part in counts:
            if shards.pilot(part).exists():
                run["parts"][part]["pilot"] = read_json(shards.pilot(part))
        records = {split: [] for split in splits}
        for batches in lines.values():
            for record in (record for line in batches.values() for record in line["records"]):
                records[record["split"]].append(record)
        merged = {split: merge(split, rows, records[split], catalogue, nearest) for split, (rows, _) in splits.items()}
        tensors, run["title_vectors"] = vectors()
        for split, (done, found) in merged.items():  # only now: a kill before this leaves what was here as it was
            run["splits"][split] = found
            with write_atomically(output / f"{split}.csv") as partial:
                done.to_csv(partial, index=False)
        run["auc_context"] = (run["splits"].get(PLANTED, {}).get("detection") or {}).get("auc_context")
        for old in set(output.glob("*.csv")) - {output / f"{split}.csv" for split in splits}:
            old.unlink()  # of another job that --overwrite replaces
        for name in ("id2name.json", "id2name4Rec.json"):
            if (args.noise_dataset_path / name).exists():
                shutil.copyfile(args.noise_dataset_path / name, output / name)
        save_tensors(output / "title_vectors.safetensors", tensors, run["title_vectors"])
        write_json(output / "run.json", run)
    shards.remove()
    print_run(run)
    print(f"wrote {output}")
    return True


def print_run(run: dict) -> None:
    """What was read at what cost, and how well it tells the noise; all of it and more is in run.json."""
    costs = [
        [part, f"{cost['rows']:,}", cost["windows_per_second"], f"{cost['tokens_per_second']:,.0f}",
         *(f"{cost['seconds'].get(step, 0):.0f}" for step in ("score", "suggest")), f"{cost['peak_memory_gib']:.1f}"]
        for part, cost in run["parts"].items()
    ]  # fmt: skip
    if costs:
        print(text_table(["read by a process", "windows", "windows/s", "tokens/s", "score s", "suggest s", "GiB"], costs) + "\n")
    rows, columns = detection_rows(run["splits"])
    if rows:
        print(text_table(["noise told by noise_prob", "noise", *columns], rows))
        print("auc_context: AUC on noise as popular as the rest; 0.5 for a score that does not read the window\n")
    shares = ((split, measured["share_grounded_by_embedding"]) for split, measured in run["splits"].items())
    ungrounded = ", ".join(f"{split} {share:.1%}" for split, share in shares if share is not None)
    if ungrounded:
        print(f"no title, nearest taken: {ungrounded}")
    made = run["title_vectors"]
    context = made["auc_context"][str(made["layer"])]
    print(f"title vectors of layer {made['layer']}: auc_context {context:.3f} on planted train windows")


def detection_rows(splits: dict) -> tuple[list[list[str]], list[str]]:
    """How well noise_prob tells the noise: (a row for each split and kind of noise, the names of its figures).

    A figure that does not exist is "-"; a column where none exists is left out.
    """
    shown = {"auc": "AUC", "auc_window": "in windows", "average_precision": "avg. prec.", "auc_context": "auc_context"}
    measured = {}
    for split, found in splits.items():
        measured |= {split: found["detection"], f"{split}, natural noise": found["detection_natural"]}
    measured = {label: figures for label, figures in measured.items() if figures}
    names = [name for name in shown if any(figures.get(name) is not None for figures in measured.values())]
    rows = []
    for label, figures in measured.items():
        values = [figures.get(name) for name in names]
        rows.append([label, f"{figures['share_noise']:.1%}", *("-" if value is None else f"{value:.3f}" for value in values)])
    return rows, [shown[name] for name in names]

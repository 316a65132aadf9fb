"""Puts the finished batches of a job together: rows with their new columns, run.json, what is printed."""

import fcntl
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.common.files import lock, read_json, write_atomically, write_json
from denoise_code.common.text_table import text_table
from denoise_code.data_set.planting import BY_POPULARITY, INJECTED, PLANTED, PLANTED_MARK
from denoise_code.data_set.windows import ScoredSplit
from denoise_code.evidence.detection import detection_of_mask, planted_detection
from denoise_code.language_model.title_vectors import save_with_record
from denoise_code.reading.grounding import Grounder
from denoise_code.reading.job import Job
from denoise_code.reading.records import Record
from denoise_code.reading.shards import FinishedBatch, Shards

NEW_COLUMNS = ["noise_prob", "noise_items", "noise_items_prob", "suggest_item_titles", "suggest_item_ids"]


@dataclass(frozen=True)
class DenoisedSplit:
    """The rows of a split with their new columns, and what run.json says of them."""

    table: pd.DataFrame
    figures: dict


def assemble(job: Job, shards: Shards, splits: dict[str, ScoredSplit], n_batches: dict[str, int], grounder: Grounder) -> bool:
    """Write all files once every batch is there; only one process does, and none waits for another.

    n_batches: of each part of the job. Returns whether this process wrote them.
    """
    with (shards.folder / "lock").open("w") as lock_file:
        lock(lock_file, fcntl.LOCK_EX)
        if job.is_complete():  # another process wrote them, and goes on to evidence
            return False
        batches = {part: shards.read(part) for part in n_batches}
        if any(len(batches[part]) < n_batches[part] for part in n_batches):
            return False
        for partial in job.output.glob(".*.partial-*"):  # of a process that was killed here
            partial.unlink()
        records = records_by_split(batches, list(splits))
        denoised = {split: denoise_split(split, scored.table, records[split], grounder) for split, scored in splits.items()}
        tensors, made_by = grounder.title_vectors
        run = describe_run(job, shards, batches, denoised, made_by)
        # Only now is written: a kill before this leaves what was here as it was. run.json comes last and says that all is there.
        write_rows(job.output, denoised)
        copy_title_maps(job.data_set, job.output)
        save_with_record(job.output / "title_vectors.safetensors", tensors, made_by, grounder.catalogue)
        write_json(job.output / "run.json", run)
    shards.remove()
    print_run(run)
    print(f"wrote {job.output}")
    return True


def records_by_split(batches: dict[str, dict[int, FinishedBatch]], splits: list[str]) -> dict[str, list[Record]]:
    """{split: records} of {part: {number: batch}}: the part of all users' interactions holds records of several splits."""
    records = {split: [] for split in splits}
    for batches_of_part in batches.values():
        for batch in batches_of_part.values():
            for record in batch.records:
                records[record.split].append(record)
    return records


def denoise_split(split: str, table: pd.DataFrame, records: list[Record], grounder: Grounder) -> DenoisedSplit:
    """The table with its new columns, each row exactly once, and how well they tell the noise."""
    records = sorted(records, key=lambda record: record.row)
    if [record.row for record in records] != list(range(len(table))):
        raise InputError(f"{split}: the shards hold {len(records)} records for {len(table)} rows, each row is needed once")
    share_ungrounded = ground_texts(records, grounder)
    figures = {
        "rows": len(table),
        "share_grounded_by_embedding": share_ungrounded,
        "detection": detection_of_split(split, table, [record.noise_prob for record in records]),
    }
    return DenoisedSplit(add_columns(table, records, grounder.catalogue), figures)


def ground_texts(records: list[Record], grounder: Grounder) -> float | None:
    """Give records with free replacements the items that these name; returns the share that are no title, None without any."""
    if all(record.texts is None for record in records):
        return None
    items, share_ungrounded = grounder.ground([text for record in records for text in record.texts or []])
    for record in records:
        record.ids = [items[text] for text in record.texts or []]
    return share_ungrounded


def detection_of_split(split: str, table: pd.DataFrame, noise_probs: list[list[float]]) -> dict | None:
    """How well noise_prob tells injected noise, or what was planted; None where there is none."""
    if split != PLANTED:
        return detection_of_mask(table["mask"], noise_probs, INJECTED)
    is_planted = [[int(value == PLANTED_MARK) for value in mask] for mask in table["mask"]]
    return planted_detection(is_planted, noise_probs, table["drawn"] == BY_POPULARITY)


def add_columns(table: pd.DataFrame, records: list[Record], catalogue: list[str]) -> pd.DataFrame:
    """The input's rows and columns in their order, then NEW_COLUMNS; list cells as JSON."""
    suggested = [record.ids or [] for record in records]
    new = {
        "noise_prob": [record.noise_prob for record in records],
        "noise_items": [record.noise_items for record in records],
        "noise_items_prob": [record.noise_items_prob for record in records],
        "suggest_item_titles": [[catalogue[item] for item in items] for items in suggested],
        "suggest_item_ids": suggested,
    }
    table = table.copy()
    for column in ("item_ids", "mask"):
        table[column] = table[column].map(json.dumps)
    for column in NEW_COLUMNS:
        table[column] = [json.dumps(cell, ensure_ascii=False) for cell in new[column]]
    return table


def describe_run(job: Job, shards: Shards, batches: dict, denoised: dict[str, DenoisedSplit], title_vectors: dict) -> dict:
    """The content of run.json."""
    run = {"job": job.description, "versions": {name: version(name) for name in ("torch", "transformers", "peft")}}
    run["splits"] = {split: rows.figures for split, rows in denoised.items()}
    run["parts"] = {part: cost(list(numbered.values())) for part, numbered in batches.items()}
    for part in batches:
        if shards.pilot(part).exists():
            run["parts"][part]["pilot"] = read_json(shards.pilot(part))
    run["title_vectors"] = title_vectors
    run["auc_context"] = (run["splits"].get(PLANTED, {}).get("detection") or {}).get("auc_context")
    return run


def cost(batches: list[FinishedBatch]) -> dict:
    """Time, tokens and memory of the finished batches of a part."""
    seconds, tokens = Counter(), Counter()
    for batch in batches:
        seconds.update(batch.seconds)
        tokens.update(batch.tokens)
    rows, total = sum(len(batch.records) for batch in batches), max(sum(seconds.values()), 1e-9)
    return {
        "rows": rows,
        "seconds": {step: round(value, 2) for step, value in seconds.items()},
        "tokens": dict(tokens),
        "windows_per_second": round(rows / total, 3),
        "tokens_per_second": round(sum(tokens.values()) / total, 1),
        "peak_memory_gib": round(max(batch.peak_memory_gib for batch in batches), 3),
    }


def write_rows(output: Path, denoised: dict[str, DenoisedSplit]) -> None:
    """A CSV file for each split, and no others: those are of another job, which --overwrite replaces."""
    for split, rows in denoised.items():
        with write_atomically(output / f"{split}.csv") as partial:
            rows.table.to_csv(partial, index=False)
    for path in set(output.glob("*.csv")) - {output / f"{split}.csv" for split in denoised}:
        path.unlink()


def copy_title_maps(data_set: Path, output: Path) -> None:
    for name in ("id2name.json", "id2name4Rec.json"):
        if (data_set / name).exists():
            shutil.copyfile(data_set / name, output / name)


def print_run(run: dict) -> None:
    """What was read at what cost, and how well it tells the noise; all of it and more is in run.json."""
    costs = [
        [part, f"{cost['rows']:,}", cost["windows_per_second"], f"{cost['tokens_per_second']:,.0f}",
         *(f"{cost['seconds'].get(step, 0):.0f}" for step in ("score", "suggest")), f"{cost['peak_memory_gib']:.1f}"]
        for part, cost in run["parts"].items()
    ]  # fmt: skip
    if costs:
        print(text_table(["read by a process", "windows", "windows/s", "tokens/s", "score s", "suggest s", "GiB"], costs) + "\n")
    rows, columns = detection_table({split: figures["detection"] for split, figures in run["splits"].items()})
    if rows:
        print(text_table(["noise told by noise_prob", "noise", *columns], rows))
        print("auc_context: AUC on noise as popular as the rest; 0.5 for a score that does not read the window\n")
    shares = {split: figures["share_grounded_by_embedding"] for split, figures in run["splits"].items()}
    ungrounded = ", ".join(f"{split} {share:.1%}" for split, share in shares.items() if share is not None)
    if ungrounded:
        print(f"no title, nearest taken: {ungrounded}")
    layer = run["title_vectors"]["layer"]
    context = run["title_vectors"]["auc_context"][str(layer)]
    print(f"title vectors of layer {layer}: auc_context {context:.3f} on planted train windows")


def detection_table(detection: dict[str, dict | None]) -> tuple[list[list[str]], list[str]]:
    """How well noise_prob tells the noise: (a row for each split that has noise, the names of the figures).

    A figure that does not exist is "-"; a column where none exists is left out.
    """
    column_of = {"auc": "AUC", "auc_window": "in windows", "average_precision": "avg. prec.", "auc_context": "auc_context"}
    detection = {split: figures for split, figures in detection.items() if figures}
    names = [name for name in column_of if any(figures.get(name) is not None for figures in detection.values())]
    rows = []
    for split, figures in detection.items():
        values = [figures.get(name) for name in names]
        rows.append([split, f"{figures['share_noise']:.1%}", *("-" if value is None else f"{value:.3f}" for value in values)])
    return rows, [column_of[name] for name in names]

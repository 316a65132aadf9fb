"""A run of stage 2: shards of finished batches, going on after a kill, putting the rows together, its report.

Knows nothing of how models read: it is given what scores a batch of windows, what finds the item nearest to a text, and what
makes title vectors.
"""

import errno
import fcntl
import hashlib
import heapq
import json
import shutil
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from denoise_code.command_line import InputError, beside, peak_memory_gib, read_json, table, write_json
from denoise_code.dataset import PLANTED, find_train_file, fingerprint
from denoise_code.language_model import choose_dtype
from denoise_code.readings import Work
from denoise_code.scores import measure, planted_detection

# What --min_percentile is estimated on costs at most a tenth of the job, and in a large job no more than eight batches:
# 8 x 128 windows of 11 items put the share above a percentile of 0.9 right to 0.003 (one standard error, were all positions
# drawn by themselves).
PILOT_SHARE = 0.1
PILOT_BATCHES = 8
NEW_COLUMNS = ["noise_prob", "noise_items", "noise_items_prob", "suggest_item_titles", "suggest_item_ids"]


class Shards:
    """The finished batches of a job: one file of JSON lines a split and process, appended to."""

    def __init__(self, folder: Path, rank: int):
        self.folder, self.rank = folder, rank

    def own(self, split: str) -> Path:
        return self.folder / f"{split}.{self.rank}.jsonl"

    def pilot(self, part: str) -> Path:
        """What all processes and restarts take their threshold from."""
        return self.folder / f"{part}.pilot.json"

    def remove(self) -> None:
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def read(self, split: str) -> dict[int, dict]:
        """{batch: line} of all processes; a last line that a kill tore is left out."""
        return {line["batch"]: line for path in sorted(self.folder.glob(f"{split}.*.jsonl")) for line in whole_lines(path)[0]}

    def open(self, split: str):
        """This process's file, cut back to its last whole line."""
        path = self.own(split)
        out = path.open("a", encoding="utf-8")
        lock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        out.truncate(whole_lines(path)[1])
        return out


def lock(file, operation: int) -> None:
    """`fcntl.flock` of an open file, which it closes where it raises.

    Raises InputError where another process holds the lock and LOCK_NB forbids to wait, and where there are no locks.
    """
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        file.close()
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            raise InputError(f"{file.name}: another process is writing it; the same command runs already") from None
        raise InputError(
            f"{file.name}: cannot be locked ({error.strerror}): stage 2 needs a file system with locks; "
            "--output_root names another place"
        ) from None


def whole_lines(path: Path) -> tuple[list[dict], int]:
    """The lines of a shard that were written to their end, and the bytes they take."""
    lines, size = [], 0
    with path.open("rb") as file:
        for raw in file:
            try:
                line = json.loads(raw) if raw.endswith(b"\n") else None
            except ValueError:
                line = None
            if line is None:
                break
            lines.append(line)
            size += len(raw)
    return lines, size


def batches(works: list[Work], lengths: list[int], batch_size: int) -> list[list[int]]:
    """Numbers of works, those with the longest texts (tokens) first, so those of a batch are alike; the same for every process.

    A batch is whole works, as many as make `batch_size` windows' worth of items.
    """
    return cut_into_batches(sorted(range(len(works)), key=lambda number: -lengths[number]), works, batch_size)


def cut_into_batches(numbers: list[int], works: list[Work], batch_size: int) -> list[list[int]]:
    """Some numbers of works in their order, cut where a batch has `batch_size` windows' worth of items."""
    plan, size = [], batch_size
    for number in numbers:
        if size >= batch_size:
            plan.append([])
            size = 0
        plan[-1].append(number)
        size += sum(text.size for text in works[number].texts())
    return plan


def deal(costs: list[int], world: int) -> list[list[int]]:
    """Numbers of batches for each of `world` processes: the costliest first, each to the process with the least so far."""
    hands, loads = [[] for _ in range(world)], [(0, rank) for rank in range(world)]
    for number in sorted(range(len(costs)), key=lambda number: -costs[number]):
        load, rank = heapq.heappop(loads)
        hands[rank].append(number)
        heapq.heappush(loads, (load + costs[number], rank))
    return hands


def pilot_works(plan: list[list[int]]) -> list[int]:
    """Numbers of the works that --min_percentile is estimated on: evenly spaced in the plan, so of all lengths, and at least one.

    Works and not batches: a batch of a small job holds a tenth of it or more, and in it only texts that are about as long.
    """
    in_order = [number for batch in plan for number in batch]
    share = min(PILOT_SHARE, PILOT_BATCHES / len(plan))
    count = max(1, int(share * len(in_order)))
    return [in_order[(2 * place + 1) * len(in_order) // (2 * count)] for place in range(count)]


def find_threshold(part: str, works: list[Work], plan: list[list[int]], denoiser, shards: Shards) -> float:
    """The noise probability above which an item is suspected: the quantile --min_percentile of what a pilot scores.

    It is kept with the job, so a restart goes by the threshold that it began with. Of several processes the first scores the
    pilot and the others wait for it: all need the same threshold, and none can suspect anything before. If the first is
    killed meanwhile, its lock goes with it and the next one scores the pilot.
    The pilot is only scored, and read again with its batches; what it costs stands with the first batch.
    """
    path = shards.pilot(part)
    with path.with_suffix(".lock").open("w") as lock_file:
        lock(lock_file, fcntl.LOCK_EX)
        if not path.exists():
            denoiser.threshold = np.inf  # nothing is suspected
            pilot, probs = pilot_works(plan), []
            for batch in cut_into_batches(pilot, works, denoiser.args.batch_size):
                for record in denoiser.run([works[number] for number in batch]):
                    probs += record["noise_prob"]
            threshold = float(np.quantile(probs, denoiser.args.min_percentile))
            write_json(path, {"works": len(pilot), "positions": len(probs), "threshold": threshold})
    return read_json(path)["threshold"]


def denoise_part(part: str, works: list[Work], denoiser, shards: Shards, rank: int, world: int) -> int:
    """Score this process's share of a part of the job, skipping finished batches; returns how many batches the part has."""
    from tqdm import tqdm

    args, length = denoiser.args, denoiser.titles.length
    windows = [[text.items for text in work.texts()] for work in works]
    lengths = [list(map(length, of_work)) for of_work in windows]
    plan = batches(works, list(map(max, lengths)), args.batch_size)
    tokens = [sum(sum(lengths[number]) for number in batch) for batch in plan]
    done, mine = set(shards.read(part)), deal(tokens, world)[rank]
    left = [number for number in mine if number not in done]
    denoiser.begin([items for of_work in windows for items in of_work])

    # what is planted to calibrate on is only scored: nothing of it is suspected
    denoiser.threshold = np.inf if part == PLANTED else -np.inf
    progress = tqdm(total=len(mine), initial=len(mine) - len(left), desc=part, unit="batch", disable=rank > 0)
    with shards.open(part) as out:  # first, so that a second process of this rank does not wait for the pilot
        if part != PLANTED and args.min_percentile and left:
            denoiser.threshold = find_threshold(part, works, plan, denoiser, shards)
        for number in left:
            line = {"batch": number, "records": denoiser.run([works[work] for work in plan[number]])}
            line |= {"seconds": denoiser.seconds, "tokens": denoiser.tokens, "peak_memory_gib": peak_memory_gib()}
            out.write(json.dumps(line) + "\n")
            out.flush()
            denoiser.seconds.clear()
            denoiser.tokens.clear()
            progress.update()
    progress.close()
    denoiser.end()
    return len(plan)


def merge(split: str, table: pd.DataFrame, records: list[dict], catalogue, nearest) -> tuple[pd.DataFrame, dict]:
    """The table with its new columns, each row exactly once, and how well they tell the noise."""
    from denoise_code.grounding import ground

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
    from denoise_code.title_vectors import save_tensors

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
            with beside(output / f"{split}.csv") as partial:
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
        print(table(["read by a process", "windows", "windows/s", "tokens/s", "score s", "suggest s", "GiB"], costs) + "\n")
    rows, columns = detection_rows(run["splits"])
    if rows:
        print(table(["noise told by noise_prob", "noise", *columns], rows))
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


def describe_job(args) -> dict:
    """All that shapes the result; a run started again must agree with it."""
    options = (
        "denoise_data planted score unit suggest ground top_k min_percentile max_new_tokens batch_size limit users load_in_8bit"
    ).split()
    job = {name: getattr(args, name) for name in options}
    if args.unit == "interaction":
        job |= {"overlap": args.overlap, "span": args.span}
    job["dtype"] = str(choose_dtype(args.dtype))
    names = ["id2name4Rec.json", "item_embedding.pt", *(f"{split}.csv" for split in args.denoise_data)]
    train = find_train_file(args.noise_dataset_path)  # of what is planted, and of the layer of title vectors
    job["noise_dataset_path"] = fingerprint([*(args.noise_dataset_path / name for name in names), train])
    names = ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "prompt.json", "run.json"]
    adapter = args.denoise_model_path
    job["denoise_model_path"] = fingerprint([adapter / name for name in names]) if adapter else args.base_model
    return job


def open_output(args, output: Path, job: dict) -> Path:
    """The work folder of this job; refuses to mix it with another one."""
    digest = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]
    work = output / ".work" / digest
    others = [path.parent for path in (output / ".work").glob("*/job.json") if path.parent != work]
    before = [read_json(other / "job.json") for other in others if any(other.glob("*.jsonl"))]
    if (output / "run.json").exists():
        before.append(read_json(output / "run.json").get("job", {}))
    changed = [name for other in before for name in (job | other) if other.get(name) != job.get(name)]
    if changed and not args.overwrite:
        raise InputError(
            f"{output} was made with another --{changed[0]}: --overwrite replaces it, another --output_root keeps it"
        )
    try:
        work.mkdir(parents=True, exist_ok=True)
        if args.overwrite and changed:
            (output / "run.json").unlink(missing_ok=True)
        write_json(work / "job.json", job)
    except OSError as error:
        raise InputError(f"--output_root: cannot write {output} ({error.strerror})") from None
    return work

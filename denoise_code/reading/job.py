"""A run of stage 2: shards of finished batches, going on after a kill, putting the rows together, its report.

Knows nothing of how models read: it is given what scores a batch of windows, what finds the item nearest to a text, and what
makes title vectors.
"""

import fcntl
import hashlib
import heapq
import json
from pathlib import Path

import numpy as np

from denoise_code.common.errors import InputError
from denoise_code.common.files import fingerprint_of_files, read_json, write_json
from denoise_code.common.resources import peak_memory_gib
from denoise_code.data_set.folder import find_train_file
from denoise_code.data_set.planting import PLANTED
from denoise_code.language_model.loading import choose_dtype
from denoise_code.reading.plan import Work
from denoise_code.reading.shards import Shards, lock

# What --min_percentile is estimated on costs at most a tenth of the job, and in a large job no more than eight batches:
# 8 x 128 windows of 11 items put the share above a percentile of 0.9 right to 0.003 (one standard error, were all positions
# drawn by themselves).
PILOT_SHARE = 0.1
PILOT_BATCHES = 8


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
    job["noise_dataset_path"] = fingerprint_of_files([*(args.noise_dataset_path / name for name in names), train])
    names = ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "prompt.json", "run.json"]
    adapter = args.denoise_model_path
    job["denoise_model_path"] = fingerprint_of_files([adapter / name for name in names]) if adapter else args.base_model
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

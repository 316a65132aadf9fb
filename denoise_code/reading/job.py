"""A run of stage 2: what makes it another job, batches dealt to processes, going on after a kill."""

import fcntl
import hashlib
import heapq
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from denoise_code.common.errors import InputError
from denoise_code.common.files import fingerprint_of_files, lock, read_json, write_json
from denoise_code.common.resources import peak_memory_gib
from denoise_code.data_set.evidence_files import RECORD
from denoise_code.data_set.folder import find_train_file
from denoise_code.data_set.planting import PLANTED
from denoise_code.language_model.loading import choose_dtype
from denoise_code.language_model.prompt import Titles
from denoise_code.reading.denoiser import Denoiser
from denoise_code.reading.options import ModelOptions, ReadingOptions, RowOptions
from denoise_code.reading.plan import Stretch
from denoise_code.reading.shards import FinishedBatch, Shards

# What --min_percentile is estimated on costs at most a tenth of the job, and in a large job no more than eight batches:
# 8 x 128 windows of 11 items put the share above a percentile of 0.9 right to 0.003 (one standard error, were all positions
# drawn by themselves).
PILOT_SHARE = 0.1
PILOT_BATCHES = 8


@dataclass(frozen=True)
class Process:
    """One of `world` processes that share a job, counted from 0."""

    rank: int
    world: int


@dataclass(frozen=True)
class Job:
    """What a run of stage 2 makes.

    description: all that shapes the result, kept in run.json; a run started again must agree with it.
    data_set: the folder that is read. output: the denoised folder.
    """

    description: dict
    data_set: Path
    output: Path

    def is_complete(self) -> bool:
        path = self.output / "run.json"
        return path.exists() and not self.differs_in(read_json(path).get("job", {}))

    def differs_in(self, description: dict) -> list[str]:
        """Names of what another job's description says otherwise; first those that it has: without a language model it has one."""
        return [name for name in description | self.description if description.get(name) != self.description.get(name)]

    def open_work_folder(self, overwrite: bool) -> Path:
        """Where the finished batches of this job go; refuses to mix it with another one, unless that is to be overwritten."""
        digest = hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()[:16]
        folder = self.output / ".work" / digest
        changed = [name for description in self.other_jobs(folder) for name in self.differs_in(description)]
        if changed and not overwrite:
            raise InputError(
                f"{self.output} was made with another --{changed[0]}: --overwrite replaces it, another --output_root keeps it"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if overwrite and changed:
                (self.output / "run.json").unlink(missing_ok=True)
                (self.output / RECORD).unlink(
                    missing_ok=True
                )  # else evidence of the old rows would be taken for that of the new ones
            write_json(folder / "job.json", self.description)
        except OSError as error:
            raise InputError(f"--output_root: cannot write {self.output} ({error.strerror})") from None
        return folder

    def other_jobs(self, work_folder: Path) -> list[dict]:
        """Descriptions of the jobs that began to write the output, but the one of a work folder, and of the one that wrote it."""
        folders = [path.parent for path in (self.output / ".work").glob("*/job.json") if path.parent != work_folder]
        descriptions = [read_json(folder / "job.json") for folder in folders if any(folder.glob("*.jsonl"))]
        if (self.output / "run.json").exists():
            descriptions.append(read_json(self.output / "run.json").get("job", {}))
        return descriptions


def describe_job(rows: RowOptions, model: ModelOptions, reading: ReadingOptions) -> dict:
    """All that shapes the result, files by the fingerprints of their contents."""
    data_set_files = ["id2name4Rec.json", "item_embedding.pt", *(f"{split}.csv" for split in rows.denoise_data)]
    train_file = find_train_file(rows.noise_dataset_path)  # of what is planted, and of the layer of title vectors
    adapter_files = ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "prompt.json", "run.json"]
    adapter = model.denoise_model_path
    return {
        "denoise_data": rows.denoise_data,
        "planted": rows.planted,
        "score": reading.score,
        "unit": reading.unit,
        "suggest": reading.suggest,
        "ground": reading.ground,
        "top_k": reading.top_k,
        "min_percentile": reading.min_percentile,
        "max_new_tokens": reading.max_new_tokens,
        "batch_size": reading.batch_size,
        "limit": rows.limit,
        "users": rows.users,
        "load_in_8bit": model.precision.load_in_8bit,
        "dtype": "tf32" if model.precision.dtype == "tf32" else str(choose_dtype(model.precision.dtype)),
        "noise_dataset_path": fingerprint_of_files([*(rows.noise_dataset_path / name for name in data_set_files), train_file]),
        "denoise_model_path": fingerprint_of_files([adapter / name for name in adapter_files]) if adapter else model.base_model,
    }


@dataclass(frozen=True)
class PartPlan:
    """A part of the job as batches of stretches, the same for every process.

    batches: numbers of stretches, those with the longest texts first. costs: the tokens of each batch.
    """

    stretches: list[Stretch]
    batches: list[list[int]]
    costs: list[int]


def plan_part(stretches: list[Stretch], titles: Titles, batch_size: int) -> PartPlan:
    # tokens of the titles of each text
    lengths = [[titles.length(text.items) for text in stretch.texts] for stretch in stretches]
    batches = make_batches(stretches, [max(text_lengths) for text_lengths in lengths], batch_size)
    return PartPlan(stretches, batches, [sum(sum(lengths[number]) for number in batch) for batch in batches])


def make_batches(stretches: list[Stretch], lengths: list[int], batch_size: int) -> list[list[int]]:
    """Numbers of stretches, those with the longest texts (tokens) first, so those of a batch are alike.

    A batch is whole stretches, as many as make `batch_size` windows' worth of items.
    """
    longest_first = sorted(range(len(stretches)), key=lambda number: -lengths[number])
    return cut_into_batches(longest_first, stretches, batch_size)


def cut_into_batches(numbers: list[int], stretches: list[Stretch], batch_size: int) -> list[list[int]]:
    """Some numbers of stretches in their order, cut where a batch has `batch_size` windows' worth of items."""
    batches, size = [], batch_size
    for number in numbers:
        if size >= batch_size:
            batches.append([])
            size = 0
        batches[-1].append(number)
        size += sum(text.size for text in stretches[number].texts)
    return batches


def deal(costs: list[int], world: int) -> list[list[int]]:
    """Numbers of batches for each of `world` processes: the costliest first, each to the process with the least so far."""
    hands, loads = [[] for _ in range(world)], [(0, rank) for rank in range(world)]
    for number in sorted(range(len(costs)), key=lambda number: -costs[number]):
        load, rank = heapq.heappop(loads)
        hands[rank].append(number)
        heapq.heappush(loads, (load + costs[number], rank))
    return hands


def pilot_stretches(batches: list[list[int]]) -> list[int]:
    """Numbers of the stretches that --min_percentile is estimated on: evenly spaced, so of all lengths, and at least one.

    Not whole batches: one of a small job holds a tenth of it or more, and in it only texts that are about as long.
    """
    in_order = [number for batch in batches for number in batch]
    share = min(PILOT_SHARE, PILOT_BATCHES / len(batches))
    count = max(1, int(share * len(in_order)))
    return [in_order[(2 * place + 1) * len(in_order) // (2 * count)] for place in range(count)]


def find_threshold(part: str, plan: PartPlan, denoiser: Denoiser, shards: Shards) -> float:
    """The noise_prob, a log-probability, above which an item is suspected: the quantile --min_percentile of what a pilot scores.

    It is kept with the job, so a restart goes by the threshold that it began with. Of several processes the first scores the
    pilot and the others wait for it: all need the same threshold, and none can suspect anything before. If the first is
    killed meanwhile, its lock goes with it and the next one scores the pilot.
    The pilot is only scored, and read again with its batches; what it costs stands with the first batch.
    """
    path, options = shards.pilot(part), denoiser.options
    with path.with_suffix(".lock").open("w") as lock_file:
        lock(lock_file, fcntl.LOCK_EX)
        if not path.exists():
            pilot, noise_probs = pilot_stretches(plan.batches), []
            for batch in cut_into_batches(pilot, plan.stretches, options.batch_size):
                for record in denoiser.run([plan.stretches[number] for number in batch], threshold=np.inf):
                    noise_probs += record.noise_prob
            threshold = float(np.quantile(noise_probs, options.min_percentile))
            write_json(path, {"stretches": len(pilot), "positions": len(noise_probs), "threshold": threshold})
    return read_json(path)["threshold"]


def denoise_part(part: str, stretches: list[Stretch], denoiser: Denoiser, shards: Shards, process: Process) -> int:
    """Score this process's share of a part of the job, skipping finished batches; returns how many batches the part has."""
    from tqdm import tqdm

    plan = plan_part(stretches, denoiser.titles, denoiser.options.batch_size)
    dealt, finished = deal(plan.costs, process.world)[process.rank], shards.read(part)
    to_do = [number for number in dealt if number not in finished]
    denoiser.begin([text.items for stretch in stretches for text in stretch.texts])
    progress = tqdm(total=len(dealt), initial=len(dealt) - len(to_do), desc=part, unit="batch", disable=process.rank > 0)
    with shards.open(part) as file:  # before the pilot, so that a second process of this rank does not wait for that
        threshold = -np.inf
        if part == PLANTED:
            threshold = np.inf  # what is planted to calibrate on is only scored: nothing of it is suspected
        elif denoiser.options.min_percentile and to_do:
            threshold = find_threshold(part, plan, denoiser, shards)
        for number in to_do:
            records = denoiser.run([stretches[stretch] for stretch in plan.batches[number]], threshold)
            batch = FinishedBatch(number, records, denoiser.seconds, denoiser.tokens, peak_memory_gib())
            file.write(batch.as_line())
            file.flush()
            denoiser.seconds.clear()
            denoiser.tokens.clear()
            progress.update()
    progress.close()
    denoiser.end()
    return len(plan.batches)

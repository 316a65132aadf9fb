r"""Stage 2: how likely every item of every window is noise, and replacements for the most suspicious ones.

The fine-tuned model reads each window as it is; the log-probability with which it starts to name a title is that
item's noise_prob (LLM4DSR, arXiv 2408.08208, section 3.3). For the top suspects it then says what fits better.

Reads   an adapter folder of train_denoise_model.py and a data set folder data/<Name>_noise_user<rate>/
Writes  data/<Name>_denoise_user<rate>_<sample>[_<step>]/: the same rows with noise_prob, noise_items, noise_items_prob,
        suggest_item_titles, suggest_item_ids (see data/README.md), planted.csv, title_vectors.safetensors, the title maps
        and run.json. Without an adapter no rows are read: title vectors of the base model, into
        data/<Name>_denoise_user<rate>_0/. Either way evidence.safetensors and evidence.json: by every kind of evidence there
        is, how likely each interaction is noise, and what would stand there instead; stage 3 reads these

    python generate_denoised.py --noise_dataset_path data/ML100K_noise_user0.1
    python generate_denoised.py --denoise_model_path save_denoise_model/ML100K_noise_user0.1/batch4_sample2400_epoch1/checkpoint-600 \
        --noise_dataset_path data/ML100K_noise_user0.1 --denoise_data test_5000 --limit 64 --planted 0
    accelerate launch generate_denoised.py --noise_dataset_path data/Movie_noise_user0.0 \
        --denoise_model_path save_denoise_model/Movie_noise_user0.0/batch128_sample5000_epoch50/checkpoint-2000

Batches are dealt by their tokens, each to the process with the least so far (RANK and WORLD_SIZE alone decide, so array
jobs on one file system work too); a process appends what it finished to a file of its own, and the last one to finish puts
the rows together. Started again after a kill, it goes on where it was.
"""  # noqa: E501

import argparse
import fcntl
import os
from dataclasses import dataclass, replace
from pathlib import Path

from denoise_code.common.errors import InputError, Parser, input_errors
from denoise_code.common.files import lock, write_json
from denoise_code.data_set.adapter_record import AdapterRecord
from denoise_code.data_set.catalogue import fingerprint_of_catalogue, read_catalogue
from denoise_code.data_set.folder import SPLITS, file_of_split, output_name
from denoise_code.data_set.planting import PLANTED
from denoise_code.data_set.windows import ScoredSplit, keep_users, read_scored_windows
from denoise_code.evidence.options import EvidenceOptions
from denoise_code.language_model.loading import (
    EMBEDDED_MODEL,
    check_adapter,
    check_base_model,
    choose_reading_dtype,
    is_small,
    load_adapter_tokenizer,
    load_model,
    load_tokenizer,
    merge_adapter,
    products_in,
    quiet_libraries,
    restore_base_weights,
)
from denoise_code.language_model.options import Precision
from denoise_code.language_model.prompt import Prompt, Titles
from denoise_code.reading.options import (
    BATCH_SIZE_CPU,
    BATCH_SIZE_GPU,
    BATCH_SIZE_LARGE_MODEL,
    DEFAULT_FILES,
    ModelOptions,
    ReadingOptions,
    RowOptions,
)
from denoise_code.reading.plan import Stretch, plan_parts

# Options that say how windows are read: of no use without an adapter.
NEED_AN_ADAPTER = (
    "denoise_data", "planted", "top_k", "score", "unit", "suggest", "ground", "min_percentile", "max_new_tokens", "limit", "users",
    "any_catalogue",
)  # fmt: skip
OF_A_LANGUAGE_MODEL = ("denoise_model_path", "base_model", "dtype", "load_in_8bit", "batch_size")


def parse_args(argv=None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    RowOptions.add_to(parser, "rows")
    ModelOptions.add_to(parser, "model")
    Precision.add_to(parser, "weights in memory")
    ReadingOptions.add_to(parser, "how windows are read, and what is suggested")
    EvidenceOptions.add_to(parser, "evidence")
    add = parser.add_argument_group("how it runs").add_argument
    add(
        "--language_model",
        choices=["base", "none"],
        default="base",
        help="without an adapter: title vectors of the base model, or none, evidence from the interactions alone (default: base)",
    )
    add("--any_catalogue", action="store_true", help="take an adapter that was trained on another catalogue (default: refuse)")
    add("--output_root", type=Path, help="where the denoised folder goes (default: beside the data set)")
    add("--overwrite", action="store_true", help="replace a denoised folder made with other options (default: refuse)")
    add("--where", action="store_true", help="print the output folder and stop (default: run)")
    args = parser.parse_args(argv)
    check_args(parser, args)
    return args


def check_args(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse options that contradict each other or change nothing; without an adapter no rows are read."""
    if args.batch_size != "auto" and not (args.batch_size.isdigit() and int(args.batch_size) > 0):
        parser.error(f"--batch_size {args.batch_size}: expected auto or a positive whole number")
    if PLANTED in args.denoise_data:
        parser.error("--denoise_data planted: --planted makes it")
    changed = {name for name in NEED_AN_ADAPTER + OF_A_LANGUAGE_MODEL if getattr(args, name) != parser.get_default(name)}
    if not args.denoise_model_path:
        for name in NEED_AN_ADAPTER:
            if name in changed:
                parser.error(f"--{name} needs --denoise_model_path; without an adapter only title vectors are made")
        args.denoise_data, args.planted = [], 0
    for name in OF_A_LANGUAGE_MODEL:
        if args.language_model == "none" and name in changed:
            parser.error(f"--language_model none and --{name} contradict each other")
    if args.suggest == "catalogue":
        for name in ("ground", "max_new_tokens"):
            if name in changed:
                parser.error(f"--{name} changes nothing with --suggest catalogue")


@dataclass(frozen=True)
class Request:
    """What a run was asked for: options by who reads them, the record of the adapter, and the folder to write."""

    rows: RowOptions
    model: ModelOptions
    reading: ReadingOptions
    evidence: EvidenceOptions
    adapter_record: AdapterRecord
    output: Path


def main(argv=None) -> None:
    args = parse_args(argv)
    with input_errors(__file__):
        generate(args)


def generate(args: argparse.Namespace) -> None:
    from denoise_code.making_evidence import make_evidence

    # 1. What is asked for; refused here if it cannot be done.
    request = read_request(args)
    if args.where:
        print(request.output)
        return
    process_number = int(os.environ.get("RANK", 0))
    notes = files_in_place_of(args.denoise_data, request.rows)
    if request.model.denoise_model_path:
        notes += check_adapter_suits(request, args.any_catalogue)
    for note in notes if process_number == 0 else []:
        print(note)

    # 2. What the language model says: of windows with an adapter, of titles always.
    if args.language_model == "none":
        if process_number > 0:
            return
        write_folder_without_language_model(request, args.overwrite)
    elif not read_with_language_model(request, args.overwrite):
        return  # the process that is last goes on

    # 3. Evidence of every kind there is, and replacements, for stage 3 to read.
    if request.rows.limit or request.rows.users:
        print("no evidence: --limit and --users read a part of the rows, and stage 3 needs evidence of all")
    else:
        with (request.output / "run.json").open("r+") as file:  # a process that starts late waits for the one that makes it
            lock(file, fcntl.LOCK_EX)
            make_evidence(request.output, request.rows.noise_dataset_path, request.evidence)
    if request.output.parent != Path(os.path.abspath(request.rows.noise_dataset_path)).parent:  # noqa: PTH100  links stay
        print(f"stage 3 reads noisy rows beside it: link {request.rows.noise_dataset_path} into {request.output.parent}")


def write_folder_without_language_model(request: Request, overwrite: bool) -> None:
    """A denoised folder without title vectors: the title maps and run.json. InputError where vectors are there: unless overwrite."""
    from denoise_code.reading.assembling import copy_title_maps

    read_catalogue(request.rows.noise_dataset_path)  # refuses what is no data set before a folder is made
    title_vectors = request.output / "title_vectors.safetensors"
    if title_vectors.exists() and not overwrite:
        raise InputError(
            f"{request.output} was made with a language model: --overwrite replaces it, another --output_root keeps it"
        )
    request.output.mkdir(parents=True, exist_ok=True)
    copy_title_maps(request.rows.noise_dataset_path, request.output)
    write_json(request.output / "run.json", {"job": {"language_model": "none"}})
    title_vectors.unlink(missing_ok=True)


def read_with_language_model(request: Request, overwrite: bool) -> bool:
    """Rows, planted windows and title vectors; returns whether this process goes on.

    That is the one which wrote them, or the first where they were there already.
    """
    from transformers.utils import logging

    from denoise_code.reading.assembling import assemble  # these import torch, which --help does without
    from denoise_code.reading.denoiser import Denoiser
    from denoise_code.reading.grounding import Grounder
    from denoise_code.reading.job import Job, Process, denoise_part, describe_job
    from denoise_code.reading.shards import Shards

    logging.set_verbosity_error()
    quiet_libraries()
    process = Process(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    # 1. The rows, and what tells this job from another one.
    adapter, data_set = request.model.denoise_model_path, request.rows.noise_dataset_path
    prompt = Prompt.load(adapter) if adapter else Prompt()
    catalogue = read_catalogue(data_set)
    splits = read_splits(request, catalogue)
    job = Job(describe_job(request.rows, request.model, request.reading), data_set, request.output)
    if job.is_complete():
        print(f"{job.output} is complete")
        return process.rank == 0

    # 2. What is read of them, which the base model must be able to.
    tokenizer = load_adapter_tokenizer(adapter) if adapter else load_tokenizer(request.model.base_model)
    titles = Titles(tokenizer, prompt, catalogue)
    parts = plan_parts(splits, request.reading.by_interaction, request.reading.by_likelihood, data_set) if splits else {}
    check_base_model(request.model.base_model, check_parts(parts, titles, request.reading))
    shards = Shards(job.open_work_folder(overwrite), process.rank)
    if job.is_complete():  # the last process ended meanwhile
        shards.remove()
        return False

    # 3. The model, once.
    model, base_weights = load_reading_model(request.model)
    denoiser = Denoiser(model, titles, request.reading, request.model.precision.load_in_8bit)
    grounder = Grounder(model, tokenizer, catalogue, data_set, request.model, request.reading.ground == "title_vectors")

    # 4. Scores and suggestions, batch by batch; the last process to finish grounds them, puts the rows together and reports.
    try:
        with products_in(request.model.precision.dtype):  # not of title vectors, nor of evidence
            n_batches = {part: denoise_part(part, stretches, denoiser, shards, process) for part, stretches in parts.items()}
        restore_base_weights(model, base_weights)
        is_written = assemble(job, shards, splits, n_batches, grounder)
    except FileNotFoundError:
        if not job.is_complete():  # else another process put everything together while this one was on its way
            raise
        return False
    if not is_written:
        print(f"rank {process.rank}: done; the process that ends last goes on")
    return is_written


def files_in_place_of(names: list[str], rows: RowOptions) -> list[str]:
    """Notes on what is read in place of the files of these names."""
    changed = [(name, file) for name, file in zip(names, rows.denoise_data) if file != name]
    return [f"{rows.noise_dataset_path.name} has no {name}.csv: reading {file}.csv" for name, file in changed]


def files_to_read(data_set: Path, names: list[str]) -> list[str]:
    """The files of --denoise_data; of the default ones what stands in place of them: the authors' folders hold train_5000 alone."""
    if names != DEFAULT_FILES:
        return names
    files = []
    for name, split in zip(names, SPLITS):
        path = file_of_split([data_set], split)
        files.append(path.stem if path else name)
    return files


def read_request(args: argparse.Namespace) -> Request:
    """The options by who reads them, `auto` and what the adapter says filled in."""
    check_device(args.load_in_8bit)
    adapter = args.denoise_model_path
    record = check_adapter(adapter, args.base_model) if adapter else AdapterRecord(args.base_model or EMBEDDED_MODEL)
    data_set = Path(os.path.abspath(args.noise_dataset_path))  # noqa: PTH100  links stay
    precision = choose_precision(Precision.from_arguments(args), record.base_model, reads=args.language_model != "none")
    batch_size = choose_batch_size(args.batch_size, record.base_model, reads_windows=bool(adapter))
    return Request(
        RowOptions.from_arguments(args, denoise_data=files_to_read(data_set, args.denoise_data)),
        ModelOptions(adapter, record.base_model, precision),
        ReadingOptions.from_arguments(args, batch_size=batch_size),
        EvidenceOptions(args.noise_share, args.replace_all),
        record,
        output_folder(args.output_root or data_set.parent, data_set, adapter, record),
    )


def check_device(load_in_8bit: bool) -> None:
    import torch

    if load_in_8bit and not torch.cuda.is_available():
        raise InputError("--load_in_8bit needs a CUDA device")


def choose_precision(precision: Precision, base_model: str, reads: bool) -> Precision:
    """With a dtype in place of `auto`, where a language model is read with."""
    if not reads:
        return precision
    return replace(precision, dtype=choose_reading_dtype(precision.dtype, base_model, precision.load_in_8bit))


def choose_batch_size(batch_size: str, base_model: str, reads_windows: bool) -> int:
    """Windows at once. auto: on a GPU so many that a small model does not wait for launches, and the cache of a large one fits."""
    import torch

    if batch_size != "auto":
        return int(batch_size)
    if not torch.cuda.is_available():
        return BATCH_SIZE_CPU
    return BATCH_SIZE_GPU if reads_windows and is_small(base_model) else BATCH_SIZE_LARGE_MODEL


def output_folder(root: Path, data_set: Path, adapter: Path | None, record: AdapterRecord) -> Path:
    """<Name>_denoise_user<rate>_<sample>[_<step>] below root."""
    return root / output_name(data_set.name, adapter and adapter.resolve(), record.sample)


def check_adapter_suits(request: Request, any_catalogue: bool) -> list[str]:
    """Warnings of an adapter whose probabilities may mean little here.

    Raises InputError where it was trained on another catalogue, whose titles it takes to belong: unless any_catalogue.
    """
    adapter, record, data_set = request.model.denoise_model_path, request.adapter_record, request.rows.noise_dataset_path
    warnings = []
    if record.catalogue_fingerprint is None:
        warnings.append(
            f"{adapter}: its run.json does not say on which catalogue it was trained; "
            f"on another one than that of {data_set.name} its probabilities mean little"
        )
    elif record.catalogue_fingerprint != fingerprint_of_catalogue(read_catalogue(data_set)):
        problem = f"was trained on the catalogue of {record.dataset_name}, and that of {data_set} is another one"
        if not any_catalogue:
            raise InputError(f"--denoise_model_path {adapter} {problem}: --any_catalogue takes it all the same")
        warnings.append(f"{adapter} {problem}")
    if request.reading.score == "likelihood" and record.loss_on == "answer":
        warnings.append(f"{adapter} was trained with --loss_on answer: it did not learn how likely titles are")
    return warnings


def read_splits(request: Request, catalogue: list[str]) -> dict[str, ScoredSplit]:
    """All rows that are scored, the planted ones last."""
    rows = request.rows
    names = [*rows.denoise_data, *([PLANTED] if rows.planted else [])]
    splits = {}
    for name in names:
        scored = read_scored_windows(rows.noise_dataset_path, name, catalogue, rows.limit, rows.planted, request.adapter_record)
        if name != PLANTED or scored.windows:  # an adapter may have seen all users
            splits[name] = scored
    if rows.users and splits:
        splits |= keep_users({name: scored for name, scored in splits.items() if name != PLANTED}, rows.users)
    return splits


def check_parts(parts: dict[str, list[Stretch]], titles: Titles, options: ReadingOptions) -> int:
    """Refuse what cannot be read so; returns the tokens of the longest text with its answer."""
    longest, n_items = 0, len(titles.catalogue) - 1
    for stretches in parts.values():
        windows = [text.items for stretch in stretches for text in stretch.texts]
        titles.check_seam(windows[0])
        longest = max(longest, titles.longest(windows, options.max_new_tokens if options.is_free else None))
        around = max(min(2 * stretch.window - 1, len(stretch.interactions)) for stretch in stretches)
        if not options.is_free and n_items <= around:
            raise InputError(f"--suggest catalogue: {n_items} items are too few, up to {around} stand around a suspect")
    return longest


def load_reading_model(options: ModelOptions) -> tuple:
    """(base model on this process's device with the adapter merged into it, what restores its weights); in 8 bit not merged."""
    model = load_model(options.denoise_model_path, options.base_model, options.precision)
    if options.denoise_model_path and not options.precision.load_in_8bit:
        return model, merge_adapter(model)
    return model, {}


if __name__ == "__main__":
    main()

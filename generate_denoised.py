"""Stage 2: a noise probability for every item of every window, and replacements for the most suspicious ones.

The fine-tuned model reads each window as it is; the log-probability with which it starts to name a title is that
item's noise probability (LLM4DSR, arXiv 2408.08208, section 3.3). For the top suspects it then says what fits better.

Reads   an adapter folder of train_denoise_model.py and a data set folder data/<Name>_noise_user<rate>/
Writes  data/<Name>_denoise_user<rate>_<sample>[_<step>]/: the same rows with noise_prob, noise_items, noise_items_prob,
        suggest_item_titles, suggest_item_ids (see data/README.md), planted.csv, title_vectors.safetensors, the title maps
        and run.json. Without an adapter the title vectors of the base model alone, into data/<Name>_denoise_user<rate>_0/

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
import os
from functools import cache
from pathlib import Path

from denoise_code.common.errors import InputError, Parser, input_errors
from denoise_code.common.options import positive, share
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.folder import find_train_file, output_name
from denoise_code.data_set.planting import PLANTED
from denoise_code.data_set.rows import read_windows
from denoise_code.data_set.windows import keep_users, read_scored_windows
from denoise_code.language_model.loading import (
    EMBEDDED_MODEL,
    check_adapter,
    check_base_model,
    choose_dtype,
    load_adapter_tokenizer,
    load_model,
    load_tokenizer,
    quiet_libraries,
)
from denoise_code.language_model.prompt import Prompt, Titles
from denoise_code.reading.assembling import complete, finish
from denoise_code.reading.job import denoise_part, describe_job, open_output
from denoise_code.reading.plan import each_interaction, each_row, histories
from denoise_code.reading.shards import Shards

# What says how windows are read: of no use without an adapter.
OF_WINDOWS = (
    "denoise_data planted top_k score unit overlap span suggest ground min_percentile max_new_tokens limit users"
).split()


def parse_args(argv=None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--denoise_model_path", type=Path, help="checkpoint of train_denoise_model.py; none: title vectors alone, untrained")
    add("--noise_dataset_path", type=Path, required=True, help="data set folder <Name>_noise_user<rate>")
    add("--denoise_data", nargs="+", default=["train", "valid_5000", "test_5000"], help="files of the data set, without .csv")
    add("--planted", type=int, default=1000, help="train rows with one planted item each, written as planted.csv; 0: none")
    add("--base_model", help="must be the adapter's; default: the adapter's, or the embedded one")
    add("--batch_size", default="auto", help="windows at once (auto: 16 on a CPU, 128 on a GPU)")
    add("--top_k", type=positive, default=3, help="suspects a window")
    add(
        "--score",
        choices=["first_token", "title", "likelihood"],
        default="first_token",
        help="what of a title is scored (paper: first_token)",
    )
    add(
        "--unit",
        choices=["window", "interaction"],
        default="window",
        help="window: reads each row (paper); interaction: each once",
    )
    add("--overlap", type=share, default=0.5, help="interaction: least share of a window read before each")
    add("--span", type=positive, default=4, help="interaction, likelihood: windows that are read in one text")
    add("--suggest", choices=["free", "catalogue"], default="free", help="free: the paper; catalogue: only titles there are")
    add(
        "--ground",
        choices=["last_token", "title_vectors"],
        default="last_token",
        help="how free text that is no title finds the nearest item (release: last_token)",
    )
    add("--min_percentile", type=share, help="suspects only above this share of positions (estimated on a pilot)")
    add("--max_new_tokens", type=positive, default=64, help="longest free suggestion")
    add("--limit", type=positive, help="this many rows of each file but planted.csv, evenly spaced")
    add("--users", type=positive, help="the rows of so many users only, evenly spaced among all")
    add("--output_root", type=Path, help="where the denoised folder goes (default: beside the data set)")
    add("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="auto: bfloat16 on GPUs that have it")
    add("--load_in_8bit", action="store_true", help="base model in 8 bit (CUDA and the package bitsandbytes)")
    add("--overwrite", action="store_true", help="replace a denoised folder made with other options")
    add("--where", action="store_true", help="print the output folder and stop")
    args = parser.parse_args(argv)
    if args.batch_size != "auto" and not (args.batch_size.isdigit() and int(args.batch_size) > 0):
        parser.error(f"--batch_size {args.batch_size}: expected auto or a positive whole number")
    if args.planted < 0:
        parser.error("--planted is negative")
    if PLANTED in args.denoise_data:
        parser.error("--denoise_data planted: --planted makes it")
    if not args.denoise_model_path:
        given = [name for name in OF_WINDOWS if getattr(args, name) != parser.get_default(name)]
        if given:
            parser.error(f"--{given[0]} needs --denoise_model_path; without an adapter only title vectors are made")
        args.denoise_data, args.planted = [], 0
    idle = [] if args.unit == "interaction" else ["overlap", "span"]
    idle += ["span"] if args.score != "likelihood" else []
    idle += ["ground", "max_new_tokens"] if args.suggest == "catalogue" else []
    for name in idle:
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} changes nothing with --unit {args.unit}, --score {args.score}, --suggest {args.suggest}")
    return args


def plan(splits: dict, args) -> dict:
    """{part of the job: works} of {split: (table, windows)}: what is read, and which rows take what from it."""
    if args.unit == "window":
        return {name: each_row(name, windows) for name, (_, windows) in splits.items()}
    causal = args.score == "likelihood"
    users = {name: split for name, split in splits.items() if name != PLANTED}
    parts = {"interactions": each_interaction(users, args.overlap, args.span, causal)}
    if PLANTED in splits:
        (table, windows), before = splits[PLANTED], None
        if causal:  # each with the history that an interaction of its place is read with
            before = histories(table, read_windows(find_train_file(args.noise_dataset_path)), args.overlap, args.span)
        parts[PLANTED] = each_row(PLANTED, windows, before)
    return parts


def check_plan(parts: dict, titles: Titles, args) -> int:
    """Refuse what cannot be read so; returns the tokens of the longest text with its answer."""
    longest, n_items = 0, len(titles.catalogue) - 1
    written = None if args.suggest == "catalogue" else args.max_new_tokens
    for works in parts.values():
        windows = [text.items for work in works for text in work.texts()]
        titles.check_seam(windows[0])
        longest = max(longest, titles.longest(windows, written))
        around = max(min(2 * work.window - 1, len(work.items)) for work in works)
        if args.suggest == "catalogue" and n_items <= around:
            raise InputError(f"--suggest catalogue: {n_items} items are too few, up to {around} stand around a suspect")
    return longest


def main(argv=None) -> None:
    args = parse_args(argv)
    with input_errors(__file__):
        generate(args)


def generate(args) -> None:
    import torch
    from transformers.utils import logging

    from denoise_code.language_model.title_vectors import title_vectors
    from denoise_code.reading.denoiser import Denoiser
    from denoise_code.reading.grounding import embed, nearest_by_vectors, nearest_items, title_table

    logging.set_verbosity_error()
    quiet_libraries()
    # 1. what is asked for, refused here if it cannot be done
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if args.load_in_8bit and not torch.cuda.is_available():
        raise InputError("--load_in_8bit needs a CUDA device")
    args.batch_size = (128 if torch.cuda.is_available() else 16) if args.batch_size == "auto" else int(args.batch_size)
    adapter, data = args.denoise_model_path, args.noise_dataset_path
    args.base_model = args.base_model or (None if adapter else EMBEDDED_MODEL)
    adapter_run = check_adapter(adapter, args.base_model) if adapter else {"base_model": args.base_model}
    trained_with, base_model = adapter_run.get("arguments", {}), adapter_run["base_model"]
    there = Path(os.path.abspath(data))  # noqa: PTH100  links stay
    name = output_name(there.name, adapter and adapter.resolve(), trained_with.get("sample", 0))
    output = (args.output_root or there.parent) / name
    if args.where:
        print(output)
        return
    if args.score == "likelihood" and trained_with.get("loss_on") == "answer":
        print(f"{adapter} was trained with --loss_on answer: it did not learn how likely titles are")
    prompt, catalogue = Prompt.load(adapter) if adapter else Prompt(), read_catalogue(data)
    names = [*args.denoise_data, *([PLANTED] if args.planted else [])]
    splits = {name: read_scored_windows(data, name, catalogue, args.limit, args.planted, adapter_run) for name in names}
    if args.users and splits:
        splits |= keep_users({name: split for name, split in splits.items() if name != PLANTED}, args.users)
    job = describe_job(args)
    if complete(output, job):
        print(f"{output} is complete")
        return

    # 2. what is read, which the base model must be able to
    tokenizer = load_adapter_tokenizer(adapter) if adapter else load_tokenizer(base_model)
    titles = Titles(tokenizer, prompt, catalogue)
    parts = plan(splits, args) if splits else {}
    check_base_model(base_model, check_plan(parts, titles, args))
    shards = Shards(open_output(args, output, job), rank)
    if complete(output, job):  # the last process ended meanwhile
        shards.remove()
        return

    # 3. the model, once
    model = load_model(adapter, base_model, args)
    if adapter and choose_dtype(args.dtype) == torch.float32 and not args.load_in_8bit:
        model.merge_adapter()
    denoiser = Denoiser(model, titles, args)

    # 4. score and suggest, batch by batch; the last process to finish puts the rows together, grounds and reports
    read_from = (model, tokenizer, catalogue, data, args, base_model)
    vectors = cache(lambda: title_vectors(*read_from))  # once, also where the data set's folder cannot keep them
    table = cache(lambda: title_table(*read_from))

    def nearest(texts):
        if args.ground == "title_vectors":
            return nearest_by_vectors(model, tokenizer, texts, *vectors())
        return nearest_items(embed(model, tokenizer, texts), table())

    try:
        counts = {name: denoise_part(name, works, denoiser, shards, rank, world) for name, works in parts.items()}
        if not finish(args, output, shards, splits, counts, catalogue, nearest, vectors, job):
            print(f"rank {rank}: done; other processes are not")
    except FileNotFoundError:
        if not complete(output, job):  # else another process put everything together while this one was on its way
            raise


if __name__ == "__main__":
    main()

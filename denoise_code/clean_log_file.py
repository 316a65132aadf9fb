"""A log in, the same log out, with the probability of each line that it does not belong to its user, and what would fit instead.

Reads   any table of interactions that stage 0 reads: delimited text, JSON lines, Parquet, compressed or not.
Writes  into the folder --out, by default my_log_cleaned beside my_log.csv:
        scored.csv    every line and column of the log, and the new columns
        cleaned.csv   the log without the lines that are flagged, or with their items exchanged (--replace)
        edits.csv     what was changed
        report.html   how much noise there is, whether to trust it, the most suspicious lines
        and what the next run need not do again: title vectors, evidence, what was learned

    ./denoise.sh my_log.csv
    ./denoise.sh my_log.tsv --separator tab --user_column who --item_column what --time_column when --threshold 0.8 --replace
    ./denoise.sh tomorrow.csv --like my_log_cleaned

Everything is learned from the log itself. Started again after a kill, it goes on where it was; with another --threshold it learns nothing
anew. With --like the lines are judged in the context of the log in FOLDER, with what was learned there.
"""

import argparse
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the root, where denoise_code lies

from denoise_code.common.errors import Parser, input_errors
from denoise_code.common.options import ranged, share
from denoise_code.data_set.log.csv_source import TableOptions, add_table_options, check_table_options

THRESHOLD = 0.5
HOW_A_TABLE_IS_READ = (
    *("separator", "encoding", "quoting", "no_header", "in_order"),
    *("user_column", "item_column", "time_column", "title_column"),
)
# --like takes FOLDER's
WITHOUT_LIKE = {"window": 11, "noise_share": None, "language_model": "base", "base_model": None, "seed": 0}


def parse_args(argv=None) -> tuple[argparse.Namespace, TableOptions]:
    """All options, and how the log is read."""
    parser = Parser(
        prog="denoise.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("log", type=Path, metavar="LOG", help="the file of interactions (needed)")
    add_table_options(parser)
    add("--out", type=Path, metavar="FOLDER", help="where the files go (default: beside the log, <its name>_cleaned)")
    add("--threshold", type=ranged(float, 0, 1), help=f"lines above this probability are flagged (default: {THRESHOLD})")
    add(
        "--drop", type=share, metavar="SHARE", help="flag this share of the log, the most suspicious lines (default: --threshold)"
    )
    add(
        "--confirmed",
        type=Path,
        metavar="FILE",
        help="flag the lines of FILE, edits.csv without those that stay (default: --threshold)",
    )
    add("--replace", action="store_true", help="cleaned.csv has another item in flagged lines (default: it leaves them out)")
    add("--like", type=Path, metavar="FOLDER", help="judge new lines by what the log in FOLDER taught (default: by this log)")
    add("--noise_share", type=share, help="share of noise that probabilities assume (default: the smaller of 0.1 and the bound)")
    add("--window", type=ranged(int, 3), help="longest run of a user's items that is read at once (default: 11)")
    add("--language_model", choices=["base", "none"], help="none: titles are not read (default: base)")
    add("--base_model", help="language model that reads titles (default: SmolLM2-135M-Instruct, which reads English)")
    add("--seed", type=ranged(int, 0), help="seed of all that is drawn (default: 0)")
    args = parser.parse_args(argv)
    if args.like is not None:
        parser.set_defaults(**how_it_was_read(args.like, args.in_order))
        args = parser.parse_args(argv)
    table_options = check_table_options(parser, args)
    check_args(parser, args)
    return args, table_options


def how_it_was_read(like: Path, in_order: bool) -> dict:
    """{option: value} of how the log in --like was read, which a new log is read by where no option says otherwise.

    in_order: whether the new log has no times; then it has no column of times either.
    """
    from denoise_code.cleaning.folder import run_of_cleaned_log

    run = run_of_cleaned_log(like) or {}  # without it the folder is refused later
    before = run.get("options", {})
    names = [name for name in HOW_A_TABLE_IS_READ if name != "time_column" or not in_order]
    return {name: before[name] for name in names if name in before}


def check_args(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse options that contradict each other, and fill in the defaults."""
    rules = [name for name in ("threshold", "drop", "confirmed") if getattr(args, name) is not None]
    if len(rules) > 1:
        parser.error(f"--{rules[0]} and --{rules[1]}: one of them says what is flagged")
    if not rules:
        args.threshold = THRESHOLD
    set_options = [name for name in WITHOUT_LIKE if getattr(args, name) is not None]
    if args.like is not None and set_options:
        parser.error(f"--{set_options[0]} and --like: lines are judged as the log in {args.like} was")
    if args.language_model == "none" and args.base_model:
        parser.error("--language_model none and --base_model contradict each other")
    for name, default in WITHOUT_LIKE.items():
        if getattr(args, name) is None:
            setattr(args, name, default)


def main(argv=None) -> None:
    args, table_options = parse_args(argv)
    with input_errors("denoise.sh"):
        clean(args, table_options, shlex.join(["./denoise.sh", *map(str, sys.argv[1:] if argv is None else argv)]))


def clean(args: argparse.Namespace, table_options: TableOptions, command: str) -> None:
    from denoise_code.cleaning.folder import check_folder, default_folder, make_folder, write_files
    from denoise_code.cleaning.judges import Judgement
    from denoise_code.cleaning.log_file import read_log_file
    from denoise_code.cleaning.records import edits_of, spread_over_records
    from denoise_code.cleaning.written_records import CleanedLog
    from denoise_code.common.resources import Steps

    steps = Steps()
    folder = args.out or default_folder(args.log)
    check_folder(folder, args.log, args.titles, is_named=args.out is not None)
    settings = settings_asked_for(args, folder)
    taught = taught_by_like(args, settings)
    # 1. The records of the log, each cell as it is written; their interactions and windows
    with steps.step("read the log"):
        log_file = read_log_file(args.log, table_options, knows_titles=args.like is not None)
        rule = flagging_rule(args, log_file)
        judge = judge_asked_for(args, folder, settings, taught, log_file)
        make_folder(folder)
    prepared = judge.prepared
    print("\n".join([*describe_log(args, log_file, prepared), *log_file.account.notes]), flush=True)
    # 2. What a language model knows of each title
    with steps.step("title vectors"):
        vectors = judge.read_titles()
    # 3. How suspicious each record is, what would stand there, which are flagged
    with steps.step("evidence and replacements"):
        judged = judge.judge(vectors)
    records = spread_over_records(prepared, judged, reads_titles=vectors is not None)
    edits = edits_of(records, rule.flag(prepared, records), args.replace)
    cleaned_log = CleanedLog(log_file, prepared, records, edits)
    # 4. Whether planted noise is found
    with steps.step("self-test"):
        copy = judge.self_test(vectors, judged)
    # 5. The files
    with steps.step("write the files"):
        report = report_of(args, rule, cleaned_log, Judgement(judged, copy, judge.users_of_item()))
        run = run_of(args, command, settings, cleaned_log, report) | {"reads_titles": vectors is not None}
        write_files(folder, cleaned_log, report, run, steps, keeps_log=args.like is None)
    say_what_came_out(folder, report)


def describe_log(args: argparse.Namespace, log_file, prepared) -> list[str]:
    """What was read, so that a wrong column or unit is seen before anything is learned."""
    import numpy as np

    from denoise_code.data_set.log.times import describe_range

    log, columns = log_file.log, log_file.columns
    items = prepared.log.items[prepared.distinct.interaction_of_record]  # (N,)
    without_title = ~prepared.has_title[items]
    times = "in the order of the file" if args.in_order else describe_range(log)
    lines = [
        *log_file.account.lines(),
        f"users {len(np.unique(log.users)):,}  items {len(np.unique(log.items)):,}  times {times}",
    ]
    if not without_title.all():
        source = f"the log in {args.like}" if columns.title is None else f"column {log_file.whole.names[columns.title]!r}"
        source = "--titles" if args.titles else source
        n_items = len(np.unique(items[without_title]))
        lines.append(
            f"titles from {source}: {without_title.sum():,} lines, of {n_items:,} items, have none; {prepared.title_changes}"
        )
    return lines


def settings_asked_for(args: argparse.Namespace, folder: Path):
    """How the log is judged; a folder of --like that cannot judge it is refused before the log is read."""
    from denoise_code.cleaning.judges import Settings, settings_like
    from denoise_code.language_model.loading import EMBEDDED_MODEL

    if args.like is not None:
        return settings_like(args.like, folder, args.in_order)
    base_model = None if args.language_model == "none" else args.base_model or EMBEDDED_MODEL
    return Settings(args.window, args.noise_share, base_model, args.seed)


def taught_by_like(args: argparse.Namespace, settings):
    """What the log in --like taught, None without it; refused, too, before the log is read."""
    from denoise_code.cleaning.judges import what_was_taught

    return None if args.like is None else what_was_taught(args.like, settings.noise_share)


def judge_asked_for(args: argparse.Namespace, folder: Path, settings, taught, log_file):
    """Who judges the records: the log itself, or with --like the one that it continues, by what that taught."""
    from denoise_code.cleaning.judges import JudgeByItself, JudgeLike, continue_cleaned_log
    from denoise_code.cleaning.records import prepare_log

    if args.like is None:
        return JudgeByItself(folder, settings, prepare_log(log_file.log, settings.window))
    continued = continue_cleaned_log(args.like, log_file.log, settings.window, log_file.whole.where, args.in_order)
    return JudgeLike(folder, settings, args.like, taught, continued)


def flagging_rule(args: argparse.Namespace, log_file):
    """What --threshold, --drop or --confirmed says."""
    from denoise_code.cleaning.flagging import AboveThreshold, Confirmed, MostSuspicious, records_at_lines

    if args.confirmed is not None:
        return Confirmed(args.confirmed, records_at_lines(args.confirmed, log_file))
    return AboveThreshold(args.threshold) if args.drop is None else MostSuspicious(args.drop)


def report_of(args: argparse.Namespace, rule, cleaned_log, judgement):
    """All that report.html says."""
    import numpy as np

    from denoise_code.cleaning.figures import evidence_rows, most_suspicious, rarity_rows, threshold_rows
    from denoise_code.cleaning.report import CleaningReport
    from denoise_code.cleaning.self_test import self_test_figures

    prepared, records, edits = cleaned_log.prepared, cleaned_log.judged, cleaned_log.edits
    judged, copy = judgement.judged, judgement.copy
    flagged_of_copy = None if copy is None else rule.flag_copy(copy, judged.noise_share, records, edits.flagged)
    return CleaningReport(
        log=args.log.name,
        n_records=len(records.r),
        n_users=len(np.unique(prepared.log.users[prepared.distinct.interaction_of_record])),
        n_items=len(np.unique(prepared.log.items[prepared.distinct.interaction_of_record])),
        status_counts=records.status_counts(),
        noise_share=judged.noise_share,
        share_bound=judged.interactions.share_bound,
        rule=rule.describe(records, edits.flagged),
        n_flagged=int(edits.flagged.sum()),
        suspects=most_suspicious(prepared, records, edits.flagged, cleaned_log.log_file.location),
        self_test=None if flagged_of_copy is None else self_test_figures(copy, flagged_of_copy),
        thresholds=[] if copy is None else threshold_rows(records, copy, judged.noise_share),
        rarity=rarity_rows(prepared, records, edits.flagged, judgement.users_of_item),
        evidence=evidence_rows(judged.interactions.figures),
        is_confirmed=args.confirmed is not None,
        is_replaced=args.replace,
        taught_by=None if args.like is None else str(args.like),
    )


def run_of(args: argparse.Namespace, command: str, settings, cleaned_log, report) -> dict:
    """run.json, but for costs and fingerprints."""
    log_file, prepared, edits = cleaned_log.log_file, cleaned_log.prepared, cleaned_log.edits
    return {
        "command": command,
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "settings": asdict(settings),
        "in_order": args.in_order,
        "times_are_dates": log_file.log.times_are_dates,
        "counts": {
            **log_file.account.as_json(),
            "users": report.n_users,
            "items": report.n_items,
            "status": report.status_counts,
            "items_without_title": int((~prepared.has_title[1:]).sum()),
            "flagged": report.n_flagged,
            "left_out": int(edits.left_out.sum()),
            "exchanged": int(edits.exchanged.sum()),
            "flagged_without_replacement": int((edits.flagged & ~edits.left_out & ~edits.exchanged).sum()),
        },
        "notes": log_file.account.notes,
        "titles": prepared.title_changes,
        "noise_share": report.noise_share,
        "share_bound": report.share_bound,
        "rule": report.rule,
        "self_test": report.self_test and asdict(report.self_test),
        "thresholds": [asdict(row) for row in report.thresholds],
        "rarity": [asdict(row) for row in report.rarity],
    }


def say_what_came_out(folder: Path, report) -> None:
    """The figures that a person acts on."""
    from denoise_code.cleaning.report import items_of_one_user, verdict
    from denoise_code.data_set.evidence_files import BOUND_CONFIDENCE

    n_judged = report.n_records - report.status_counts["too_short"]
    print(
        f"noise at most {report.share_bound:.1%} ({BOUND_CONFIDENCE:.0%} confidence), {report.noise_share:.1%} is assumed\n"
        f"{report.n_flagged:,} of {n_judged:,} judged lines are flagged: {report.rule}"
    )
    for status, count in report.status_counts.items():
        if count and status != "scored":
            print(f"  {status} {count:,}")
    test = report.self_test
    if test is not None:
        right = "" if test.right is None else f"; {test.right:.0%} of the flagged are planted"
        print(
            f"self-test: {test.found:.0%} of {test.n_planted:,} planted interactions are flagged, {test.lost:.1%} of the others{right}"
        )
    print("\n".join([verdict(test, report.is_confirmed)[1], *([] if report.is_confirmed else items_of_one_user(report))]))
    print(f"wrote {folder}: scored.csv, cleaned.csv, edits.csv, report.html")


if __name__ == "__main__":
    main()

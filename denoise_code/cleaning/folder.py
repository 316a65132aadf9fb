"""The folder of a cleaned log: what is kept from run to run, and what comes out. README.md has its columns."""

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

import numpy as np

from denoise_code.cleaning.records import PreparedLog, judge_by_itself, too_small, with_replacements
from denoise_code.cleaning.report import CleaningReport, write_report
from denoise_code.cleaning.written_records import CleanedLog, write_records
from denoise_code.common.errors import InputError
from denoise_code.common.files import (
    fingerprint,
    fingerprint_of_array,
    fingerprint_of_json,
    naming_tensors,
    read_json,
    write_atomically,
    write_json,
)
from denoise_code.common.resources import Steps
from denoise_code.data_set.catalogue import fingerprint_of_catalogue
from denoise_code.data_set.evidence_files import (
    ARRAYS,
    RECORD,
    VERSION,
    fingerprint_of_rows,
    read_evidence,
    write_evidence,
)
from denoise_code.data_set.log.stored_log import write_interactions, write_keys
from denoise_code.evidence import detector
from denoise_code.evidence.learned import Learned, load_learned, save_learned
from denoise_code.evidence.options import EvidenceOptions
from denoise_code.judging import JudgedDataSet, Replacements
from denoise_code.stored_evidence import (
    MadeOf,
    judged_before,
    make_record,
    options_of,
    replacements_before,
    stored_form,
    stored_record,
)

SCORED_LOG, CLEANED_LOG, EDITS, REPORT, RUN = "scored.csv", "cleaned.csv", "edits.csv", "report.html", "run.json"
LOG_FILES = ("interactions.csv", "users.csv", "items.csv")
LEARNED, SELF_TEST = "learned.safetensors", "self_test.safetensors"
ENDINGS = re.compile(r"(\.(csv|tsv|txt|dat|data|inter|jsonl?|ndjson|parquet|gz|bz2|xz|zst|zip|tar|tgz))+$", re.IGNORECASE)


def default_folder(log: Path) -> Path:
    """my_log.csv.gz -> my_log_cleaned, beside it."""
    return log.with_name(f"{ENDINGS.sub('', log.name) or log.name}_cleaned")


def run_of_cleaned_log(folder: Path) -> dict | None:
    """run.json of a folder that a log was cleaned into; None where there is none, or it is of another kind."""
    try:
        run = read_json(folder / RUN)
    except (OSError, ValueError):
        return None
    return run if isinstance(run, dict) and {"fingerprints", "settings"} <= run.keys() else None


def check_folder(folder: Path, log: Path, titles: str | None, is_named: bool = True) -> None:
    """Refuse a folder in which the log, the file of titles or anybody else's files would be replaced.

    Those of another log are somebody else's, too, unless --out names the folder (is_named): the same log may have another name then.
    """
    outputs = (SCORED_LOG, CLEANED_LOG, EDITS, REPORT, RUN, *LOG_FILES, LEARNED, SELF_TEST, ARRAYS, RECORD)
    inputs = {"the log itself": log} | ({} if titles is None else {"the file of --titles": Path(titles)})
    for name in outputs:
        for what, path in inputs.items():
            if (folder / name).resolve() == path.resolve():
                raise InputError(f"--out {folder}: {name} there is {what}, which would be replaced")
    try:
        present = {path.name for path in folder.iterdir()}
    except OSError:  # it is still to be made, or `make_folder` says what is wrong with it
        return
    run = run_of_cleaned_log(folder)
    before = Path(run["options"]["log"]).name if run else log.name
    if before != log.name and not is_named:
        raise InputError(
            f"{folder}: holds the files of {before}, which would be replaced; name it, or another folder, with --out"
        )
    if LEARNED in present or run is not None:  # a first run that was killed has the former alone
        return
    for name in outputs:
        if name in present:
            raise InputError(
                f"--out {folder}: {name} there is of no log that ./denoise.sh cleaned, and would be replaced; name another folder"
            )


def make_folder(folder: Path) -> None:
    """Make the folder, and remove what a killed run left half written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob(".*.partial-*"):
            partial.unlink()
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be made ({error.strerror or error})") from None


@contextmanager
def together(folder: Path, names: list[str]) -> Iterator[dict[str, Path]]:
    """Where to write these files of a folder: they take their places when all are written, so that a full disk leaves the old ones."""
    try:
        with ExitStack() as stack:
            yield {name: stack.enter_context(write_atomically(folder / name)) for name in names}
    except OSError as error:
        raise InputError(
            f"{folder}: {', '.join(names)} cannot be written ({error.strerror or error}); the old ones stay"
        ) from None


# ---------------------------------------------------------------- what is kept


def sources_of_evidence(prepared: PreparedLog, vectors: np.ndarray | None, seed: int) -> str:
    """SHA-256 of all that r is made of. No kind of evidence reads times, so they are not in it."""
    log = prepared.log
    content = [
        VERSION,
        asdict(detector.DetectorSettings()),
        seed,
        prepared.data.train.shape[1],
        fingerprint_of_array(log.users),
        fingerprint_of_array(log.items),
        log.user_keys,
    ]
    content += [None if vectors is None else fingerprint_of_array(vectors)]
    return fingerprint_of_json(content)


def judge_and_keep(folder: Path, prepared: PreparedLog, vectors: np.ndarray | None, options: EvidenceOptions) -> JudgedDataSet:
    """All interactions of the log, judged and with replacements, and what was learned; read from the folder where it has them.

    r is kept where the log, its title vectors and the seed are the same, replacements where the share of noise is as well.
    """
    sources, record = sources_of_evidence(prepared, vectors, options.seed), stored_record(folder)
    learned = None
    if record is not None and record["sources"] == sources and fingerprint_of_learned(folder) == record.get("learned"):
        learned = learned_before(folder)
    if learned is not None:
        stored = read_evidence(folder)
        interactions = replace(judged_before(stored), learned=learned)
        if record["options"] == options_of(options):
            return JudgedDataSet(interactions, stored.noise_share, replacements_before(stored))
    else:
        with too_small():
            interactions = judge_by_itself(prepared, vectors, options.seed)
        with naming_tensors(folder / LEARNED):
            save_learned(folder / LEARNED, interactions.learned)
        nothing = Replacements(np.zeros(len(prepared.data.interactions), dtype=np.int64), {})
        judged = JudgedDataSet(interactions, 0.0, nothing)
        keep_evidence(folder, prepared, judged, sources, None)  # replacements are still to come
    with too_small():
        judged = with_replacements(prepared, interactions, vectors, options)
    keep_evidence(folder, prepared, judged, sources, options)
    return judged


def learned_before(folder: Path) -> Learned | None:
    """What was learned; None where it cannot be read, as what another version of this code wrote."""
    try:
        return load_learned(folder / LEARNED)
    except InputError:
        return None


def fingerprint_of_learned(folder: Path) -> str | None:
    return fingerprint(folder / LEARNED) if (folder / LEARNED).exists() else None


def keep_evidence(
    folder: Path, prepared: PreparedLog, judged: JudgedDataSet, sources: str, options: EvidenceOptions | None
) -> None:
    """evidence.safetensors and evidence.json, as of a denoised folder whose rows are all train rows."""
    data = prepared.data
    rows = {"train": fingerprint_of_rows(data.interactions.users[data.train[:, -1]] + 1, data.train_items)}
    made_of = MadeOf(rows, fingerprint_of_catalogue(prepared.log.titles), sources)
    record = make_record(data, judged, made_of, options) | {"learned": fingerprint_of_learned(folder)}
    write_evidence(folder, stored_form(data, judged, record))


# ---------------------------------------------------------------- what comes out


def keep_edited_list(folder: Path, confirmed: str | None) -> None:
    """A list of edits that somebody has read, and changed by hand, is hours of work: a copy of it stays beside the new one.

    confirmed: the list that this run follows; the new one has its lines.
    """
    run, path = run_of_cleaned_log(folder), folder / EDITS
    if run is None or not path.exists() or (confirmed and Path(confirmed).resolve() == path.resolve()):
        return
    fingerprints = run["fingerprints"]
    if is_as_written(path, fingerprints) and not run["options"].get("confirmed"):
        return
    # scored.csv takes its place last: where it is older than run.json a run was killed, and the list is older, too
    if not is_as_written(folder / SCORED_LOG, fingerprints):
        return
    copy = next(copy for copy in (folder / f"edits_by_hand{number or ''}.csv" for number in count()) if not copy.exists())
    with write_atomically(copy) as partial:
        shutil.copyfile(path, partial)
    print(f"{path} was made by hand: it is kept as {copy}")


def is_as_written(path: Path, fingerprints: dict[str, str]) -> bool:
    return path.exists() and fingerprint(path) == fingerprints.get(path.name)


def write_files(folder: Path, cleaned_log: CleanedLog, report: CleaningReport, run: dict, steps: Steps, keeps_log: bool) -> None:
    """All files for people, and run.json with costs and fingerprints: all of them new, or all as they were.

    keeps_log: the log is written as well as stage 0 writes it, with nothing injected, for --like.
    """
    keep_edited_list(folder, run["options"]["confirmed"])
    names = [SCORED_LOG, CLEANED_LOG, EDITS, REPORT, *(LOG_FILES if keeps_log else [])]
    log = cleaned_log.prepared.log
    # The last one takes its place first: by run.json `check_folder` knows the folder of a run that was killed here.
    with together(folder, [*names, RUN]) as paths:
        write_records(paths[SCORED_LOG], paths[CLEANED_LOG], paths[EDITS], cleaned_log)
        write_report(paths[REPORT], report)
        if keeps_log:
            write_interactions(paths["interactions.csv"], log, log.items, np.zeros(len(log.items), dtype=np.int64))
            write_keys(paths["users.csv"], paths["items.csv"], log)
        fingerprints = {name: fingerprint(paths[name]) for name in names}
        if keeps_log:
            fingerprints[LEARNED] = fingerprint_of_learned(folder)
        write_json(paths[RUN], run | {"fingerprints": fingerprints, "steps": steps.costs})

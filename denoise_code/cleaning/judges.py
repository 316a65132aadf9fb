"""Who judges the records of a log: what the log itself teaches, or what another log taught. What is learned or read is kept in a folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from denoise_code.cleaning.continued import ContinuedLog, Taught, continue_log, judge_continued
from denoise_code.cleaning.folder import LEARNED, LOG_FILES, RUN, SELF_TEST, is_as_written, judge_and_keep, run_of_cleaned_log
from denoise_code.cleaning.records import PreparedLog, title_vectors_of
from denoise_code.cleaning.self_test import JudgedCopy, judge_copy
from denoise_code.common.errors import InputError
from denoise_code.common.files import fingerprint, naming_tensors, read_json, save_tensors
from denoise_code.data_set.evidence_files import read_record
from denoise_code.data_set.interactions import users_having_items
from denoise_code.data_set.log.log import Log
from denoise_code.data_set.log.stored_log import read_stored_log
from denoise_code.evidence.calibration import CannotPlant
from denoise_code.evidence.learned import load_learned
from denoise_code.evidence.options import EvidenceOptions
from denoise_code.judging import JudgedDataSet
from denoise_code.stored_evidence import figures_of, ranking_of


@dataclass(frozen=True)
class Settings:
    """How a log is judged. base_model: what reads titles, None: nothing does."""

    window: int
    noise_share: float | None
    base_model: str | None
    seed: int


@dataclass(frozen=True)
class Judgement:
    """What a judge says of a log. copy: the self-test, None where there is none; users_of_item (n_items + 1,): who have each item."""

    judged: JudgedDataSet
    copy: JudgedCopy | None
    users_of_item: np.ndarray


@dataclass(frozen=True)
class JudgeByItself:
    """By what the log itself teaches; title vectors, r, what was learned and the self-test are kept in `folder`."""

    folder: Path
    settings: Settings
    prepared: PreparedLog

    def read_titles(self) -> np.ndarray | None:
        return title_vectors_of(self.prepared, self.settings.base_model, self.folder)

    def judge(self, vectors: np.ndarray | None) -> JudgedDataSet:
        """All interactions of `prepared`, and a replacement for each."""
        options = EvidenceOptions(self.settings.noise_share, seed=self.settings.seed)
        return judge_and_keep(self.folder, self.prepared, vectors, options)

    def self_test(self, vectors: np.ndarray | None, judged: JudgedDataSet) -> JudgedCopy | None:
        """The self-test; kept where it was made of the same. None where nothing can be planted into a part of the log."""
        made_of = f"{fingerprint(self.folder / LEARNED)} {judged.noise_share}"
        stored = read_copy(self.folder, made_of)
        if stored is None:
            window, seed = self.settings.window, self.settings.seed
            try:
                stored = judge_copy(self.prepared, judged.interactions.learned, vectors, judged.noise_share, window, seed)
            except CannotPlant as error:
                print(f"no self-test: {error}")
                return None
            write_copy(self.folder, stored, made_of)
        return stored

    def users_of_item(self) -> np.ndarray:
        """(n_items + 1,) how many users of the log have each item."""
        log = self.prepared.log
        return users_having_items(log.users, log.items, len(log.titles) - 1)


@dataclass(frozen=True)
class JudgeLike:
    """By what the log in the folder `like` taught, in its context. Vectors of new titles are kept in `folder`."""

    folder: Path
    settings: Settings
    like: Path
    taught: Taught
    continued: ContinuedLog

    @property
    def prepared(self) -> PreparedLog:
        return self.continued.prepared

    def read_titles(self) -> np.ndarray | None:
        return title_vectors_of(self.prepared, self.settings.base_model, self.folder, self.like)

    def judge(self, vectors: np.ndarray | None) -> JudgedDataSet:
        return judge_continued(self.continued, self.taught, vectors)

    def self_test(self, vectors: np.ndarray | None, judged: JudgedDataSet) -> JudgedCopy | None:
        """That of the log that taught, as it was kept: what is judged here has no part in it."""
        return read_copy(self.like, None)

    def users_of_item(self) -> np.ndarray:
        """(n_items + 1,) how many users of the old log and of the new one together have each item."""
        old, log = self.continued.old.interactions, self.prepared.log
        users, items = np.r_[old.users, log.users - 1], np.r_[old.items, log.items]  # old ones of users with new ones stand twice
        return users_having_items(users, items, len(log.titles) - 1)


def settings_like(like: Path, folder: Path, in_order: bool) -> Settings:
    """Those of the log in the folder `like`, by which new lines are judged that go into another folder.

    Raises InputError for a folder that no log was cleaned into, or whose files are not those of its run.json.
    """
    if not (like / RUN).exists():
        raise InputError(f"--like {like}: no {RUN}; expected the folder of a log that ./denoise.sh cleaned to its end")
    run = run_of_cleaned_log(like)
    if run is None:
        raise InputError(f"--like {like}: its {RUN} is of another kind; expected the folder of a log that ./denoise.sh cleaned")
    if first := run["options"].get("like"):
        raise InputError(
            f"--like {like}: was itself made with --like {first}; name that folder, or add the lines to its log and clean it"
        )
    if folder.resolve() == like.resolve():
        raise InputError(f"--like {like}: the files of these lines would go into the same folder; name another one with --out")
    for name in (*LOG_FILES, LEARNED):
        if not is_as_written(like / name, run["fingerprints"]):
            raise InputError(f"--like {like}: {name} is not the one that its {RUN} tells of; clean that log again")
    if run["in_order"] != in_order:
        raise InputError(
            f"--like {like}: that log was read {'with' if run['in_order'] else 'without'} --in_order, and so must this be"
        )
    settings = run["settings"] | {"noise_share": run["noise_share"]}
    if not run["reads_titles"]:
        settings["base_model"] = None
    return Settings(**settings)


def what_was_taught(like: Path, noise_share: float) -> Taught:
    """By the log in the folder `like`. InputError where another version of this code wrote its files, or a later run was killed."""
    try:
        record, learned = read_record(like), load_learned(like / LEARNED)
    except InputError as error:
        raise InputError(f"--like {like}: clean that log again ({error})") from None
    if not record["replacements"]:
        raise InputError(f"--like {like}: clean that log again (a later run of it did not end)")
    return Taught(learned, figures_of(record), np.array(ranking_of(record).weights), noise_share)


def continue_cleaned_log(like: Path, log: Log, window: int, where, in_order: bool) -> ContinuedLog:
    """The log in the folder `like`, continued by new records in file order; where(record) names one of them."""
    dates = read_json(like / RUN)["times_are_dates"]
    if dates != log.times_are_dates:
        kinds = ("dates", "numbers") if dates else ("numbers", "dates")
        raise InputError(f"--like {like}: the times there are {kinds[0]}, here they are {kinds[1]}")
    return continue_log(read_stored_log(like), log, window, where, in_order)


def read_copy(folder: Path, made_of: str | None) -> JudgedCopy | None:
    """The self-test that a folder keeps; None where there is none, or it was made of something else. made_of None: whatever it was."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / SELF_TEST, "np") as file:
            if made_of is not None and (file.metadata() or {}).get("made_of") != made_of:
                return None
            return JudgedCopy(file.get_tensor("r"), file.get_tensor("planted").astype(bool), file.get_tensor("users"))
    except (OSError, SafetensorError):
        return None


def write_copy(folder: Path, copy: JudgedCopy, made_of: str) -> None:
    arrays = {"r": copy.r, "planted": copy.planted.astype(np.uint8), "users": copy.users}
    with naming_tensors(folder / SELF_TEST):
        save_tensors(folder / SELF_TEST, arrays, {"made_of": made_of})

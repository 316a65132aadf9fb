"""evidence.safetensors and evidence.json of a denoised folder: what stage 2 says of every interaction, for stage 3 to read.

r is log(f_planted / f_log) of one kind of evidence: how much more often planted noise looks so than the log's own interactions
do. With a share pi of noise in the log, P(noise) = min(1, pi exp(r)).

A train interaction has one r of each kind and one replacement, whatever windows hold it. The history of a valid or test row is
judged from nothing at or after its target, so its r and replacements stand with the row.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from denoise_code.common.errors import InputError, one_line
from denoise_code.common.files import fingerprint_of_json, read_json, save_tensors, write_atomically, write_json
from denoise_code.data_set.catalogue import fingerprint_of_catalogue
from denoise_code.data_set.folder import noisy_name

ARRAYS, RECORD = "evidence.safetensors", "evidence.json"
FUSED = "fused"  # the kind that joins all others
VERSION = 7  # of both files and of what they are made by: others are made anew
BOUND_CONFIDENCE = 0.9  # with which the bound on the share of noise holds
KEYS_OF_RECORD = (
    "version", "kinds", "files", "rows", "catalogue", "noise_share", "share_bound", "features", "coefficients", "replacements",
    "detection", "sources", "options",
)  # fmt: skip


@dataclass(frozen=True)
class StoredEvidence:
    """The content of both files. n train interactions, N rows of at most W items in a file, H = W - 1.

    interaction_of_cell (N, W) int32: which interaction stands in each cell of a train row, -1 left of its first. users, places (n,) int32:
    whose interaction it is and which of the user's. train {kind: (n,) float32}, NaN where no train window holds one; histories
    {file: {kind: (N, H) float32}}, NaN left of a history's first item; train_replacements (n,) int32 and history_replacements
    {file: (N, H) int32} are item ids, 0 where there is none. record: evidence.json.
    """

    interaction_of_cell: np.ndarray
    users: np.ndarray
    places: np.ndarray
    train: dict[str, np.ndarray]
    histories: dict[str, dict[str, np.ndarray]]
    train_replacements: np.ndarray
    history_replacements: dict[str, np.ndarray]
    record: dict

    @property
    def kinds(self) -> list[str]:
        return list(self.train)

    @property
    def noise_share(self) -> float:
        """The share of noise pi that the replacements were made with, and the default of stage 3."""
        return self.record["noise_share"]


def noise_probability(r: np.ndarray, share: float) -> np.ndarray:
    """P(noise) = min(1, share exp(r)); NaN where r is (positive and unlabelled data: Elkan and Noto 2008)."""
    return np.minimum(share * np.exp(np.minimum(r, 80)), 1)  # exp(89) is no float32 any more


def fingerprint_of_rows(users: Iterable, items: np.ndarray) -> str:
    """SHA-256 of the rows of a file: users (N,) and items (N, W), 0 left of a row's first.

    The same in noisy and denoised folders, and however much padding there is.
    """
    is_item = items != 0
    digest = hashlib.sha256("\n".join(map(str, users)).encode())
    digest.update(is_item.sum(1).astype(np.int64).tobytes())
    digest.update(items[is_item].astype(np.int64).tobytes())
    return digest.hexdigest()


def fingerprint_of_evidence(record: dict) -> str:
    """SHA-256 of all that evidence was made of: r of the sources, replacements of the options too. record: evidence.json."""
    return fingerprint_of_json([record["sources"], record["options"]])


def write_evidence(folder: Path, evidence: StoredEvidence) -> None:
    """Both files, the record last: where it stands, the arrays are complete and its own."""
    from safetensors import SafetensorError

    tensors = {
        "train/rows": evidence.interaction_of_cell.astype(np.int32),
        "train/user": evidence.users.astype(np.int32),
        "train/place": evidence.places.astype(np.int32),
        "train/replacement": evidence.train_replacements.astype(np.int32),
    }
    tensors |= {f"train/{kind}": r.astype(np.float32) for kind, r in evidence.train.items()}
    for file, kinds in evidence.histories.items():
        tensors |= {f"{file}/{kind}": r.astype(np.float32) for kind, r in kinds.items()}
        tensors[f"{file}/replacement"] = evidence.history_replacements[file].astype(np.int32)
    try:
        # Both are written beside the old ones before either is renamed: a full disk leaves the old ones, whole and of each other.
        with write_atomically(folder / RECORD) as record, write_atomically(folder / ARRAYS) as arrays:
            save_tensors(arrays, tensors)
            write_json(record, evidence.record)
            (folder / RECORD).unlink(missing_ok=True)  # so that none stands beside arrays that are not its own
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: evidence cannot be written ({one_line(error)})") from None


def read_evidence(folder: Path) -> StoredEvidence:
    """Raises InputError with one line for a folder without evidence, and for files that are damaged or not ours."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    record = read_record(folder)
    try:
        tensors = load_file(folder / ARRAYS)
        kinds, files = record["kinds"], record["files"]
        return StoredEvidence(
            interaction_of_cell=tensors["train/rows"],
            users=tensors["train/user"],
            places=tensors["train/place"],
            train={kind: tensors[f"train/{kind}"] for kind in kinds},
            histories={file: {kind: tensors[f"{file}/{kind}"] for kind in kinds} for file in files},
            train_replacements=tensors["train/replacement"],
            history_replacements={file: tensors[f"{file}/replacement"] for file in files},
            record=record,
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise not_ours(folder, error) from None


def read_record(folder: Path) -> dict:
    """evidence.json alone; InputError as of `read_evidence`."""
    if not (folder / RECORD).exists():
        raise InputError(f"{folder}: no {RECORD}; {how_to_make(folder)}")
    try:
        record = read_json(folder / RECORD)
        absent = [key for key in KEYS_OF_RECORD if key not in record]
        if absent:
            raise KeyError(f"no {absent[0]}")
        version = record["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise not_ours(folder, error) from None
    if version != VERSION:
        raise InputError(f"{folder}/{RECORD}: of version {version}, this code reads {VERSION}; {how_to_make(folder)}")
    return record


def read_record_with_arrays(folder: Path) -> dict:
    """evidence.json of evidence that is all there: of the arrays only the names are read. InputError as of `read_evidence`."""
    from safetensors import SafetensorError, safe_open

    record = read_record(folder)
    try:
        expected = {"train/rows", "train/user", "train/place"}
        for file in ("train", *record["files"]):
            expected |= {f"{file}/{name}" for name in (*record["kinds"], "replacement")}
        with safe_open(folder / ARRAYS, "np") as arrays:
            absent = expected.difference(arrays.keys())
        if absent:
            raise KeyError(min(absent))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise not_ours(folder, error) from None
    return record


def not_ours(folder: Path, error: Exception) -> InputError:
    """For files that are damaged or somebody else's."""
    return InputError(
        f"{folder}: {RECORD} and {ARRAYS} are not what generate_denoised.py wrote ({one_line(error)}); remove {RECORD}, then "
        f"{how_to_make(folder)}"
    )


def how_to_make(folder: Path) -> str:
    """What makes the evidence of a folder, for messages."""
    noisy = folder.parent / noisy_name(folder.name)
    command = f"python generate_denoised.py --noise_dataset_path {noisy}"
    if folder.name.endswith("_0") or folder == noisy:
        name = noisy.name.replace("_noise_", "_denoise_") + "_0"
        return f"{command} makes it, in {name} (--language_model none: without a language model)"
    return f"{command} with the --denoise_model_path of this folder makes it"


def check_catalogue(folder: Path, evidence: StoredEvidence, titles: list[str]) -> None:
    """Refuse evidence that was made for other items. titles (n_items + 1,)."""
    if evidence.record["catalogue"] != fingerprint_of_catalogue(titles):
        raise InputError(
            f"{folder}/{RECORD}: made for another catalogue than the rows have now; remove it, {how_to_make(folder)}"
        )


def check_rows(folder: Path, evidence: StoredEvidence, file: str, users: Iterable, items: np.ndarray) -> None:
    """Refuse evidence that was made for other rows than these. file: name without .csv, `train` for train rows of any name."""
    expected = evidence.record["rows"].get(file)
    if expected is None:
        files = ", ".join(evidence.record["rows"])
        raise InputError(f"{folder}/{RECORD}: made for the rows of {files}, not for {file}.csv")
    if fingerprint_of_rows(users, items) != expected:
        raise InputError(f"{folder}/{RECORD}: made for other rows than {file}.csv has now; remove it, {how_to_make(folder)}")

"""denoise_code/data_set/evidence_files.py: what stage 2 writes is what stage 3 reads, and nothing else is read."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from denoise_code.common.errors import InputError
from denoise_code.data_set.catalogue import fingerprint_of_catalogue
from denoise_code.data_set.evidence_files import (
    ARRAYS,
    KEYS_OF_RECORD,
    RECORD,
    VERSION,
    StoredEvidence,
    check_catalogue,
    check_rows,
    fingerprint_of_rows,
    read_evidence,
    read_record_with_arrays,
    write_evidence,
)

USERS, ITEMS = ["a", "b"], np.array([[0, 1, 2], [3, 4, 5]])


def some_evidence():
    """Two train rows over five interactions, and one history of two places."""
    r = np.array([0.5, -1, np.nan, 2, 0], dtype=np.float32)
    history = np.array([[np.nan, 0.25]], dtype=np.float32)
    record = dict.fromkeys(KEYS_OF_RECORD, {}) | {
        "version": VERSION,
        "kinds": ["collaborative", "fused"],
        "files": ["test_5000"],
        "rows": {"train": fingerprint_of_rows(USERS, ITEMS), "test_5000": fingerprint_of_rows(["a"], np.array([[0, 3]]))},
        "noise_share": 0.07,
    }
    return StoredEvidence(
        interaction_of_cell=np.array([[-1, 0, 1], [2, 3, 4]]),
        users=np.array([0, 0, 1, 1, 1]),
        places=np.array([4, 5, 0, 1, 2]),
        train={"collaborative": r, "fused": 2 * r},
        histories={"test_5000": {"collaborative": history, "fused": history + 1}},
        train_replacements=np.array([7, 0, 8, 9, 1]),
        history_replacements={"test_5000": np.array([[0, 6]])},
        record=record,
    )


def test_round_trip(tmp_path):
    before = some_evidence()
    write_evidence(tmp_path, before)
    after = read_evidence(tmp_path)
    for name in ("interaction_of_cell", "users", "places", "train_replacements"):
        assert getattr(after, name).dtype == np.int32 and (getattr(after, name) == getattr(before, name)).all()
    assert after.kinds == ["collaborative", "fused"] and after.noise_share == 0.07 and after.record == before.record
    for kind in after.kinds:
        assert after.train[kind].dtype == np.float32 and after.train[kind].tobytes() == before.train[kind].tobytes()
        assert np.array_equal(after.histories["test_5000"][kind], before.histories["test_5000"][kind], equal_nan=True)
    assert after.history_replacements["test_5000"].tolist() == [[0, 6]]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ARRAYS, RECORD])


def test_a_folder_without_evidence_names_the_command(tmp_path):
    folder = tmp_path / "Toy_denoise_user0.1_5000_2000"
    folder.mkdir()
    with pytest.raises(InputError) as error:
        read_evidence(folder)
    command = f"python generate_denoised.py --noise_dataset_path {tmp_path / 'Toy_noise_user0.1'}"
    assert str(error.value) == f"{folder}: no {RECORD}; {command} with the --denoise_model_path of this folder makes it"
    for name in ("Toy_denoise_user0.1_0", "Toy_noise_user0.1"):  # a run without an adapter makes it
        with pytest.raises(InputError, match="makes it, in Toy_denoise_user0.1_0"):
            read_evidence(tmp_path / name)


def truncate(folder):
    path = folder / ARRAYS
    path.write_bytes(path.read_bytes()[:-20])


def take_tensor_out(folder):
    tensors = load_file(folder / ARRAYS)
    del tensors["test_5000/fused"]
    save_file(tensors, folder / ARRAYS)


def take_field_out(folder):
    record = json.loads((folder / RECORD).read_text())
    del record["kinds"]
    (folder / RECORD).write_text(json.dumps(record))


DAMAGES = {
    "no safetensors": lambda folder: (folder / ARRAYS).write_bytes(b"junk"),
    "cut": truncate,
    "absent": lambda folder: (folder / ARRAYS).unlink(),
    "no such tensor": take_tensor_out,
    "no JSON": lambda folder: (folder / RECORD).write_text('{"kinds": ['),
    "no object": lambda folder: (folder / RECORD).write_text("[1, 2]"),
    "no kinds": take_field_out,
    "no text": lambda folder: (folder / RECORD).write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line(tmp_path, damage):
    write_evidence(tmp_path, some_evidence())
    assert read_record_with_arrays(tmp_path) == some_evidence().record
    DAMAGES[damage](tmp_path)
    for read in (read_evidence, read_record_with_arrays):
        with pytest.raises(InputError) as error:
            read(tmp_path)
        message = str(error.value)
        assert message.startswith(f"{tmp_path}: {RECORD} and {ARRAYS} are not what generate_denoised.py wrote")
        assert f"remove {RECORD}, then python generate_denoised.py" in message and "\n" not in message


def test_a_record_of_another_version_or_without_a_key_is_refused(tmp_path):
    evidence = some_evidence()
    evidence.record["version"] = VERSION + 1
    write_evidence(tmp_path, evidence)
    with pytest.raises(InputError, match=f"of version {VERSION + 1}"):
        read_evidence(tmp_path)
    for key in KEYS_OF_RECORD:
        evidence = some_evidence()
        del evidence.record[key]
        write_evidence(tmp_path, evidence)
        with pytest.raises(InputError, match=f"no {key}"):
            read_evidence(tmp_path)


def test_another_catalogue_is_refused(tmp_path):
    evidence = some_evidence()
    evidence.record["catalogue"] = fingerprint_of_catalogue(["", "Heat"])
    check_catalogue(tmp_path, evidence, ["", "Heat"])
    with pytest.raises(InputError, match="another catalogue"):
        check_catalogue(tmp_path, evidence, ["", "Cold"])


def test_the_record_stands_only_beside_its_own_arrays(tmp_path, monkeypatch):
    """A run that dies while it writes leaves the old files; one that dies between the two leaves none that says it is whole."""
    write_evidence(tmp_path, some_evidence())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.save_file", die)
        with pytest.raises(KeyboardInterrupt):
            write_evidence(tmp_path, some_evidence())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    rename = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: die() if target.name == RECORD else rename(path, target))
    with pytest.raises(KeyboardInterrupt):
        write_evidence(tmp_path, some_evidence())
    assert [path.name for path in tmp_path.iterdir()] == [ARRAYS]


def test_rows_that_evidence_was_made_for(tmp_path):
    folder = tmp_path / "Toy_denoise_user0.1_0"
    folder.mkdir()
    evidence = some_evidence()
    check_rows(folder, evidence, "train", USERS, ITEMS)
    check_rows(folder, evidence, "test_5000", np.array(["a"]), np.array([[0, 3]], dtype=np.int32))
    other = ITEMS.copy()
    other[1, 1] = 9
    command = f"python generate_denoised.py --noise_dataset_path {tmp_path / 'Toy_noise_user0.1'} makes it, in {folder.name}"
    for users, items in ((USERS, other), (["b", "a"], ITEMS), (USERS[:1], ITEMS[:1]), (USERS, ITEMS[:, 1:])):
        with pytest.raises(InputError) as error:
            check_rows(folder, evidence, "train", users, items)
        message = f"{folder}/{RECORD}: made for other rows than train.csv has now; remove it, {command}"
        assert str(error.value).startswith(message)
    with pytest.raises(InputError) as error:
        check_rows(folder, evidence, "test", ["a"], np.array([[0, 3]]))
    assert str(error.value) == f"{folder}/{RECORD}: made for the rows of train, test_5000, not for test.csv"


def test_fingerprints_tell_users_from_items():
    """Of rows as they are, whatever type holds them; another border between two users' names is another file."""
    assert fingerprint_of_rows(["1", "2"], ITEMS) == fingerprint_of_rows(np.array([1, 2]), ITEMS.astype(np.int32))
    assert fingerprint_of_rows(["1", "2"], ITEMS) != fingerprint_of_rows(["1", "3"], ITEMS)
    assert fingerprint_of_rows(["a", "b"], ITEMS) != fingerprint_of_rows(["a", "b"], ITEMS.reshape(3, 2))

"""denoise_code/evidence/learned.py: what was learned judges again as it did, from the file too, and other logs as well."""

import numpy as np
import pytest
from made_up_logs import N_ITEMS, grouped_data, is_noise, nothing_unseen, title_vectors

from denoise_code.common.errors import InputError
from denoise_code.evidence import cooccurrence, fit
from denoise_code.evidence.detection import auc
from denoise_code.evidence.learned import VERSION, Learned, apply_learned, learn_models, load_learned, save_learned

pytestmark = pytest.mark.usefixtures("quick_evidence")


def learn(data, vectors):
    """(Evidence, Learned, counts)"""
    counts, halvings = cooccurrence.count(data.interactions, data.n_items, data.train.shape[1]), data.interactions.halvings()
    models = learn_models(data, vectors, halvings)
    evidence = fit.learn_evidence(data, models.kinds(counts, vectors, halvings), counts, nothing_unseen(data.n_items))
    return evidence, Learned(models, {kind: result.log_ratio for kind, result in evidence.kinds.items()}), counts


@pytest.mark.parametrize("vectors", [None, title_vectors()], ids=["items", "titles"])
def test_the_same_log_is_judged_the_same_from_the_file(tmp_path, vectors):
    data = grouped_data()
    evidence, learned, counts = learn(data, vectors)
    save_learned(tmp_path / "learned.safetensors", learned)
    restored = load_learned(tmp_path / "learned.safetensors")
    again = apply_learned(data, restored, counts, vectors, data.interactions.halvings())
    kinds = ["collaborative", *([] if vectors is None else ["semantic"]), "detector", "fused"]
    assert list(evidence.kinds) == list(again) == kinds
    for kind, result in evidence.kinds.items():
        assert result.train.tobytes() == again[kind].tobytes(), kind


def test_noise_of_another_log_is_found_by_what_was_learned_here():
    """Another log of users with the same names and wants; its items are counted in the log that was learned from."""
    evidence, learned, counts = learn(grouped_data(0), title_vectors())
    other = grouped_data(1)
    r = apply_learned(other, learned, counts, title_vectors(), other.interactions.halvings())
    in_train = other.interactions.in_train
    truth = is_noise(other, seed=1)[in_train]
    assert not np.isnan(r["fused"][in_train]).any() and np.isnan(r["fused"][~in_train]).all()
    assert auc(truth, r["fused"][in_train]) > 0.8


def test_a_file_that_is_not_ours_is_one_line(tmp_path):
    path = tmp_path / "learned.safetensors"
    with pytest.raises(InputError, match="learned.safetensors: cannot be read as what evidence has learned"):
        load_learned(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="cannot be read"):
        load_learned(path)
    _, learned, _ = learn(grouped_data(), None)
    save_learned(path, learned)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        load_learned(path)
    path.write_bytes(whole.replace(rf"\"version\": {VERSION}".encode(), rb"\"version\": 2"))
    with pytest.raises(InputError, match=f"of version 2, this code reads {VERSION}"):
        load_learned(path)


def test_the_catalogue_may_go_on():
    """Items that the log had not are judged by their titles."""
    data = grouped_data()
    _, learned, counts = learn(data, title_vectors())
    more = np.concatenate([title_vectors(), title_vectors()[1:9]])
    counts = cooccurrence.count(data.interactions, N_ITEMS + 8, data.train.shape[1])
    r = apply_learned(data, learned, counts, more, data.interactions.halvings())
    assert np.isfinite(r["fused"][data.interactions.in_train]).all()

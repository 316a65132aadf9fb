"""denoise_code/evidence: counts against a slow version, no leak, calibration."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import sasrec_command, sasrec_refused, write_denoised
from filter import read_sources

from denoise_code.common.errors import InputError
from denoise_code.data_set import padded_rows
from denoise_code.data_set.catalogue import read_titles
from denoise_code.data_set.padded_rows import Split, read_split, read_vectors
from denoise_code.evidence import counts, detection, features, fit, planted_windows
from denoise_code.evidence.similarity import Similarity


def split_of(items, users=None, name="train.csv", mask=None):
    items = np.array(items)
    users = np.array(users if users is not None else np.arange(len(items)))
    mask = np.zeros_like(items) if mask is None else mask
    return Split(Path(name), users, items, mask, items)


def sliding(logs, width=5, named=False):
    """Train windows of {user: interactions}, in the order of prepare_noise_data.py; named: rows tell their interactions."""
    rows, users, ends = [], [], []
    for user, log in logs.items():
        for end in range(min(len(log), width), len(log) + 1):
            window = log[max(0, end - width) : end]
            rows.append([0] * (width - len(window)) + window)
            users.append(user)
            ends.append(end)
    split = split_of(rows, users)
    return replace(split, places=np.array(ends)[:, None] - width + np.arange(width)) if named else split


def slow_counts(logs, n_items, width=5):
    """Pairs of interactions less than `width` apart in one log, each once, by user."""
    pairs = {}
    for user, log in logs.items():
        for i, a in enumerate(log):
            for b in log[i + 1 : i + width]:
                key = (user, min(a, b), max(a, b))
                pairs[key] = pairs.get(key, 0) + 1
    return pairs


def random_logs(seed, users=12, n_items=15):
    rng = np.random.default_rng(seed)
    return {f"u{user}": rng.integers(1, n_items + 1, size=int(rng.integers(2, 14))).tolist() for user in range(users)}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_counts_against_a_slow_version(seed, named):
    logs = random_logs(seed)
    train, pairs = sliding(logs, named=named), slow_counts(logs, 15)
    shuffled = np.random.default_rng(seed).permutation(len(train.users))
    for split in (train, padded_rows.pick(train, shuffled)):
        table = counts.Counts.of(split, 15)
        single, together = table.of_others(split.users, split.items)
        for row in range(len(split.items)):
            for i in range(5):
                if split.items[row, i]:
                    others = [log.count(split.items[row, i]) for user, log in logs.items() if user != split.users[row]]
                    assert single[row, i] == sum(others)
                for j in range(i + 1, 5):
                    a, b = sorted(split.items[row, [i, j]].tolist())
                    if a:
                        expected = sum(n for (user, x, y), n in pairs.items() if (x, y) == (a, b) and user != split.users[row])
                        assert together[row, i, j] == together[row, j, i] == expected


def test_named_interactions_need_no_overlap():
    """Windows that lie five apart share no half of themselves; what they do share counts once all the same."""
    log = list(range(1, 12))
    ends = [5, 9, 11]
    rows = split_of([log[end - 5 : end] for end in ends], users=["u"] * 3)
    named = replace(rows, places=np.array(ends)[:, None] - 5 + np.arange(5))
    assert counts.new_positions(named).astype(int).tolist() == [[1] * 5, [0, 1, 1, 1, 1], [0, 0, 0, 1, 1]]
    backwards = padded_rows.pick(named, np.array([2, 1, 0]))
    assert (counts.new_positions(backwards)[::-1] == counts.new_positions(named)).all()


def test_features_by_hand():
    """Items 1 and 2 go together in three other users' windows; 3 never meets them."""
    train = split_of([[0, 1, 2]] * 3 + [[0, 3, 4]] * 3, users=list("abcdef"))
    table = counts.Counts.of(train, 5)
    asked = split_of([[1, 2, 3], [5, 1, 2]], users=["new", "a"])
    found = features.collaborative_features(asked, table)
    expected_12 = np.log1p(3) - np.log1p(3 * 3 * (2 * 6 / 12) / 12)  # 6 pairs among 12 interactions
    expected_13 = np.log1p(0) - np.log1p(3 * 3 / 12)
    assert found[0, 0] == pytest.approx([(expected_12 + expected_13) / 2, expected_13, -np.log1p(3)], rel=1e-5)
    assert found[0, 2] == pytest.approx([expected_13, expected_12, -np.log1p(3)], rel=1e-5)  # 2 and 3 never met either
    assert found[1, 0, [0, 2]].tolist() == [0, 0]  # item 5 was never seen: neutral
    assert found[1, 1, 2] == pytest.approx(-np.log1p(2))  # user a's own interaction left out


def test_own_windows_never_speak_for_themselves():
    """Whatever a user's windows hold, their scores come from other users."""
    logs = random_logs(1)
    train = sliding(logs)
    mine = train.users == "u3"
    alone = counts.Counts.of(padded_rows.pick(train, ~mine), 15)
    everyone = counts.Counts.of(train, 15)
    asked = padded_rows.pick(train, mine)
    single, together = everyone.of_others(asked.users, asked.items)
    single_alone, together_alone = alone.of_others(asked.users, asked.items)
    real = asked.items != 0
    assert (single[real] == single_alone[real]).all()
    assert (together[real[:, :, None] & real[:, None, :]] == together_alone[real[:, :, None] & real[:, None, :]]).all()


def load(folder, name):
    return read_split(folder / f"{name}.csv", read_titles(folder), 10, "needed")


def sources_of(denoised, train=None, **changed):
    return replace(read_sources(denoised, train or load(denoised, "train"), 30, 10), **changed)


ALL = [*features.FEATURES, "collaborative+semantic", "fused"]


@pytest.mark.parametrize("kind", ALL)
def test_probabilities_find_noise_and_are_calibrated(denoised, kind):
    from sklearn.metrics import roc_auc_score

    fit_on, held_out = fit.halves(load(denoised, "planted"))
    assert not set(fit_on.users) & set(held_out.users)
    found = fit.Evidence(kind, sources_of(denoised), fit_on)
    test = load(denoised, "test_5000")
    prob = found.probabilities(test)
    assert (np.isnan(prob) == ~test.editable).all() and np.nanmin(prob) >= 0 and np.nanmax(prob) <= 1
    assert roc_auc_score(test.mask[test.editable], prob[test.editable]) > (0.9 if kind in ("llm", "fused") else 0.65)
    held = found.probabilities(held_out)[held_out.editable]
    assert detection.expected_calibration_error((held_out.mask == 2)[held_out.editable], held) < 0.06


def test_labels_never_enter_the_features(denoised):
    """Permuting mask and clean titles of train and test changes no probability; valid and test rows are no input at all."""
    rng = np.random.default_rng(0)

    def scrambled(split):
        return replace(split, mask=rng.permutation(split.mask.ravel()).reshape(split.mask.shape), clean=split.items[::-1])

    train, test, planted = (load(denoised, name) for name in ("train", "test_5000", "planted"))
    for kind in ALL:
        a = fit.Evidence(kind, sources_of(denoised, train), planted)
        b = fit.Evidence(kind, sources_of(denoised, scrambled(train)), planted)
        np.testing.assert_array_equal(a.probabilities(test), b.probabilities(scrambled(test)))
        target = replace(test, items=np.c_[test.items[:, :-1], np.full(len(test.items), 7)])
        np.testing.assert_array_equal(a.probabilities(test), a.probabilities(target))  # nor does the next item


def test_calibration_error_by_hand():
    truth, prob = np.array([1, 0, 0, 0, 1, 1]), np.array([0.15, 0.15, 0.15, 0.15, 0.95, 0.75])
    assert detection.expected_calibration_error(truth, prob) == pytest.approx((abs(1 - 0.6) + 0.05 + 0.25) / 6)


def test_bad_planted_rows(denoised, tmp_path, capsys):
    train, planted = load(denoised, "train"), load(denoised, "planted")
    with pytest.raises(InputError, match="no planted.csv with noise_prob"):
        fit.Evidence("llm", sources_of(denoised, planted=None))
    with pytest.raises(InputError, match="no title_vectors.safetensors"):
        fit.Evidence("semantic", sources_of(denoised, vectors=None))
    with pytest.raises(InputError, match="drawn by popularity"):
        sources_of(denoised, planted=replace(planted, drawn=None)).planted_by("llm", popular=True)
    with pytest.raises(InputError, match="nothing to fit on"):
        fit.Evidence("llm", sources_of(denoised, train), replace(planted, mask=np.zeros_like(planted.mask)))
    flat = replace(planted, noise_prob=np.where(np.isnan(planted.noise_prob), np.nan, -3.0))
    prob = fit.Evidence("llm", sources_of(denoised, train), flat).probabilities(flat)
    share = (planted.mask == 2)[planted.editable].mean()  # raw score says nothing; only the length of a window varies
    assert np.nanmean(prob) == pytest.approx(share, abs=0.02)
    write_denoised(tmp_path, rows=(30, 20, 20))
    sasrec_refused(capsys, sasrec_command(tmp_path, "--denoise_category", "all", "--evidence", "llm"), "no planted.csv")


def test_collaborative_evidence_on_movielens(ml_100k):
    """Real data: co-occurrence alone finds the injected noise, and its probabilities are right on planted windows."""
    from sklearn.metrics import roc_auc_score

    titles = read_titles(ml_100k)
    train, test = (read_split(ml_100k / f"{name}.csv", titles, 10, "ignored") for name in ("train", "test_5000"))
    found = fit.Evidence("collaborative", fit.Sources(train, len(titles) - 1))
    assert roc_auc_score(test.mask[test.editable], found.probabilities(test)[test.editable]) > 0.84
    planted = planted_windows.plant(train, len(titles) - 1, 3000, seed=9)
    prob = found.probabilities(planted)[planted.editable]
    assert detection.expected_calibration_error((planted.mask == 2)[planted.editable], prob) < 0.03


def test_semantic_features_by_hand():
    vectors = np.array([[0, 0], [1, 0], [0.6, 0.8], [0, 1]], dtype=np.float16)
    alike = Similarity(np.stack([vectors, vectors]))
    asked = split_of([[0, 1, 2, 3], [0, 0, 1, 1]], name="test.csv")
    found = features.semantic_features(asked, alike)
    assert np.isnan(found[:, [0, 3]]).all() and np.isnan(found[1, 1]).all()  # padding and targets
    assert found[0, 1] == pytest.approx([0.6, 0.6, 0], abs=1e-3) == found[0, 2]  # the target is none of the others
    assert found[1, 2].tolist() == [0, 0, 0]  # alone
    found = features.semantic_features(replace(asked, path=Path("train.csv")), alike)
    assert found[0, 2] == pytest.approx([0.8, 0.7, 0], abs=1e-3) and found[1, 2] == pytest.approx([1, 1, 0])
    assert found[0, 1] == pytest.approx([0.6, 0.3, 0.8], abs=1e-3)


@pytest.mark.parametrize("n_items", [400, 9000])
def test_planting_by_popularity_hides_popularity(n_items):
    """How rare an item is tells uniform noise, and nothing of noise that is as popular; most of 9,000 items have one or two users."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    train = split_of(1 + (n_items * rng.random((4000, 6)) ** 2).astype(int))
    table = counts.Counts.of(train, n_items)
    for popular, low, high in ((None, 0.6, 1), (table, 0.48, 0.52)):
        planted = planted_windows.plant(train, n_items, 3000, 1, popular)
        rarity = features.collaborative_features(planted, table)[..., 2]
        assert low < roc_auc_score((planted.mask == 2).ravel(), rarity.ravel()) < high
        changed = (planted.mask == 2).sum(1)
        assert (changed == 1).all() and set(planted.drawn) == {"uniform" if popular is None else "popularity"}


@pytest.mark.parametrize(
    "vectors, message",
    [
        (np.ones((3, 2)), "shape (3, 2), expected one vector for each of 2 items"),
        (np.ones(2), "shape (2,)"),
        (np.ones((2, 0)), "shape (2, 0)"),
        (np.array([[1.0, 0], [np.nan, 0]]), "the vector of item 2 is not of length 1"),
        (np.array([[2.0, 0], [1, 0]]), "the vector of item 1 is not of length 1"),
    ],
)
def test_bad_vectors(tmp_path, vectors, message):
    from safetensors.numpy import save_file

    save_file({"vectors": vectors}, tmp_path / "title_vectors.safetensors")
    with pytest.raises(InputError) as error:
        read_vectors(tmp_path, 2)
    assert message in str(error.value)
    (tmp_path / "title_vectors.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="not the title vectors"):
        read_vectors(tmp_path, 2)


def test_detection_figures_equal_the_librarys():
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    truth, scored = rng.random((60, 8)) < 0.2, rng.random((60, 8)) < 0.8
    score = np.where(scored, rng.integers(5, size=(60, 8)), np.nan)  # many ties
    mixed = [(t[s], v[s]) for t, v, s in zip(truth, score, scored) if 0 < t[s].sum() < s.sum()]
    auc, precision = detection.within_windows(truth & scored, score, scored)
    assert auc == pytest.approx([roc_auc_score(t, v) for t, v in mixed])
    assert precision == pytest.approx([average_precision_score(t, v) for t, v in mixed])
    times = rng.integers(3, size=scored.sum())
    expected = roc_auc_score(truth[scored], score[scored], sample_weight=times)
    assert detection.weighted_auc(truth[scored], score[scored].astype(int), times) == pytest.approx(expected)


def test_figures_that_do_not_exist():
    """Of histories of one item none holds noise and something else; where all is noise, or nothing, there is no AUC at all."""
    scored = np.array([[True, False]] * 4)
    truth, score = (
        np.array([[True, False], [True, False], [False, False], [False, False]]),
        np.array([[4.0, 0], [2, 0], [3, 0], [1, 0]]),
    )
    figures = detection.detection_row(truth, score, scored)
    assert figures["AUC in window"] is None and figures["AP in window"] is None
    assert figures["AUC"] == 0.75 and figures["AP"] == pytest.approx((1 + 2 / 3) / 2)
    for same in (True, False):
        assert set(detection.detection_row(np.full((4, 2), same), score, scored).values()) == {None}
    assert detection.interval(np.array([])) is None and detection.interval(np.arange(101.0)) == [2.5, 97.5]

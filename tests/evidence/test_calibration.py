"""denoise_code/evidence/calibration.py and fit.py: a probability that means noise, and nothing that leaks into it."""

import numpy as np
import pytest
from made_up_logs import GROUPS, N_ITEMS, grouped_data, is_noise, nothing_unseen, rows_of, some_windows, title_vectors

from denoise_code.common.statistics import precision_and_recall
from denoise_code.data_set.evidence_files import noise_probability
from denoise_code.data_set.interactions import build_data_set
from denoise_code.evidence import figures, fit
from denoise_code.evidence.calibration import (
    CannotPlant,
    fit_log_ratio,
    items_in_windows,
    plant,
    plant_in_histories,
    ratio_bound,
    share_bound,
    term_names,
)
from denoise_code.evidence.cooccurrence import Collaborative, count
from denoise_code.evidence.detection import auc, bootstrap_aucs, brier_score, expected_calibration_error
from denoise_code.evidence.features import Planted, WindowKind
from denoise_code.evidence.figures import aucs_of_planted
from denoise_code.evidence.learned import Models
from denoise_code.evidence.title_similarity import learn_title_maps


def detector(users, items):
    """A kind that reads windows: how many other items of the group there are."""
    groups = items % GROUPS
    alike = (groups[:, :, None] == groups[:, None, :]) & (items != 0)[:, None, :]
    return alike.sum(2)[:, :, None].astype(np.float32)


def evidence_of(data, llm=None):
    """By co-occurrence, titles and a detector that needs no learning."""
    counts, halvings = count(data.interactions, data.n_items, data.train.shape[1]), data.interactions.halvings()
    kinds = Models(title_maps_of(data, halvings), []).kinds(counts, title_vectors(), halvings)
    return fit.learn_evidence(
        data, kinds | {"detector": WindowKind(("detector",), detector)}, counts, nothing_unseen(data.n_items), llm
    )


def title_maps_of(data, halvings):
    return learn_title_maps(title_vectors(), data.train_items, halvings[0, data.interactions.users[data.train[:, -1]]])


def evidence_by_co_occurrence(data, llm=None):
    counts = count(data.interactions, data.n_items, data.train.shape[1])
    return fit.learn_evidence(data, {"collaborative": Collaborative(counts)}, counts, nothing_unseen(data.n_items), llm)


@pytest.fixture(scope="module")
def learned():
    data = grouped_data()
    return data, evidence_of(data)


def test_planted_interactions_stand_in_no_window_of_theirs():
    data = some_windows(0, n_items=40)
    counts = count(data.interactions, 40, 5)
    planted = plant(data, counts, nothing_unseen(40), 500, 0.5, np.random.default_rng(0))
    for row, item in zip(planted.rows.tolist(), planted.items.tolist()):
        held = {other for window in data.train.tolist() if row in window for other in window if other >= 0}
        assert held and item not in data.interactions.items[sorted(held)].tolist()
    drawn = np.bincount(planted.rows, minlength=len(data.interactions))[data.interactions.in_train]
    assert drawn.max() - drawn.min() <= 1  # uniform over interactions: each as often as any other


def test_items_by_popularity_are_as_popular_as_the_rest():
    rng = np.random.default_rng(0)
    logs = [(f"u{user}", 0, (1 + 300 * rng.random(2) ** 2).astype(int).tolist()) for user in range(4000)]
    data = build_data_set(rows_of(logs, starts=[0] * len(logs)), {}, 300)
    counts = count(data.interactions, 300, 2)
    popular, uniform = (plant(data, counts, nothing_unseen(300), 4000, share, rng).items for share in (1.0, 0.0))
    of_log = counts.item_counts[data.interactions.items].mean()
    assert counts.item_counts[popular].mean() == pytest.approx(of_log, rel=0.15)  # a little less: not what the window holds
    assert counts.item_counts[uniform].mean() < of_log / 2


def test_a_window_of_all_items_cannot_be_planted():
    data = build_data_set(rows_of([("a", 0, [1, 2, 3])], starts=[0]), {}, 3)
    with pytest.raises(CannotPlant, match="nearly all of the 3 items"):
        plant(data, count(data.interactions, 3, 3), nothing_unseen(3), 2, 0, np.random.default_rng(0))
    with pytest.raises(CannotPlant, match="nearly all of the 2 items"):
        data = build_data_set(rows_of([("a", 0, [1, 2, 2])], starts=[0]), {}, 2)
        plant_in_histories(data, nothing_unseen(2), 5, np.random.default_rng(0))


def test_items_in_windows_by_hand():
    data = build_data_set(rows_of([("a", 0, [1, 2, 3]), ("a", 1, [2, 3, 4]), ("b", 0, [5, 6])], starts=[0, 1, 0]), {}, 6)
    assert items_in_windows(data, np.array([0, 2, 4])).tolist() == [[0, 0, 1, 2, 3], [1, 2, 3, 4, 0], [0, 0, 5, 6, 0]]


def test_r_is_the_log_ratio_of_densities():
    """Two normal distributions one deviation apart: r = x - 1/2, however many there are of each."""
    rng = np.random.default_rng(0)
    for planted, log in ((20_000, 20_000), (5_000, 40_000)):
        ratio = fit_log_ratio(rng.normal(1, 1, (planted, 1)), rng.normal(0, 1, (log, 1)))
        asked = np.array([[-1.0], [0.0], [1.0], [2.0], [np.nan]])
        assert ratio.of(asked) == pytest.approx([-1.5, -0.5, 0.5, 1.5, np.nan], abs=0.2, nan_ok=True)
    assert ratio.of(asked[:4].reshape(2, 2, 1)).shape == (2, 2) and len(term_names(("x",))) == len(ratio.weights)


def test_r_ends_where_all_is_noise():
    """A tenth of the log is planted-like and nothing else is near it: r is log 10 there, P(noise) 1."""
    rng = np.random.default_rng(0)
    planted = rng.normal(6, 1, (10_000, 1))
    log = np.r_[rng.normal(0, 1, (18_000, 1)), rng.normal(6, 1, (2_000, 1))]
    r = fit_log_ratio(planted, log).of(np.array([[6.0], [9.0], [0.0]]))
    assert r[:2] == pytest.approx([np.log(10)] * 2, abs=0.15) and r[1] > r[0]
    assert noise_probability(r, 0.1) == pytest.approx([1, 1, 0], abs=0.1)


def test_noise_probability_by_hand():
    r = np.array([np.log(2), 0, 10, np.nan])
    assert noise_probability(r, 0.1) == pytest.approx([0.2, 0.1, 1, np.nan], nan_ok=True)
    assert (noise_probability(r, 0)[:3] == 0).all()


@pytest.mark.parametrize("share", [0, 0.1, 0.4])
def test_the_bound_holds_and_is_near(share):
    """Of 40 draws at most a few are below the truth (confidence 90 %); where noise stands apart it is near."""
    bounds = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        noise = rng.random(10_000) < share
        bounds.append(share_bound(rng.normal(noise * 4.0), rng.normal(4.0, 1, 5_000), rng))
    assert sum(bound < share for bound in bounds) <= 7
    assert np.median(bounds) < share + 0.03


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds_where_the_log_has_means_over_windows(seed):
    """A planted interaction has the score of one window. Means over ten spread less, and with these the bounds were 0.06 to 0.18."""
    rng = np.random.default_rng(seed)
    noise = rng.random(20_000) < 0.2
    scores = rng.normal(noise * 1.5, 0.7)[:, None] + rng.normal(size=(20_000, 10))
    planted = rng.normal(1.5, np.hypot(0.7, 1), (1000, 1))
    to_fit, log_to_fit = np.arange(1000) < 500, np.arange(20_000) < 10_000
    means, one_window = scores.mean(1, keepdims=True), scores[:, :1]
    kind = fit.fit_kind(("score",), means, planted, {}, None, to_fit, ~to_fit, log_to_fit, rng, of_log_as_planted=one_window)
    assert 0.2 < kind.share_bound < 0.5
    assert share_bound(kind.train[~log_to_fit], kind.planted[~to_fit], rng) < 0.2


def test_bound_of_shares_by_hand():
    """Clopper and Pearson at 5 % each: of 0 in 100 at most 1 - 0.05^(1/100), of 100 in 100 at least 0.05^(1/100)."""
    edge = 0.05 ** (1 / 100)
    assert ratio_bound(np.zeros(100), np.ones(100), np.array([0.5]), 0.9) == pytest.approx([(1 - edge) / edge])


def test_figures_by_hand():
    truth, prob = np.array([1, 0, 0, 1], dtype=bool), np.array([0.95, 0.05, 0.05, 0.05])
    assert expected_calibration_error(truth, prob) == pytest.approx((0.05 + 3 * abs(1 / 3 - 0.05)) / 4)
    assert brier_score(truth, prob) == pytest.approx((2 * 0.05**2 + 0.05**2 + 0.95**2) / 4)
    assert precision_and_recall(truth, prob > 0.5) == (1.0, 0.5)


def test_every_kind_finds_noise_and_means_it(learned):
    from sklearn.metrics import roc_auc_score

    data, evidence = learned
    assert list(evidence.kinds) == ["collaborative", "semantic", "detector", "fused"]
    table = data.interactions
    checked = table.in_train & ~evidence.log_to_fit
    truth, test = is_noise(data)[checked], data.evaluated["test"]
    held = test.histories != 0
    for name, kind in evidence.kinds.items():
        assert (np.isnan(kind.train) == ~table.in_train).all() and (np.isnan(kind.histories["test"]) == ~held).all()
        assert kind.train.dtype == kind.histories["test"].dtype == np.float32
        assert roc_auc_score(truth, kind.train[checked]) > 0.75, name
        assert roc_auc_score(test.history_masks[held] == 1, kind.histories["test"][held]) > 0.75, name
        assert expected_calibration_error(truth, noise_probability(kind.train[checked], truth.mean())) < 0.04, name
        assert truth.mean() <= kind.share_bound < 0.5, name
    assert len(evidence.kinds["fused"].columns) == 7


def test_an_interval_is_of_a_part_of_a_long_log(learned, monkeypatch):
    """The AUC is of all."""
    data, evidence = learned
    whole = aucs_of_planted(data, evidence, by_popularity=False)["fused"]
    drawn = []

    def bootstrap(users, truth, scores):
        drawn.append((~truth).sum())
        return bootstrap_aucs(users, truth, scores)

    monkeypatch.setattr(figures, "bootstrap_aucs", bootstrap)
    monkeypatch.setattr(figures, "BOOTSTRAPPED_AT_MOST", 300)
    part = aucs_of_planted(data, evidence, by_popularity=False)["fused"]
    assert set(drawn) == {300} and part["auc"] == whole["auc"]
    widths = [high - low for low, high in (part["interval_95"], whole["interval_95"])]
    assert widths[0] > widths[1] and part["interval_95"][0] < whole["auc"] < part["interval_95"][1]


class OfTheLogAlone(Collaborative):
    """A kind that judges what stands in the log, and no other window that it is given."""

    def of_windows(self, users, items):
        return None

    def of_histories(self, data, file):
        return super().of_windows(data.evaluated[file].users, data.evaluated[file].histories)


@pytest.mark.usefixtures("quick_evidence")
def test_a_kind_that_judges_no_single_windows_is_named(capsys):
    """It takes the regression for histories from `fused`, and that is said."""
    data = grouped_data()
    counts = count(data.interactions, data.n_items, data.train.shape[1])
    kinds = {"collaborative": Collaborative(counts), "of the log": OfTheLogAlone(counts)}
    evidence = fit.learn_evidence(data, kinds, counts, nothing_unseen(data.n_items)).kinds
    assert "of the log: no features of single windows, so fused judges histories as it judges" in capsys.readouterr().out
    of_histories = kinds["collaborative"].of_histories(data, "test")  # (N, H, F), of both kinds
    by_train = evidence["fused"].log_ratio.of(np.concatenate([of_histories, of_histories], axis=2))
    assert np.array_equal(evidence["fused"].histories["test"], by_train, equal_nan=True)
    by_train = evidence["collaborative"].log_ratio.of(of_histories)
    assert not np.array_equal(evidence["collaborative"].histories["test"], by_train, equal_nan=True)


def test_no_target_and_no_truth_reaches_evidence(learned):
    """Byte for byte, whatever the targets of valid and test rows and the masks are."""
    data, evidence = learned
    for change in ({"change_targets": True}, {"change_truth": True}):
        changed = grouped_data(**change)
        of_targets = (changed.interactions.items != data.interactions.items).any()  # of those that nothing else holds
        masks = [part.evaluated["test"].history_masks for part in (changed, data)]
        assert (of_targets, (masks[0] != masks[1]).any()) == ("change_targets" in change, "change_truth" in change)
        again = evidence_of(changed)
        for name, kind in evidence.kinds.items():
            assert kind.train.tobytes() == again.kinds[name].train.tobytes(), (name, change)
            assert kind.histories["test"].tobytes() == again.kinds[name].histories["test"].tobytes(), (name, change)
            assert kind.share_bound == again.kinds[name].share_bound


def test_scores_of_a_language_model_are_a_kind(monkeypatch, capsys):
    """They are fitted on what the model read alone, and `fused` with them; the rest on our own planted ones."""
    monkeypatch.setattr(fit, "PLANTED_TO_FIT", 1500)
    monkeypatch.setattr(fit, "PLANTED_TO_BOUND", 1500)
    data = grouped_data(1)
    rng = np.random.default_rng(0)
    rows = rng.permutation(np.flatnonzero(data.interactions.in_train))[:600]
    planted = Planted(rows, rng.integers(1, N_ITEMS + 1, 600))
    noise = is_noise(data, seed=1)
    cells = rng.normal(noise * 1.5, 0.7)[:, None] + rng.normal(size=(len(noise), 5))  # of five windows each
    cells[~data.interactions.in_train] = np.nan
    cells[rows[:50]] = np.nan  # read by nobody
    train, one_window = cells.mean(1), cells[:, 0]
    test = data.evaluated["test"]
    in_test = np.where(test.histories != 0, rng.normal(test.history_masks * 1.5, np.hypot(1, 0.7)), np.nan)
    scores = fit.GivenScores(
        train, one_window, {"test": in_test}, planted, rng.normal(1.5, np.hypot(1, 0.7), 600), np.zeros(600, dtype=bool)
    )
    evidence = evidence_by_co_occurrence(data, scores)
    assert list(evidence.kinds) == ["collaborative", "llm", "fused"]
    assert "no features of single windows" not in capsys.readouterr().out  # `fused` takes its r, not its features
    kind = evidence.kinds["llm"]
    order = np.argsort(train[~np.isnan(train)])
    assert (np.diff(kind.train[~np.isnan(train)][order]) >= 0).mean() > 0.9  # higher log-odds, higher r
    assert (np.isnan(evidence.kinds["fused"].train) == np.isnan(train)).all()
    n_own = len(kind.planted) - 600
    assert np.isnan(kind.planted[:n_own]).all() and not np.isnan(kind.planted[n_own:]).any()
    # Bound and AUC compare one window of each interaction with the one window that a planted one was read in.
    assert (kind.train_as_planted == kind.log_ratio.of(one_window[:, None])).sum() == (~np.isnan(train)).sum()
    assert evidence.kinds["collaborative"].train_as_planted is evidence.kinds["collaborative"].train
    unfitted = data.interactions.in_train & ~evidence.log_to_fit & ~np.isnan(train)
    of_bound = evidence.planted.given & evidence.planted.to_bound
    for name in ("llm", "fused"):
        kind = evidence.kinds[name]
        assert kind.share_bound > noise[unfitted].mean(), name
        r = np.r_[kind.planted[of_bound], kind.train_as_planted[unfitted]]
        assert aucs_of_planted(data, evidence, False)[name]["auc"] == auc(np.arange(len(r)) < of_bound.sum(), r)
    without = evidence_by_co_occurrence(data)
    assert without.kinds["collaborative"].train.tobytes() == evidence.kinds["collaborative"].train.tobytes()


def test_what_is_far_out_is_judged_as_the_end_of_the_usual_range():
    """Planted ones have a wider second feature. Its square must not decide far out, where there is nearly nothing to fit it on."""
    rng = np.random.default_rng(0)
    planted, log = (
        np.column_stack([rng.normal(mean, 1, 4000), rng.normal(0, width, 4000)]) for mean, width in ((1, 1.5), (0, 1))
    )
    log[:40, 1] += 8
    ratio = fit_log_ratio(planted, log)
    assert ratio.high[1] == pytest.approx(np.quantile(np.r_[planted, log][:, 1], 0.98))
    first = np.array([-1.0, 0.0, 1.0, 2.0])
    at_the_end, far_out = (ratio.of(np.column_stack([first, np.full(4, second)])) for second in (3.5, 30.0))
    assert far_out == pytest.approx(at_the_end, abs=0.25)
    beyond = ratio.of(np.array([[6.0, 1.0], [7.0, 1.0]]))
    assert 0 < beyond[1] - beyond[0] < 0.1  # hardly more suspicious, but in order

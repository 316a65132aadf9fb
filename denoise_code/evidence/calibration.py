"""From features to the log-odds that an interaction is planted, and from these to the probability that it is noise. Ours, not in the paper.

Planted interactions need no labels: another item stands in a train interaction's place, in all its windows. User, place and time stay as
they are, so features that do not depend on the item, such as a gap in time, have r = 0. Contrasted with the log's own interactions planted
ones give r = log(f_planted / f_log). With a share pi of noise in the log, P(noise) = min(1, pi exp(r)) (positive and unlabelled data: Elkan
and Noto 2008), and pi is at most min over t of P_log(r > t) / P_planted(r > t) (Blanchard et al. 2010; Garg et al. 2021).
P(noise) is computed from r in `denoise_code.data_set.evidence_files.noise_probability`, as stage 3 needs it too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from denoise_code.data_set.evidence_files import BOUND_CONFIDENCE
from denoise_code.data_set.interactions import DataSet
from denoise_code.evidence.cooccurrence import Cooccurrence
from denoise_code.evidence.features import Planted, row_chunks
from denoise_code.evidence.unseen_items import UnseenItems

MOST_DRAWS = 1000  # before planting gives up
BINS = 40  # of scores, as many planted ones in each
KEEP_ORDER = 1e-3  # a small slope, so that r still ranks interactions within one bin, and beyond the usual range of a feature
UNUSUAL = 0.02  # the share of a feature's values, at either end, that count hardly more than the value where this end begins
THRESHOLDS = 100  # among which the bound looks for the best
CHOOSING_CONFIDENCE = 0.9999  # in choosing the threshold; with less, chance among the few highest values would choose it


class CannotPlant(ValueError):
    """No interaction can be planted."""


def plant(
    data: DataSet, counts: Cooccurrence, unseen: UnseenItems, count: int, popular_share: float, rng: np.random.Generator
) -> Planted:
    """`count` planted interactions.

    Interactions are uniform over those of train, each drawn once while there are enough. Items are uniform over the catalogue and what is
    unseen of it or, a share of them, as popular as the interactions of train; never one that a train window of the interaction holds.
    counts: of a catalogue with the stand-ins for what is unseen.
    """
    train_rows = np.flatnonzero(data.interactions.in_train)
    if not len(train_rows) or data.n_items < 2:
        raise CannotPlant(f"{len(train_rows)} train interactions and {data.n_items} items")
    rows = np.concatenate([rng.permutation(train_rows) for _ in range(-(-count // len(train_rows)))])[:count]
    by_popularity = rng.random(count) < popular_share

    def draw(clashing: np.ndarray) -> np.ndarray:
        popular = by_popularity[clashing]
        items = np.zeros(len(clashing), dtype=np.int64)
        items[~popular] = unseen.draw(int((~popular).sum()), rng)
        items[popular] = items_as_popular(counts, int(popular.sum()), rng)
        return items

    return Planted(rows, draw_outside(draw, unseen, items_in_windows(data, rows)))


def draw_outside(draw: Callable[[np.ndarray], np.ndarray], unseen: UnseenItems, taken: np.ndarray) -> np.ndarray:
    """(M,) an item for each row of taken (M, T), none of its items: draw(numbers of rows) until no drawn item is one."""
    items, clashing = np.zeros(len(taken), dtype=np.int64), np.arange(len(taken))
    for _ in range(MOST_DRAWS):
        items[clashing] = draw(clashing)
        clashing = clashing[(unseen.originals_of(items[clashing])[:, None] == taken[clashing]).any(1)]
        if not len(clashing):
            return items
    raise CannotPlant(f"the windows of {len(clashing)} interactions hold nearly all of the {unseen.n_items} items")


def plant_in_histories(
    data: DataSet, unseen: UnseenItems, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Histories of train windows as those of valid and test rows are: all but the last item, each judged by itself.

    users (R,), histories (R, H) of at most `count` train windows; places (R,) one of each at random; items (R,) drawn as `plant` does
    uniformly, none of the history, to be planted there.
    """
    table = data.interactions
    rows = data.train[rng.permutation(len(data.train))[:count]]
    histories = np.where(rows >= 0, table.items[rows], 0)[:, :-1]
    places = histories.shape[1] - 1 - (rng.random(len(rows)) * (histories != 0).sum(1)).astype(int)
    items = draw_outside(lambda clashing: unseen.draw(len(clashing), rng), unseen, taken=histories)
    return table.users[rows[:, -1]], histories, places, items


def items_in_windows(data: DataSet, rows: np.ndarray) -> np.ndarray:
    """(M, 2 W - 1) items of all train windows that hold these rows (M,) of the table, their own in the middle; 0 where there is none."""
    table, width = data.interactions, data.train.shape[1]
    around = rows[:, None] + np.arange(1 - width, width)
    inside = np.clip(around, 0, len(table) - 1)
    earlier, later = np.minimum(inside, rows[:, None]), np.maximum(inside, rows[:, None])
    together = (inside == around) & table.in_one_window(earlier, later)
    return np.where(together, table.items[inside], 0)


def items_as_popular(counts: Cooccurrence, size: int, rng: np.random.Generator) -> np.ndarray:
    """Items (size,) that other users hold as often as the other users hold what stands at random train interactions.

    All features leave an interaction's own user out of counts, and so does this: who draws items from the interactions as they
    stand plants items that are more popular by one count, and on sparse data (Toy) rarity alone then has an AUC of 0.44.
    """
    drawn = rng.integers(len(counts.items), size=size)
    popularity = counts.items_of_others(counts.users[drawn], counts.items[drawn])
    order = rng.permutation(counts.n_items) + 1
    order = order[counts.item_counts[order].argsort(kind="stable")]
    ascending = counts.item_counts[order]
    first, after = (np.searchsorted(ascending, popularity, side) for side in ("left", "right"))
    return order[np.minimum(first + (rng.random(size) * (after - first)).astype(int), counts.n_items - 1)]


@dataclass(frozen=True)
class LogRatio:
    """r = log(f_planted / f_log) of a score: offset + weights times terms, `polynomial_terms` of features in units of their deviation.

    low, high (F,): the usual range of the features, see `within_range`; mean, deviation (F,) of these then; weights (T,) of standardised
    terms, term_deviation (T,). scores, ratios (B,) ascending: knots of a monotone curve from the regression's sum to the ratio that was
    counted there, see `counted_ratios`.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    weights: np.ndarray
    term_deviation: np.ndarray
    offset: float
    scores: np.ndarray
    ratios: np.ndarray

    def of(self, features: np.ndarray) -> np.ndarray:
        """r (...) float32 of features (..., F), NaN where one is NaN."""
        shape, result = features.shape[:-1], np.empty(int(np.prod(features.shape[:-1])), dtype=np.float32)
        flat = features.reshape(-1, features.shape[-1])
        for rows in row_chunks(len(flat), 3 * 8 * len(self.weights)):
            usual = within_range(flat[rows].astype(np.float64), self.low, self.high)
            terms = polynomial_terms((usual - self.mean) / self.deviation)
            score = terms @ (self.weights / self.term_deviation) + self.offset
            result[rows] = np.interp(score, self.scores, self.ratios) + KEEP_ORDER * score
        return result.reshape(shape)


def within_range(features: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Features (N, F) of which what lies beyond low or high (F,) is nearly taken off; NaN stays.

    Products of features grow fast where nothing was fitted: three bestsellers of a new user had P(noise) 1 by all evidence, by each kind
    at most 0.02. Average precision in histories is 0.008 to 0.02 higher so (MovieLens, Toy and Movie log).
    """
    usual = np.clip(features, low, high)
    return usual + KEEP_ORDER * (features - usual)


def polynomial_terms(features: np.ndarray) -> np.ndarray:
    """(N, F + F (F + 1) / 2): features (N, F), then their products, squares included: (0, 0), (0, 1), ..., (1, 1), ...

    What a feature is worth hangs on the others: a stranger among items that know each other says more than one where none does. With the
    products the AUC of injected noise is 0.005 to 0.008 higher (MovieLens, Toy), and P is nearer to what is there.
    """
    first, second = np.triu_indices(features.shape[1])
    return np.concatenate([features, features[:, first] * features[:, second]], axis=1)


def term_names(columns: tuple[str, ...]) -> list[str]:
    """Names of `polynomial_terms`."""
    first, second = np.triu_indices(len(columns))
    products = (f"{columns[first_column]} x {columns[second_column]}" for first_column, second_column in zip(first, second))
    return [*columns, *products]


def fit_log_ratio(of_planted: np.ndarray, of_log: np.ndarray) -> LogRatio:
    """One logistic regression of planted (M, F) against the log's own (L, F), and the curve that turns its score into r.

    s being the probability of the regression and rho the share M / (M + L), the score is logit(s) + log((1 - rho) / rho). It would be r
    if a sum of terms told ratios rightly; `counted_ratios` says what r is at each score.
    """
    from sklearn.linear_model import LogisticRegressionCV

    x = np.concatenate([of_planted, of_log]).astype(np.float64)
    planted = np.arange(len(x)) < len(of_planted)
    low, high = np.quantile(x, [UNUSUAL, 1 - UNUSUAL], axis=0)
    x = within_range(x, low, high)
    mean, deviation = x.mean(0), np.maximum(x.std(0), 1e-9)
    terms = polynomial_terms((x - mean) / deviation)
    term_mean, term_deviation = terms.mean(0), np.maximum(terms.std(0), 1e-9)
    regression = LogisticRegressionCV(
        Cs=7, cv=5, scoring="neg_log_loss", max_iter=1000, l1_ratios=(0,), use_legacy_attributes=False
    ).fit((terms - term_mean) / term_deviation, planted)
    weights = regression.coef_.ravel()
    offset = regression.intercept_[0] - weights @ (term_mean / term_deviation) + np.log(len(of_log) / len(of_planted))
    scores = terms @ (weights / term_deviation) + offset
    return LogRatio(low, high, mean, deviation, weights, term_deviation, float(offset), *counted_ratios(scores, planted))


def counted_ratios(scores: np.ndarray, planted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean score and log(share of planted / share of log) in each of BINS bins of scores (N,), both ascending; planted (N,) bool.

    r has a ceiling, as f_log >= share * f_planted: log(1 / share of noise). A sum of terms passes it, counts do not. Counted in bins,
    made ascending by isotonic regression, P(noise) is half as far from the truth (MovieLens 10 %: 0.009 -> 0.004).
    """
    from sklearn.isotonic import IsotonicRegression

    edges = np.quantile(scores[planted], np.linspace(0, 1, BINS + 1)[1:-1])
    cell = np.searchsorted(edges, scores, side="right")
    of_planted, of_log = (np.bincount(cell, kind, minlength=BINS) for kind in (planted, ~planted))
    size = of_planted + of_log
    filled = size > 0
    means = np.bincount(cell, scores, minlength=BINS)[filled] / size[filled]
    shares = (of_planted + 0.5) / (planted.sum() + 1), (of_log + 0.5) / ((~planted).sum() + 1)
    ratios = np.log(shares[0] / shares[1])[filled]
    return means, IsotonicRegression().fit_transform(np.arange(len(ratios)), ratios, sample_weight=size[filled])


def share_bound(r_of_log: np.ndarray, r_of_planted: np.ndarray, rng: np.random.Generator) -> float:
    """The largest share of noise that (L,) and (M,) values of r allow, nothing being fitted on them, with BOUND_CONFIDENCE.

    What stands in the log and what was planted must be seen alike, an interaction in all its windows or in one: means over windows
    spread less than single ones, and what was planted would seem rarer in the log than it is.

    The threshold is chosen on one half of each; the other half says P_log(r > t) at most and P_planted(r > t) at least, each by Clopper and
    Pearson's exact bound. So one threshold is tested, and no correction for many is needed.
    """
    (choose_log, check_log), (choose_planted, check_planted) = (
        np.array_split(rng.permutation(values), 2) for values in (r_of_log, r_of_planted)
    )
    thresholds = np.quantile(choose_planted, np.linspace(0, 1, THRESHOLDS, endpoint=False))
    best = np.argmin(ratio_bound(choose_log, choose_planted, thresholds, CHOOSING_CONFIDENCE))
    return float(min(1, ratio_bound(check_log, check_planted, thresholds[best : best + 1], BOUND_CONFIDENCE)[0]))


def ratio_bound(r_of_log: np.ndarray, r_of_planted: np.ndarray, thresholds: np.ndarray, confidence: float) -> np.ndarray:
    """(T,) upper bounds on P_log(r > t) / P_planted(r > t)."""
    from scipy.stats import beta

    above_log, above_planted = (
        len(values) - np.searchsorted(np.sort(values), thresholds, side="right") for values in (r_of_log, r_of_planted)
    )
    risk = (1 - confidence) / 2  # for each of the two shares
    at_most = np.where(above_log < len(r_of_log), beta.ppf(1 - risk, above_log + 1, np.maximum(len(r_of_log) - above_log, 1)), 1)
    at_least = np.where(above_planted > 0, beta.ppf(risk, np.maximum(above_planted, 1), len(r_of_planted) - above_planted + 1), 0)
    return at_most / np.maximum(at_least, 1e-12)

"""All kinds of evidence for a data set: features, planted interactions, one regression a kind, r of everything. Knows nothing of files."""

from dataclasses import dataclass

import numpy as np

from denoise_code.data_set.evidence_files import FUSED
from denoise_code.data_set.interactions import DataSet
from denoise_code.evidence import cooccurrence
from denoise_code.evidence.calibration import LogRatio, fit_log_ratio, plant, plant_in_histories, share_bound, term_names
from denoise_code.evidence.features import FeatureKind, GivenKind, Planted
from denoise_code.evidence.unseen_items import UnseenItems

PLANTED_TO_FIT, PLANTED_TO_BOUND, LOG_TO_FIT = 10_000, 10_000, 20_000
PLANTED_BY_POPULARITY = 5_000  # for auc_context alone
HISTORIES_TO_FIT = 20_000


@dataclass(frozen=True)
class KindOfEvidence:
    """What one kind says. r = log(f_planted / f_log), see calibration.py.

    train (n,) float32 of the interactions of the table, NaN where no train window holds one; histories {file: (N, H) float32}, NaN where
    a history has no item; planted (M,) float32; columns: the features that are weighed; share_bound: the largest share of noise.
    train_as_planted (n,) float32: what planted ones are compared with. A language model reads a planted interaction in one window, so
    here it is r of one window of each; for kinds without its scores `train` itself.
    log_ratio judges train interactions: it is fitted on means over windows. Another one, fitted on single histories, makes r of histories.
    """

    columns: tuple[str, ...]
    log_ratio: LogRatio
    share_bound: float
    train: np.ndarray
    train_as_planted: np.ndarray
    histories: dict[str, np.ndarray]
    planted: np.ndarray

    def coefficients(self) -> dict[str, float]:
        """Weight in the score of `fit_log_ratio` of each standardised feature, and of each product of two."""
        return dict(zip(term_names(self.columns), map(float, self.log_ratio.weights)))


@dataclass(frozen=True)
class PlantedSplit:
    """Planted interactions, and what each is for. by_popularity, given, to_fit, to_bound (M,) bool.

    given: those that a language model read; kinds with its scores are fitted on these alone, all others on the rest. Items are uniform
    over the catalogue or, by_popularity, as popular as the log's: these are for `auc_context` alone.
    """

    planted: Planted
    by_popularity: np.ndarray
    given: np.ndarray
    to_fit: np.ndarray
    to_bound: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """kinds: {name: what it says}, `fused` the last; log_to_fit (n,) bool: train interactions that regressions were fitted on."""

    kinds: dict[str, KindOfEvidence]
    counts: cooccurrence.Cooccurrence
    planted: PlantedSplit
    log_to_fit: np.ndarray


@dataclass(frozen=True)
class GivenScores:
    """What a language model said, as log-odds. train (n,): means over the rows that it read, NaN where it read none; one_window (n,): of
    one of these rows, drawn at random; histories {file: (N, H)}; planted: interactions with a planted item, each read in one row,
    planted_scores (M,), by_popularity (M,) bool."""

    train: np.ndarray
    one_window: np.ndarray
    histories: dict[str, np.ndarray]
    planted: Planted
    planted_scores: np.ndarray
    by_popularity: np.ndarray


def learn_evidence(
    data: DataSet,
    kinds: dict[str, FeatureKind],
    counts: cooccurrence.Cooccurrence,
    unseen: UnseenItems,
    llm: GivenScores | None = None,
    seed: int = 0,
) -> Evidence:
    """r of every train interaction and history place, by each kind of evidence and by all together.

    kinds: see `learned.Models.kinds`; what they learned must be of the other half of a user. counts: of the same data. Both of a catalogue
    with the stand-ins for what is unseen.
    """
    planted = draw_planted_interactions(data, counts, unseen, llm, np.random.default_rng([seed, 1]))
    if llm is not None:
        kinds = kinds | {"llm": given_kind(llm, len(planted.planted))}

    features = {name: kind.of_interactions(data, planted.planted) for name, kind in kinds.items()}
    of_histories = {name: {file: kind.of_histories(data, file) for file in data.evaluated} for name, kind in kinds.items()}
    contrasts = contrast_in_histories(data, kinds, unseen, np.random.default_rng([seed, 4]))
    log_to_fit = draw_log(data, np.random.default_rng([seed, 2]))
    to_fuse = [name for name in kinds if name != "llm"]  # planted interactions of our own, as many as are wanted
    if has_histories(data):
        print_kinds_without_contrast({name: contrasts[name] for name in to_fuse})
    weighed_by = {name: [name] for name in kinds} | {FUSED: to_fuse}  # {kind: the kinds whose features it weighs}
    fitted = {}
    for kind, weighed in weighed_by.items():
        of_kind = planted.given if kind == "llm" else ~planted.given
        fitted[kind] = fit_kind(
            columns=tuple(column for name in weighed for column in kinds[name].columns),
            of_log=np.concatenate([features[name][0] for name in weighed], axis=1),
            of_planted=np.concatenate([features[name][1] for name in weighed], axis=1),
            histories={file: np.concatenate([of_histories[name][file] for name in weighed], axis=2) for file in data.evaluated},
            contrast=joined_contrast([contrasts[name] for name in weighed]),
            to_fit=planted.to_fit & of_kind,
            to_bound=planted.to_bound & of_kind,
            log_to_fit=log_to_fit,
            rng=np.random.default_rng([seed, 3]),
            of_log_as_planted=llm.one_window[:, None] if kind == "llm" else None,
        )
    if llm is not None:
        fitted[FUSED] = fuse_with_language_model(fitted[FUSED], llm, features["llm"][1][:, 0], planted, log_to_fit, seed)
    return Evidence(fitted, counts, planted, log_to_fit)


def fuse_with_language_model(
    fused: KindOfEvidence,
    llm: GivenScores,
    scores_of_planted: np.ndarray,
    planted: PlantedSplit,
    log_to_fit: np.ndarray,
    seed: int,
) -> KindOfEvidence:
    """r of `fused` and the language model's score as two features of one more regression.

    A language model reads few planted windows, hundreds where the other kinds have thousands: a regression over all features would
    learn less from these than it loses. scores_of_planted (M,): NaN where it read none.
    """
    return fit_kind(
        columns=("all other evidence", "noise_prob"),
        of_log=np.stack([fused.train, llm.train], axis=1),
        of_planted=np.stack([fused.planted, scores_of_planted], axis=1),
        histories={file: np.stack([r, llm.histories[file]], axis=2) for file, r in fused.histories.items()},
        contrast=None,
        to_fit=planted.to_fit & planted.given,
        to_bound=planted.to_bound & planted.given,
        log_to_fit=log_to_fit,
        rng=np.random.default_rng([seed, 3]),
        of_log_as_planted=np.stack([fused.train, llm.one_window], axis=1),
    )


def given_kind(llm: GivenScores, planted_count: int) -> GivenKind:
    """The language model's scores as features; of planted interactions that it did not read NaN."""
    scores = np.full((planted_count, 1), np.nan, dtype=np.float32)
    scores[planted_count - len(llm.planted) :, 0] = llm.planted_scores
    histories = {file: values[:, :, None] for file, values in llm.histories.items()}
    return GivenKind(("noise_prob",), llm.train[:, None], scores, histories)


def draw_planted_interactions(
    data: DataSet, counts, unseen: UnseenItems, llm: GivenScores | None, rng: np.random.Generator
) -> PlantedSplit:
    """Our own planted interactions, then those that a language model read; of the uniform ones half to fit on, the rest for the bound."""
    uniform = plant(data, counts, unseen, PLANTED_TO_FIT + PLANTED_TO_BOUND, 0.0, rng)
    popular = plant(data, counts, unseen, PLANTED_BY_POPULARITY, 1.0, rng)
    parts = [uniform, popular, *([] if llm is None else [llm.planted])]
    planted = Planted(np.concatenate([part.rows for part in parts]), np.concatenate([part.items for part in parts]))
    by_popularity = np.repeat([False, True], [len(uniform), len(popular)])
    to_fit = np.arange(len(by_popularity)) < PLANTED_TO_FIT
    given = np.arange(len(planted)) >= len(by_popularity)
    if llm is not None:
        half = rng.permutation(len(llm.planted)) < len(llm.planted) / 2
        by_popularity, to_fit = np.r_[by_popularity, llm.by_popularity], np.r_[to_fit, half & ~llm.by_popularity]
    return PlantedSplit(planted, by_popularity, given, to_fit, to_bound=~to_fit & ~by_popularity)


def draw_log(data: DataSet, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool: train interactions to fit on, half of them at most: the others bound the share of noise."""
    train_rows = np.flatnonzero(data.interactions.in_train)
    chosen = np.zeros(len(data.interactions), dtype=bool)
    chosen[rng.permutation(train_rows)[: min(LOG_TO_FIT, len(train_rows) // 2)]] = True
    return chosen


def has_histories(data: DataSet) -> bool:
    """Whether there are valid or test rows."""
    return any(len(rows.users) for rows in data.evaluated.values())


def print_kinds_without_contrast(contrasts: dict[str, tuple[np.ndarray, np.ndarray] | None]) -> None:
    """One line where a kind cannot judge single windows. contrasts: of the kinds that `fused` joins, see `contrast_in_histories`."""
    names = [name for name, contrast in contrasts.items() if contrast is None]
    if names:
        print(f"{', '.join(names)}: no features of single windows, so {FUSED} judges histories as it judges train interactions")


def contrast_in_histories(
    data: DataSet, kinds: dict[str, FeatureKind], unseen: UnseenItems, rng
) -> dict[str, tuple[np.ndarray, np.ndarray] | None]:
    """{kind: features (R, F) of planted places of single histories, and of the same places as they are}; None where a kind cannot tell.

    None for all kinds where there are no valid or test rows.
    """
    if not has_histories(data):
        return dict.fromkeys(kinds)
    users, histories, places, items = plant_in_histories(data, unseen, HISTORIES_TO_FIT, rng)
    planted, number = histories.copy(), np.arange(len(places))
    planted[number, places] = items
    contrasts = {}
    for name, kind in kinds.items():
        parts = [kind.of_windows(users, windows) for windows in (planted, histories)]
        contrasts[name] = None if parts[0] is None else tuple(part[number, places] for part in parts)
    return contrasts


def joined_contrast(contrasts: list) -> tuple[np.ndarray, np.ndarray] | None:
    """The features of several kinds side by side; None where one cannot tell."""
    if any(contrast is None for contrast in contrasts):
        return None
    return tuple(np.concatenate(parts, axis=1) for parts in zip(*contrasts))


def fit_kind(
    columns: tuple[str, ...],
    of_log: np.ndarray,
    of_planted: np.ndarray,
    histories: dict[str, np.ndarray],
    contrast: tuple[np.ndarray, np.ndarray] | None,
    to_fit: np.ndarray,
    to_bound: np.ndarray,
    log_to_fit: np.ndarray,
    rng: np.random.Generator,
    of_log_as_planted: np.ndarray | None = None,
) -> KindOfEvidence:
    """The regression of one kind, r of everything by it, and its bound on the share of noise.

    of_log (n, F), of_planted (M, F), histories {file: (N, H, F)}; to_fit, to_bound (M,) bool of planted interactions, log_to_fit (n,) bool.
    contrast: two of (R, F), planted in single histories and as they are. Without it histories are judged as train interactions are.
    of_log_as_planted (n, F): of the log's interactions where they are read as planted ones are; None where of_log is of this kind.
    """
    log_ratio = fit_log_ratio(of_planted[to_fit], finite_rows(of_log[log_to_fit]))
    in_histories = log_ratio if contrast is None else fit_log_ratio(*contrast)
    train, r_of_planted = log_ratio.of(of_log), log_ratio.of(of_planted)
    train_as_planted = train if of_log_as_planted is None else log_ratio.of(of_log_as_planted)
    unfitted = train_as_planted[~log_to_fit]
    return KindOfEvidence(
        columns=columns,
        log_ratio=log_ratio,
        share_bound=share_bound(unfitted[~np.isnan(unfitted)], r_of_planted[to_bound], rng),
        train=train,
        train_as_planted=train_as_planted,
        histories={file: in_histories.of(values) for file, values in histories.items()},
        planted=r_of_planted,
    )


def finite_rows(features: np.ndarray) -> np.ndarray:
    """Rows of (L, F) without NaN: a language model need not have read every interaction."""
    return features[~np.isnan(features).any(1)]

"""The interactions of a data set, judged by every kind of evidence there is, and one replacement for each. Knows nothing of files.

`making_evidence.py` calls it for the rows of a folder, `cleaning/records.py` for a log.
"""

from dataclasses import dataclass

import numpy as np

from denoise_code.data_set.evidence_files import FUSED, noise_probability
from denoise_code.data_set.interactions import DataSet
from denoise_code.evidence import cooccurrence
from denoise_code.evidence.figures import detection_figures
from denoise_code.evidence.fit import GivenScores, learn_evidence
from denoise_code.evidence.learned import Learned, learn_models
from denoise_code.evidence.options import EvidenceOptions
from denoise_code.evidence.unseen_items import unseen_items
from denoise_code.replacement import fit_ranker, replace_in_histories, replace_interactions

MOST_SHARE = 0.1  # the share of noise that is assumed without --noise_share, or the bound where that is lower
# Each of up to so many interactions and history places gets a replacement. Where there are more, those with this probability of
# noise and more do: a replacement takes half a millisecond, and what is less probable is not edited.
REPLACED_AT_MOST = 500_000
LEAST_PROBABILITY = 0.1


class NoEvidence(ValueError):
    """These rows cannot teach; the message says why."""


def check_rows_can_teach(data: DataSet, halvings: np.ndarray) -> None:
    """Raise NoEvidence for rows of which nothing can be learned for others; halvings (2, U) of the users."""
    shares = halvings[:, data.interactions.users[data.interactions.in_train]].mean(1)  # (2,)
    if not ((shares > 0) & (shares < 1)).all():
        raise NoEvidence("its train rows are of too few users to learn from one half and judge the other")
    if data.train.shape[1] < 3:
        raise NoEvidence("its windows hold two items, and one of them says nothing of the other")


@dataclass(frozen=True)
class FiguresOfKinds:
    """What each kind of evidence rests on and what it is worth, by the names of evidence.json.

    By kind: share_bound, the largest share of noise; features, their names; coefficients, the weights of these and of their products.
    detection: see `detection_figures`.
    """

    share_bound: dict[str, float]
    features: dict[str, list[str]]
    coefficients: dict[str, dict[str, float]]
    detection: dict


@dataclass(frozen=True)
class JudgedInteractions:
    """r of all interactions. train {kind: (n,)}, histories {file: {kind: (N, H)}} float32.

    learned judges other interactions; None where it was not kept.
    """

    train: dict[str, np.ndarray]
    histories: dict[str, dict[str, np.ndarray]]
    figures: FiguresOfKinds
    learned: Learned | None = None

    @property
    def share_bound(self) -> float:
        """The largest share of noise, by all evidence together."""
        return self.figures.share_bound[FUSED]


def share_taken(judged: JudgedInteractions, options: EvidenceOptions) -> float:
    """The share of noise that probabilities and replacements take: what was asked for, else MOST_SHARE or the bound, if lower."""
    return min(MOST_SHARE, judged.share_bound) if options.noise_share is None else options.noise_share


def judge_interactions(
    data: DataSet, vectors: np.ndarray | None, scores: GivenScores | None, halvings: np.ndarray, seed: int
) -> JudgedInteractions:
    """Learn from the train windows and judge all interactions, by every kind of evidence that there is. Raises CannotPlant."""
    unseen = unseen_items(data)
    counts = cooccurrence.count(data.interactions, unseen.n_items_and_stand_ins, data.train.shape[1])
    models = learn_models(data, vectors, halvings, seed)
    kinds = models.kinds(counts, unseen.with_stand_ins(vectors), halvings)
    evidence = learn_evidence(data, kinds, counts, unseen, scores, seed)
    figures = FiguresOfKinds(
        share_bound={kind: float(result.share_bound) for kind, result in evidence.kinds.items()},
        features={kind: list(result.columns) for kind, result in evidence.kinds.items()},
        coefficients={kind: result.coefficients() for kind, result in evidence.kinds.items()},
        detection=detection_figures(data, evidence),
    )
    return JudgedInteractions(
        train={kind: result.train for kind, result in evidence.kinds.items()},
        histories={file: {kind: result.histories[file] for kind, result in evidence.kinds.items()} for file in data.evaluated},
        figures=figures,
        learned=Learned(models, {kind: result.log_ratio for kind, result in evidence.kinds.items()}),
    )


@dataclass(frozen=True)
class Ranking:
    """How replacements were ranked. coefficients, held_out: see `replacement.Fitted`; weights: those of its ranker.

    least_probability: P(noise) from which on a place has a replacement.
    """

    coefficients: dict[str, float]
    weights: list[float]
    held_out: dict[str, float]
    least_probability: float


@dataclass(frozen=True)
class Replacements:
    """train (n,), histories {file: (N, H)} int64 items, 0 where there is none. ranking: None where none was fitted for them."""

    train: np.ndarray
    histories: dict[str, np.ndarray]
    ranking: Ranking | None = None


@dataclass(frozen=True)
class JudgedDataSet:
    """interactions: r of all, and what was learned; noise_share: what probabilities assume; replacements: an item for each."""

    interactions: JudgedInteractions
    noise_share: float
    replacements: Replacements


def least_probability(data: DataSet, replace_all: bool) -> float:
    """P(noise) from which on a place gets a replacement: 0 where the places are few."""
    n_places = int(data.interactions.in_train.sum()) + sum(int((rows.histories != 0).sum()) for rows in data.evaluated.values())
    return 0.0 if replace_all or n_places <= REPLACED_AT_MOST else LEAST_PROBABILITY


def replace_what_is_noise(
    data: DataSet,
    r: np.ndarray,
    r_of_histories: dict[str, np.ndarray],
    vectors: np.ndarray | None,
    halvings: np.ndarray,
    share: float,
    options: EvidenceOptions,
    new_to_user: bool = False,
) -> Replacements:
    """One replacement for each interaction and history place, or for those that may be noise where there are many.

    r (n,) of train interactions and r_of_histories {file: (N, H)} say which may be: they are those that a reader is shown.
    new_to_user: in place of a train interaction stands nothing that its user has; in a data set that would tell what its
    valid and test rows hold.
    """
    fitted = fit_ranker(data, vectors, halvings[0], options.seed)
    least = least_probability(data, options.replace_all)
    return Replacements(
        train=replace_interactions(data, fitted.ranker, noise_probability(r, share), least, new_to_user),
        histories={
            file: replace_in_histories(data, file, fitted.ranker, noise_probability(r_of_file, share), least)
            for file, r_of_file in r_of_histories.items()
        },
        ranking=Ranking(fitted.coefficients, fitted.ranker.weights.tolist(), fitted.held_out, least),
    )

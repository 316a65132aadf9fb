"""The self-test of a cleaned log: noise planted into a copy of it, judged with what was learned from the log. No files.

It says how much of such noise is found at a threshold, and how much else is flagged with it.
"""

from dataclasses import dataclass, replace

import numpy as np

from denoise_code.cleaning.records import PreparedLog, judged_by_what_is_known
from denoise_code.cleaning.report import SelfTest
from denoise_code.common.statistics import interval
from denoise_code.data_set.log.sequences import data_set_of_log
from denoise_code.evidence import cooccurrence
from denoise_code.evidence.calibration import plant
from denoise_code.evidence.learned import Learned, apply_learned
from denoise_code.evidence.unseen_items import unseen_items

LEAST_SHARE = 0.02  # of the interactions that are planted, however little noise there is said to be
MOST_INTERACTIONS = 50_000  # of the copy, of whole users
DRAWS = 1000  # of users, for the intervals


@dataclass(frozen=True)
class JudgedCopy:
    """What was said of the copy's m judged interactions: r (m,) float32, planted (m,) bool, users (m,) int64."""

    r: np.ndarray
    planted: np.ndarray
    users: np.ndarray


def judge_copy(
    prepared: PreparedLog, learned: Learned, vectors: np.ndarray | None, noise_share: float, window: int, seed: int
) -> JudgedCopy:
    """Plant noise into a copy of the log, or of the histories of some of its users, and judge it.

    Planted interactions are drawn uniformly, as many as the share of noise that is taken; their items uniformly over the catalogue and what
    is unseen of it, none that stands in a window of the interaction.
    """
    rng = np.random.default_rng([seed, 5])
    data, unseen = prepared.data, unseen_items(prepared.data)
    counts = cooccurrence.count(data.interactions, unseen.n_items_and_stand_ins, data.train.shape[1])
    tested = prepared.log.pick(some_users(prepared.log.users, rng))
    untouched = data_set_of_log(tested, window)
    n_planted = max(1, round(max(noise_share, LEAST_SHARE) * int(untouched.interactions.in_train.sum())))
    planted = plant(untouched, counts, unseen, n_planted, 0.0, rng)
    items = tested.items.copy()
    items[planted.rows] = planted.items
    titles = [*tested.titles, *(tested.titles[item] for item in unseen.originals)]
    copy = data_set_of_log(replace(tested, items=items, titles=titles), window)
    r_by_kind = apply_learned(copy, learned, counts, unseen.with_stand_ins(vectors), prepared.halvings)
    has_title = unseen.with_stand_ins(prepared.has_title)
    r = judged_by_what_is_known(r_by_kind, items, has_title, reads_titles=vectors is not None)
    is_planted = np.zeros(len(items), dtype=bool)
    is_planted[planted.rows] = True
    judged = ~np.isnan(r)
    return JudgedCopy(r[judged], is_planted[judged], tested.users[judged])


def some_users(users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool: the interactions of users (n,) drawn at random, all of them or up to MOST_INTERACTIONS and the last one's."""
    lengths = np.bincount(users)
    order = rng.permutation(len(lengths))
    before = np.cumsum(lengths[order]) - lengths[order]  # interactions of the users drawn before
    return np.isin(users, order[before < MOST_INTERACTIONS])


def counted_groups(copy: JudgedCopy, flagged: np.ndarray) -> tuple[np.ndarray, ...]:
    """(m,) bool each: what the four counts of a `SelfTest` are of, in their order."""
    return copy.planted, copy.planted & flagged, ~copy.planted, ~copy.planted & flagged


def count_flagged(copy: JudgedCopy, flagged: np.ndarray) -> SelfTest:
    """How much of the planted noise is flagged (m,), and how much of the rest; without intervals."""
    return SelfTest(*(int(group.sum()) for group in counted_groups(copy, flagged)))


def self_test_figures(copy: JudgedCopy, flagged: np.ndarray) -> SelfTest:
    """`count_flagged`, with intervals."""
    names, user = np.unique(copy.users, return_inverse=True)
    groups = counted_groups(copy, flagged)
    by_user = np.stack([np.bincount(user, group, minlength=len(names)) for group in groups])  # (4, U)
    rng = np.random.default_rng([0, 6])  # the seed of a run has its part in the copy
    drawn = np.stack(
        [by_user @ np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)) for _ in range(DRAWS)]
    )
    planted, planted_flagged, others, others_flagged = drawn.T  # (DRAWS,) each
    return replace(
        count_flagged(copy, flagged),
        found_interval=interval_of_shares(planted_flagged, planted),
        lost_interval=interval_of_shares(others_flagged, others),
        right_interval=interval_of_shares(planted_flagged, planted_flagged + others_flagged),
    )


def interval_of_shares(parts: np.ndarray, wholes: np.ndarray) -> tuple[float, float] | None:
    """The interval of parts / wholes (DRAWS,) over the draws that have a whole."""
    found = interval(parts[wholes > 0] / wholes[wholes > 0])
    return None if found is None else (found[0], found[1])

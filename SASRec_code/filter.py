"""The threshold filter (paper, section 3.4): which positions are suspected enough, and the windows without them.

What is noise is said by stage 2; here thresholds are applied. Arrays of a split are (N, W): W = L + 1 places a window, left-padded
with item 0, the target last.
"""

from dataclasses import dataclass

import numpy as np
from options import FilterOptions, stored_kind
from rows import LoadedRows, RowEvidence

from denoise_code.common.errors import InputError
from denoise_code.common.statistics import precision_and_recall
from denoise_code.data_set.evidence_files import noise_probability
from denoise_code.data_set.padded_rows import Split
from denoise_code.data_set.planting import INJECTED


def weigh(rows: LoadedRows, options: FilterOptions) -> dict[str, np.ndarray]:
    """{split: how strongly each position (N, W) is suspected}, NaN where nothing is scored, for the rows to filter.

    Of `random` it is what `fused` says: `edit_split` exchanges it.
    """
    return {name: suspicion(rows, name, options) for name in options.splits}


def suspicion(rows: LoadedRows, name: str, options: FilterOptions) -> np.ndarray:
    """(N, W) of one split: the paper's noise_prob, the truth, or P(noise) with the share of noise that is taken."""
    split = rows.splits[name]
    if options.evidence == "raw":
        return split.noise_prob
    if options.evidence == "oracle":
        return np.where(split.editable, split.mask == INJECTED, np.nan)
    return noise_probability(rows.evidence[name].r[stored_kind(options.evidence)], noise_share(rows, options))


def noise_share(rows: LoadedRows, options: FilterOptions) -> float:
    """The share of noise that P(noise) takes: --noise_share, else that of the evidence."""
    return rows.record["noise_share"] if options.noise_share is None else options.noise_share


def check_suggestions(rows: LoadedRows, options: FilterOptions) -> None:
    """InputError where replacements by the language model are asked for and the rows have none."""
    if options.edit == "replace" and options.evidence == "raw":
        for name in options.splits:
            if rows.splits[name].suspects is None:
                raise InputError(f"{rows.splits[name].path}: suggests no replacements; use other --evidence, or --edit delete")


def edit_splits(
    rows: LoadedRows, probabilities: dict[str, np.ndarray], options: FilterOptions, draw: int = 0
) -> dict[str, "Edits"]:
    """{split: its rows after the threshold filter, or before noise with --clean}; prints what was edited.

    probabilities: {split to filter: how strongly each position (N, W) is suspected}. draw: number of the draw of random places.
    """
    return {name: edit_or_keep(rows, name, probabilities, options, draw) for name in rows.splits}


@dataclass(frozen=True)
class Edits:
    """Windows (N, W) after the filter, and how much was edited. n_interactions: different train interactions, else positions."""

    windows: np.ndarray
    n_flagged: int
    n_replaced: int
    n_deleted: int
    n_interactions: int

    def counts(self) -> dict[str, int]:
        """For run.json."""
        names = ("n_flagged", "n_replaced", "n_deleted", "n_interactions")
        return {name.removeprefix("n_"): getattr(self, name) for name in names}


def edit_or_keep(
    rows: LoadedRows, name: str, probabilities: dict[str, np.ndarray], options: FilterOptions, draw: int = 0
) -> Edits:
    """One split of `edit_splits`: without probabilities nothing is edited."""
    if name in probabilities:
        return edit_split(rows, name, probabilities[name], options, draw)
    split = rows.splits[name]
    return Edits(split.clean if options.clean else split.items, 0, 0, 0, 0)


def edit_split(rows: LoadedRows, name: str, prob: np.ndarray, options: FilterOptions, draw: int) -> Edits:
    """One split, filtered; prints what was edited."""
    split, evidence = rows.splits[name], rows.evidence.get(name)
    if options.evidence == "random":
        prob = shuffle_probabilities(rows, name, prob, draw)
    flagged = flag(rows.splits, name, prob, options)
    replacement = choose_replacements(split, flagged, options, evidence)
    windows, is_replaced, is_deleted = apply_edits(split.items, flagged, replacement, prob)
    print(f"{name}: {flagged.sum():,} of {split.editable.sum():,} positions flagged ({describe_edits(split, flagged)})")
    n_without_replacement = int((flagged & (replacement == 0)).sum())
    if options.edit == "replace" and n_without_replacement:
        print(f"{name}: {n_without_replacement:,} of them have no replacement and are deleted")
    n_flagged = int(flagged.sum())
    n_spared = n_flagged - int(is_replaced.sum()) - int(is_deleted.sum())
    if n_spared:
        print(f"{name}: {n_spared:,} of them stay, as two items of a window always do")
    interactions = None if evidence is None else evidence.interactions
    n_interactions = n_flagged if interactions is None else len(np.unique(interactions[flagged]))
    return Edits(windows, n_flagged, int(is_replaced.sum()), int(is_deleted.sum()), n_interactions)


def flag(splits: dict[str, Split], name: str, prob: np.ndarray, options: FilterOptions) -> np.ndarray:
    """Positions (N, W) bool of the split `name` to edit.

    raw: the row's first suspects above the percentile `threshold`, at all their occurrences (paper). Other evidence: the row's highest
    P(noise) above `threshold`.
    """
    limits = options.limits_of(name)
    if options.evidence != "raw":
        return flag_probable(prob, limits.threshold, limits.max_edits)
    split = splits[name]
    reference = splits["valid"] if name == "test" and options.threshold_from == "valid" else split
    threshold = percentile(reference, limits.threshold)
    n_unlisted = rows_with_unlisted(split, threshold, limits.max_edits)
    if n_unlisted:
        print(f"{name}: in {n_unlisted:,} rows more items are above the threshold than the language model listed as suspects")
    return flag_suspects(split, threshold, limits.max_edits)


def choose_replacements(split: Split, flagged: np.ndarray, options: FilterOptions, evidence: RowEvidence | None) -> np.ndarray:
    """Item (N, W) int64 to put in the place of what is flagged (N, W); 0: delete it.

    Of raw evidence the language model's suggestions, else the one replacement that stage 2 chose for an interaction.
    """
    if options.edit == "delete":
        return np.zeros_like(split.items)
    if options.evidence == "raw":
        return suggested_replacements(split)
    return np.where(flagged, evidence.replacements, 0)


def shuffle_probabilities(rows: LoadedRows, name: str, prob: np.ndarray, draw: int) -> np.ndarray:
    """The probabilities (N, W) at random places, for a control: as many edits, which know nothing of where noise is.

    Those of a user's train interactions are exchanged, each in all rows that hold it; of other rows, those of a row's items. What
    would stand in a place stays with the place. draw: seed of the places.
    """
    rng = np.random.default_rng(draw)
    evidence = rows.evidence.get(name)
    if evidence is not None and evidence.interactions is not None:
        return shuffle_in_users(evidence.interactions, rows.users_of_interactions, prob, rng)
    return shuffle_in_rows(prob, rng)


def shuffle_in_users(interactions: np.ndarray, users: np.ndarray, prob: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """prob (N, W), one value an interaction, with the values of each user's interactions exchanged among these.

    interactions (N, W): which interaction a place is; users (n,): whose an interaction is, ascending.
    """
    is_scored = ~np.isnan(prob)
    # numbers (I,) ascend, and so do their users; index (scored positions,) says which of them a position is
    numbers, first_position, index = np.unique(interactions[is_scored], return_index=True, return_inverse=True)
    prob_of_interaction = prob[is_scored][first_position]  # (I,)
    # Sorted by user, then by a random number: as users ascend, place i of this order belongs to the user of interaction i.
    order = np.lexsort((rng.random(len(numbers)), users[numbers]))  # (I,)
    shuffled = prob.copy()
    shuffled[is_scored] = prob_of_interaction[order][index]
    return shuffled


def shuffle_in_rows(prob: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """prob (N, W) with the values of each row exchanged among its scored positions."""
    random_keys = np.where(np.isnan(prob), np.inf, rng.random(prob.shape))  # (N, W)
    random_places = random_keys.argsort(1)  # (N, W) scored positions of a row in random order, then those without a score
    descending = -np.sort(-prob, axis=1)  # (N, W) NaN last, so that it meets the positions without a score
    shuffled = np.empty_like(prob)
    np.put_along_axis(shuffled, random_places, descending, axis=1)
    return shuffled


def selection_windows(splits: dict[str, Split], edited: dict[str, np.ndarray], select_on: str, clean: bool) -> np.ndarray:
    """Windows (N, W) of --select_on, whose NDCG@20 chooses the epoch; edited: what `edit_splits` made of the splits.

    The histories of valid are taken as they are (with --clean as they were before noise), whatever the filter does to them:
    so one training serves all edits of valid and test histories, and the choice among these has no part in it. Test, with
    --select_on test, is taken as it is ranked: the best figure that is reported, which is the release's way.
    """
    if select_on == "test":
        return edited["test"]
    return splits["valid"].clean if clean else splits["valid"].items


def describe_edits(split: Split, flagged: np.ndarray) -> str:
    """Precision and recall of flagged (N, W) on injected noise, in words."""
    noise = (split.mask == INJECTED) & split.editable
    if not noise.any():
        return "no injected noise is marked"
    precision, recall = precision_and_recall(noise, flagged)
    return f"{precision or 0:.1%} of them injected noise, {recall:.1%} of the injected noise"


def percentile(split: Split, share: float) -> float:
    """The noise_prob, a log-probability, that `share` of the scored positions of a split do not exceed."""
    return float(np.nanquantile(split.noise_prob, share))


def suggested_replacements(split: Split) -> np.ndarray:
    """The language model's suggestion (N, W) int64 at every editable occurrence of a suspect, 0 elsewhere."""
    replacement = np.zeros_like(split.items)
    if split.suspects is None:
        return replacement
    n_suspects = split.suspects.shape[1]
    for k in reversed(range(n_suspects)):  # an item that is listed twice gets its first replacement
        is_suspect = (split.items == split.suspects[:, k, None]) & split.editable  # (N, W)
        replacement = np.where(is_suspect, split.suggestions[:, k, None], replacement)
    return replacement


def flag_suspects(split: Split, threshold: float, max_edits: int) -> np.ndarray:
    """Positions (N, W) that the release edits: all occurrences of a row's first `max_edits` suspects above the threshold."""
    is_above = split.suspect_prob > threshold  # (N, K)
    is_above[:, max_edits:] = False
    suspects = np.where(is_above, split.suspects, -1)  # (N, K) -1 is no item
    is_suspect = (split.items[:, :, None] == suspects[:, None, :]).any(-1)  # (N, W, K) -> (N, W)
    return is_suspect & split.editable


def rows_with_unlisted(split: Split, threshold: float, max_edits: int) -> int:
    """Rows with fewer suspects than items above the threshold, up to max_edits: stage 2 ran with a smaller --top_k, or with
    --min_percentile."""
    is_above = split.editable & (split.noise_prob > threshold)  # (N, W)
    items = np.sort(np.where(is_above, split.items, 0), axis=1)  # (N, W) equal items lie next to each other
    is_another = (items[:, 1:] != items[:, :-1]) & (items[:, 1:] != 0)
    n_items_above = is_another.sum(1) + (items[:, 0] != 0)  # (N,) different items
    n_suspects_above = (split.suspect_prob > threshold).sum(1)  # (N,)
    return int((n_suspects_above < np.minimum(n_items_above, max_edits)).sum())


def flag_probable(prob: np.ndarray, threshold: float, max_edits: int) -> np.ndarray:
    """The `max_edits` highest of prob (N, W) in each row that exceed the threshold; NaN never does."""
    is_above = prob > threshold
    return is_above & (rank_in_row(np.where(is_above, prob, -np.inf)) < max_edits)


def rank_in_row(score: np.ndarray) -> np.ndarray:
    """0 for the highest of each row of score (N, W), ties to the earlier."""
    order = (-score).argsort(1, kind="stable")  # (N, W) position of the highest, of the next, …
    return order.argsort(1, kind="stable")  # the inverse: which place in that order a position has


def apply_edits(
    items: np.ndarray, flagged: np.ndarray, replacement: np.ndarray, prob: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(windows, is_replaced, is_deleted), each (N, W): the flagged positions replaced, or deleted where there is no replacement (0).

    At least two items of a window stay: of those to delete the ones with the highest prob (N, W) go first.
    """
    to_replace = flagged & (replacement != 0)
    to_delete = flagged & ~to_replace
    most_deletions = (items != 0).sum(1, keepdims=True) - 2  # (N, 1)
    to_delete &= rank_in_row(np.where(to_delete, prob, -np.inf)) < most_deletions
    edited = np.where(to_replace, replacement, items)
    edited[to_delete] = 0
    padding_first = (edited != 0).argsort(1, kind="stable")  # (N, W) the gaps close towards the target
    return np.take_along_axis(edited, padding_first, axis=1), to_replace, to_delete

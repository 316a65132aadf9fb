"""The threshold filter (paper, section 3.4): which positions are suspected enough, and the windows without them.

Arrays of a split are (N, W): W = L + 1 places a window, left-padded with item 0, the target last.
"""

from pathlib import Path

import numpy as np
from options import FilterOptions
from scipy.special import expit, logit

from denoise_code.common.errors import InputError
from denoise_code.data_set.catalogue import read_titles
from denoise_code.data_set.folder import scored
from denoise_code.data_set.padded_rows import Split, is_train, read_split, read_vectors
from denoise_code.evidence.fit import Evidence, Sources
from denoise_code.neighbours import Replacer


def weigh(
    splits: dict[str, Split], n_items: int, options: FilterOptions, folder: Path, sources: Sources | None = None
) -> dict[str, np.ndarray]:
    """{split: how strongly each position (N, W) is suspected}, NaN where nothing is scored, for the rows to filter.

    sources: where they were read before. Of `random` it is what `fused` says: `denoise` exchanges it.
    """
    chosen = {name: split for name, split in splits.items() if name in options.splits}
    if options.evidence == "raw" or not chosen:
        return {name: split.noise_prob for name, split in chosen.items()}
    if options.evidence == "oracle":
        return {name: np.where(split.editable, split.mask == 1, np.nan) for name, split in chosen.items()}
    kind = "fused" if options.evidence == "random" else options.evidence
    maxlen = splits["train"].items.shape[1] - 1
    evidence = Evidence(kind, sources or read_sources(folder, splits["train"], n_items, maxlen))
    print(f"evidence {kind}: " + ", ".join(f"{name} {value:+.2f}" for name, value in evidence.coefficients().items()))
    weights = {name: evidence.probabilities(split) for name, split in chosen.items()}
    return {name: pooled(splits[name], prob) if name == "train" else prob for name, prob in weights.items()}


def pooled(split: Split, prob: np.ndarray) -> np.ndarray:
    """The mean log-odds of prob (N, W) over the rows that hold an interaction, as a probability: each judges it beside other items."""
    interactions, result, known = split.interactions, prob.copy(), ~np.isnan(prob)
    if interactions is None:
        return prob
    _, number, rows = np.unique(interactions[known], return_inverse=True, return_counts=True)
    log_odds = logit(prob[known].clip(1e-9, 1 - 1e-9))
    result[known] = expit((np.bincount(number, log_odds) / rows)[number])
    return result


def read_sources(folder: Path, train: Split, n_items: int, maxlen: int) -> Sources:
    """What evidence can come from, as far as the folder has it."""
    planted = read_split(folder / "planted.csv", read_titles(folder), maxlen, "needed") if scored(folder) else None
    return Sources(train, n_items, planted, read_vectors(folder, n_items))


def check_replacements(splits: dict[str, Split], options: FilterOptions) -> None:
    """InputError where the language model's replacements are asked for and the rows have none; nothing is learned for that."""
    if options.edit == "delete" or options.replace_with != "suggested":
        return
    for name in options.splits:
        if splits[name].suspects is None:
            raise InputError(f"{splits[name].path}: suggests no replacements; use --replace_with neighbours, or --edit delete")


def make_replacer(splits: dict[str, Split], n_items: int, options: FilterOptions, folder: Path) -> Replacer | None:
    """What finds replacements; None where the language model's are taken, or none are needed. InputError where it has none."""
    check_replacements(splits, options)
    if options.edit == "delete" or options.replace_with == "suggested" or options.denoise_category == "none":
        return None
    replacer = Replacer(splits["train"], n_items, read_vectors(folder, n_items))
    print("replacements: " + ", ".join(f"{name} {value:+.2f}" for name, value in replacer.coefficients().items()))
    return replacer


def denoise(
    splits: dict[str, Split],
    probabilities: dict[str, np.ndarray],
    options: FilterOptions,
    replacer: Replacer | None = None,
    draw: int = 0,
) -> dict[str, np.ndarray]:
    """{split: windows (N, W)} after the threshold filter, or before noise with --clean; prints what was edited.

    probabilities: {split to filter: how strongly each position (N, W) is suspected}. draw: number of the draw of random places.
    """
    windows = {name: split.clean if options.clean else split.items for name, split in splits.items()}
    for name, prob in probabilities.items():
        split = splits[name]
        if options.evidence == "random":
            prob = shuffle_probabilities(split, prob, draw)
        flagged = flag(splits, name, prob, options)
        replacement = choose_replacements(split, flagged, options, replacer)
        windows[name] = apply_edits(split.items, flagged, replacement, prob)
        print(f"{name}: {flagged.sum():,} of {split.editable.sum():,} positions flagged ({describe_edits(split, flagged)})")
        n_without_replacement = (flagged & (replacement == 0)).sum()
        if options.edit == "replace" and n_without_replacement:
            print(f"{name}: {n_without_replacement:,} of them have no replacement and are deleted")
    return windows


def flag(splits: dict[str, Split], name: str, prob: np.ndarray, options: FilterOptions) -> np.ndarray:
    """Positions (N, W) bool of the split `name` that are suspected enough to be edited."""
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


def choose_replacements(split: Split, flagged: np.ndarray, options: FilterOptions, replacer: Replacer | None) -> np.ndarray:
    """Item (N, W) int64 to put in the place of what is flagged (N, W); 0: delete it."""
    if options.edit == "delete":
        return np.zeros_like(split.items)
    return replacer.replacements(split, flagged) if replacer else suggested_replacements(split)


def shuffle_probabilities(split: Split, prob: np.ndarray, draw: int) -> np.ndarray:
    """The probabilities (N, W) at random places, for a control: as many edits, which know nothing of where noise is.

    Of train rows that tell their interactions, those of a user's interactions are exchanged, each in all rows that hold it; of other
    rows, those of a row's items. draw: seed of the places.
    """
    rng = np.random.default_rng(draw)
    if is_train(split.path) and split.places is not None:
        return shuffle_in_users(split, prob, rng)
    return shuffle_in_rows(prob, rng)


def shuffle_in_users(split: Split, prob: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """prob (N, W), one value an interaction, with the values of each user's interactions exchanged among these."""
    is_scored = ~np.isnan(prob)
    # interactions (I,) ascend, by user and place; index (scored positions,) says which of them a position is
    interactions, first_position, index = np.unique(split.interactions[is_scored], return_index=True, return_inverse=True)
    prob_of_interaction = prob[is_scored][first_position]  # (I,)
    users = interactions // (split.places.max() + 1)  # (I,) as `Split.interactions` numbers them
    # Sorted by user, then by a random number: as users ascend, place i of this order belongs to the user of interaction i.
    order = np.lexsort((rng.random(len(interactions)), users))  # (I,)
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
    """Windows (N, W) of --select_on, whose NDCG@20 chooses the epoch; edited: what `denoise` made of the splits.

    The histories of valid are taken as they are (with --clean as they were before noise), whatever the filter does to them:
    so one training serves all edits of valid and test histories, and the choice among these has no part in it. Test, with
    --select_on test, is taken as it is ranked: the best figure that is reported, which is the release's way.
    """
    if select_on == "test":
        return edited["test"]
    return splits["valid"].clean if clean else splits["valid"].items


def describe_edits(split: Split, flagged: np.ndarray) -> str:
    """Precision and recall of flagged (N, W) on injected noise, in words."""
    noise = (split.mask == 1) & split.editable
    if not noise.any():
        return "no injected noise is marked"
    n_found = (flagged & noise).sum()
    precision, recall = n_found / max(flagged.sum(), 1), n_found / noise.sum()
    return f"{precision:.1%} of them injected noise, {recall:.1%} of the injected noise"


def percentile(split: Split, share: float) -> float:
    """The noise probability that `share` of the scored positions of a split do not exceed."""
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


def apply_edits(items: np.ndarray, flagged: np.ndarray, replacement: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Windows (N, W) with the flagged positions replaced, or deleted where there is no replacement (0).

    At least two items of a window stay: of those to delete the ones with the highest prob (N, W) go first.
    """
    to_replace = flagged & (replacement != 0)
    to_delete = flagged & ~to_replace
    most_deletions = (items != 0).sum(1, keepdims=True) - 2  # (N, 1)
    to_delete &= rank_in_row(np.where(to_delete, prob, -np.inf)) < most_deletions
    edited = np.where(to_replace, replacement, items)
    edited[to_delete] = 0
    padding_first = (edited != 0).argsort(1, kind="stable")  # (N, W) the gaps close towards the target
    return np.take_along_axis(edited, padding_first, axis=1)

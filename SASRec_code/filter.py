"""The threshold filter (paper, section 3.4): which positions are suspected enough, and the windows without them.

Knows nothing of recommenders.
"""

from pathlib import Path

import numpy as np
from scipy.special import expit, logit

from denoise_code.common.errors import InputError
from denoise_code.data_set.catalogue import read_titles
from denoise_code.data_set.folder import SPLITS, scored
from denoise_code.data_set.padded_rows import Split, is_train, read_split, read_vectors
from denoise_code.evidence.window_fit import Evidence, Sources
from denoise_code.neighbours import Replacer

FILTERED = {"none": (), "train": ("train",), "test": ("valid", "test"), "all": SPLITS}  # --denoise_category


def weigh(splits: dict, n_items: int, args, sources: Sources | None = None) -> dict[str, np.ndarray]:
    """{split: how strongly each position (N, W) is suspected}, NaN where nothing is scored, for the rows to filter.

    sources: where they were read before. Of `random` it is what `fused` says: `denoise` exchanges it.
    """
    filtered = FILTERED[args.denoise_category]
    chosen = {name: split for name, split in splits.items() if name in filtered}
    if args.evidence == "raw" or not chosen:
        return {name: split.noise_prob for name, split in chosen.items()}
    if args.evidence == "oracle":
        return {name: np.where(split.editable, split.mask == 1, np.nan) for name, split in chosen.items()}
    kind = "fused" if args.evidence == "random" else args.evidence
    evidence = Evidence(kind, sources or read_sources(args.data_root / args.dataset, splits["train"], n_items, args.maxlen))
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


def shuffled(split: Split, prob: np.ndarray, draw: int) -> np.ndarray:
    """The probabilities (N, W) at random places: as many edits, with nothing known of where.

    Of train rows, as `pooled` leaves them, those of a user's interactions are exchanged, each in all rows that hold it; elsewhere those
    of a row's items.
    """
    rng, known = np.random.default_rng(draw), ~np.isnan(prob)
    if is_train(split.path) and split.places is not None:
        result = prob.copy()
        names, first, number = np.unique(split.interactions[known], return_index=True, return_inverse=True)
        owners = names // (split.places.max() + 1)
        result[known] = prob[known][first][np.lexsort((rng.random(len(first)), owners))][number]
        return result
    keys, result = np.where(known, rng.random(prob.shape), np.inf), np.empty_like(prob)
    np.put_along_axis(result, keys.argsort(1), -np.sort(-prob, 1), 1)  # NaN to the places that are not scored
    return result


def read_sources(folder: Path, train: Split, n_items: int, maxlen: int) -> Sources:
    """What evidence can come from, as far as the folder has it."""
    planted = read_split(folder / "planted.csv", read_titles(folder), maxlen, "needed") if scored(folder) else None
    return Sources(train, n_items, planted, read_vectors(folder, n_items))


def check_replacements(splits: dict, args) -> None:
    """InputError where the language model's replacements are asked for and the rows have none; nothing is learned for that."""
    if args.edit == "delete" or args.replace_with != "suggested":
        return
    for name in FILTERED[args.denoise_category]:
        if splits[name].suspects is None:
            raise InputError(f"{splits[name].path}: suggests no replacements; use --replace_with neighbours, or --edit delete")


def make_replacer(splits: dict, n_items: int, args) -> Replacer | None:
    """What finds replacements; None where the language model's are taken, or none are needed. InputError where it has none."""
    check_replacements(splits, args)
    if args.edit == "delete" or args.replace_with == "suggested" or args.denoise_category == "none":
        return None
    replacer = Replacer(splits["train"], n_items, read_vectors(args.data_root / args.dataset, n_items))
    print("replacements: " + ", ".join(f"{name} {value:+.2f}" for name, value in replacer.coefficients().items()))
    return replacer


def denoise(splits: dict, weights: dict, args, replacer: Replacer | None = None, draw: int = 0) -> dict[str, np.ndarray]:
    """{split: windows (N, W)} after the threshold filter, or before noise with --clean; draw: of random places."""
    windows = {name: split.clean if args.clean else split.items for name, split in splits.items()}
    for name, weight in weights.items():
        split = splits[name]
        if args.evidence == "random":
            weight = shuffled(split, weight, draw)
        part = "train" if name == "train" else "test"
        threshold, most = getattr(args, f"{part}_noise_filter_threshold"), getattr(args, f"{part}_max_denoise_num")
        if args.evidence == "raw":
            reference = splits["valid"] if name == "test" and args.threshold_from == "valid" else split
            above = percentile(reference, threshold)
            flagged = flag_suspects(split, above, most)
            if unlisted := rows_with_unlisted(split, above, most):
                print(
                    f"{name}: in {unlisted:,} rows more items are above the threshold than the language model listed as suspects"
                )
        else:
            flagged = flag_probable(weight, threshold, most)
        if args.edit == "delete":
            instead = np.zeros_like(split.items)
        elif replacer:
            instead = replacer.replacements(split, flagged)
        else:
            instead = replacements(split)
        windows[name] = apply_edits(split.items, flagged, instead, weight)
        print(f"{name}: {flagged.sum():,} of {split.editable.sum():,} positions flagged ({describe_edits(split, flagged)})")
        if args.edit == "replace" and (without := flagged & (instead == 0)).any():
            print(f"{name}: {without.sum():,} of them have no replacement and are deleted")
    return windows


def selection_windows(splits: dict, edited: dict[str, np.ndarray], args) -> np.ndarray:
    """Windows (N, W) of --select_on, whose NDCG@20 chooses the epoch; edited: what `denoise` made of the splits.

    The histories of valid are taken as they are (with --clean as they were before noise), whatever the filter does to them:
    so one training serves all edits of valid and test histories, and the choice among these has no part in it. Test, with
    --select_on test, is taken as it is ranked: the best figure that is reported, which is the release's way.
    """
    if args.select_on == "test":
        return edited["test"]
    return splits["valid"].clean if args.clean else splits["valid"].items


def describe_edits(split, flagged: np.ndarray) -> str:
    noise = (split.mask == 1) & split.editable
    if not noise.any():
        return "no injected noise is marked"
    hits = (flagged & noise).sum()
    return f"{hits / max(flagged.sum(), 1):.1%} of them injected noise, {hits / noise.sum():.1%} of the injected noise"


def percentile(split: Split, share: float) -> float:
    """The noise probability that `share` of the scored positions of a split do not exceed."""
    return float(np.nanquantile(split.noise_prob, share))


def replacements(split: Split) -> np.ndarray:
    """The suggested item (N, W) at every editable occurrence of a suspect, 0 elsewhere."""
    replacement = np.zeros_like(split.items)
    if split.suspects is not None:
        for k in reversed(range(split.suspects.shape[1])):  # an item that is listed twice gets its first replacement
            hit = (split.items == split.suspects[:, k, None]) & split.editable
            replacement = np.where(hit, split.suggestions[:, k, None], replacement)
    return replacement


def flag_suspects(split: Split, threshold: float, max_denoise_num: int) -> np.ndarray:
    """Positions (N, W) that the release edits: all occurrences of a row's first suspects above the threshold."""
    counts = split.suspect_prob > threshold
    counts[:, max_denoise_num:] = False
    suspects = np.where(counts, split.suspects, -1)
    return (split.items[:, :, None] == suspects[:, None, :]).any(-1) & split.editable


def rows_with_unlisted(split: Split, threshold: float, max_denoise_num: int) -> int:
    """Rows with fewer suspects than items above the threshold, up to max_denoise_num: stage 2 ran with a smaller --top_k, or with
    --min_percentile."""
    items = np.sort(np.where(split.editable & (split.noise_prob > threshold), split.items, 0), 1)
    different = ((items[:, 1:] != items[:, :-1]) & (items[:, 1:] != 0)).sum(1) + (items[:, 0] != 0)
    return int(((split.suspect_prob > threshold).sum(1) < np.minimum(different, max_denoise_num)).sum())


def flag_probable(prob: np.ndarray, threshold: float, max_denoise_num: int) -> np.ndarray:
    """The `max_denoise_num` highest of prob (N, W) in each row that exceed the threshold; NaN never does."""
    above = prob > threshold
    return above & (rank_in_row(np.where(above, prob, -np.inf)) < max_denoise_num)


def rank_in_row(score: np.ndarray) -> np.ndarray:
    """0 for the highest of each row of score (N, W), ties to the earlier."""
    return (-score).argsort(1, kind="stable").argsort(1, kind="stable")


def apply_edits(items, flagged, replacement, prob) -> np.ndarray:
    """Windows (N, W) with the flagged positions replaced, or deleted where there is no replacement (0).

    At least two items of a window stay: of those to delete the ones with the highest prob (N, W) go first.
    """
    replaced = flagged & (replacement != 0)
    delete = flagged & ~replaced
    delete &= rank_in_row(np.where(delete, prob, -np.inf)) < (items != 0).sum(1, keepdims=True) - 2
    edited = np.where(replaced, replacement, items)
    edited[delete] = 0
    return np.take_along_axis(edited, (edited != 0).argsort(1, kind="stable"), 1)  # the gaps close towards the target

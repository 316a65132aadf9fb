"""The figures of a cleaned log that report.html shows: suspects between their neighbours, rare items, kinds of evidence. No files."""

import numpy as np

from denoise_code.cleaning.flagging import flag_above
from denoise_code.cleaning.records import JudgedRecords, PreparedLog
from denoise_code.cleaning.report import MOST_SUSPECTS, EvidenceRow, RarityRow, ThresholdRow
from denoise_code.cleaning.self_test import JudgedCopy, count_flagged
from denoise_code.common.suspects import AROUND, Item, SuspiciousInteraction
from denoise_code.data_set.evidence_files import noise_probability
from denoise_code.judging import FiguresOfKinds

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RARITY = ((1, 1), (2, 4), (5, 19), (20, None))  # users who have an item: from, to


def rarity_rows(prepared: PreparedLog, judged: JudgedRecords, flagged: np.ndarray, users_of_item: np.ndarray) -> list[RarityRow]:
    """Judged records by how many users have their item; flagged (N,) bool, users_of_item (n_items + 1,)."""
    log = prepared.log
    users = users_of_item[log.items[prepared.distinct.interaction_of_record]]  # (N,)
    rows = []
    for least, most in RARITY:
        is_in_group = (users >= least) & (users <= (np.inf if most is None else most)) & ~np.isnan(judged.probability)
        mean = float(judged.probability[is_in_group].mean()) if is_in_group.any() else None
        rows.append(RarityRow(least, most, int(is_in_group.sum()), int(flagged[is_in_group].sum()), mean))
    return rows


def threshold_rows(judged: JudgedRecords, copy: JudgedCopy, noise_share: float) -> list[ThresholdRow]:
    """What each of THRESHOLDS flags in the log and in the copy of the self-test."""
    of_copy = noise_probability(copy.r, noise_share)
    rows = []
    for threshold in THRESHOLDS:
        test = count_flagged(copy, of_copy > threshold)
        rows.append(ThresholdRow(threshold, int(flag_above(judged, threshold).sum()), test.found, test.right))
    return rows


def most_suspicious(
    prepared: PreparedLog, judged: JudgedRecords, flagged: np.ndarray, place_of_record
) -> list[SuspiciousInteraction]:
    """Up to MOST_SUSPECTS interactions, the most suspicious first, each between the user's items around it.

    place_of_record(record) -> text that tells a reader where it stands.
    """
    distinct, log = prepared.distinct, prepared.log
    first_records = np.flatnonzero(~distinct.is_duplicate & ~np.isnan(judged.r))
    order = first_records[np.argsort(-judged.r[first_records], kind="stable")][:MOST_SUSPECTS]

    def item_of(item: int) -> Item:
        return Item(log.item_keys[item], prepared.shown_titles[item] or "")

    suspects = []
    for record in order.tolist():
        row = int(distinct.interaction_of_record[record])
        before, after = (neighbours(log.users, row, step) for step in (-1, 1))
        replacement = int(judged.replacement[record])
        suspects.append(
            SuspiciousInteraction(
                location=place_of_record(record),
                user=log.user_keys[log.users[row]],
                item=item_of(log.items[row]),
                probability=float(judged.probability[record]),
                is_flagged=bool(flagged[record]),
                replacement=item_of(replacement) if replacement else None,
                before=[item_of(log.items[other]) for other in reversed(before)],
                after=[item_of(log.items[other]) for other in after],
            )
        )
    return suspects


def neighbours(users: np.ndarray, row: int, step: int) -> list[int]:
    """Up to AROUND rows of the same user beside a row of a sorted log, the nearest first; step -1: before it, 1: after it."""
    rows = range(row + step, row + step * (AROUND + 1), step)
    return [other for other in rows if 0 <= other < len(users) and users[other] == users[row]]


def evidence_rows(figures: FiguresOfKinds) -> list[EvidenceRow]:
    """A row for each kind of evidence."""
    context = figures.detection["auc_context"]
    return [
        EvidenceRow(kind, bound, context[kind]["auc"] if context.get(kind) else None)
        for kind, bound in figures.share_bound.items()
    ]

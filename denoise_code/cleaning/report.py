"""report.html of a cleaned log: how much noise there can be, whether to trust what was flagged, and the most suspicious lines.

`write_report` takes a `CleaningReport` and no files: whoever cleans a log counts, this module says it.
"""

import html
from dataclasses import dataclass, field
from pathlib import Path

from denoise_code.common import suspects
from denoise_code.common.page import cards, details, page, percent, table, write_page
from denoise_code.common.suspects import SuspiciousInteraction
from denoise_code.data_set.evidence_files import BOUND_CONFIDENCE

MOST_SUSPECTS = 500
LEAST_PLANTED = 50  # in the self-test; fewer say nothing
FEW_USERS = 5  # who have an item: fewer, and it is rare
MEANING_OF_STATUS = {
    "scored": "scored: judged by all evidence",
    "no_title": "no_title: judged by co-occurrence alone",
    "too_short": "too_short: not judged, the user's only line",
    "duplicate": "duplicate: the same user, item and time as a line before, judged with it",
}


@dataclass(frozen=True)
class SelfTest:
    """Random items planted into a copy of the log, judged with what was learned from the log.

    n_planted, n_planted_flagged: planted interactions, and how many of them are flagged by the report's rule. n_others,
    n_others_flagged: the same of the interactions that were left as they are. The intervals are (low, high) of 95 %, users drawn;
    None where there are too few users. `found` is the share of planted ones that is flagged, `lost` that of the others, `right`
    the share of planted ones in what is flagged.
    """

    n_planted: int
    n_planted_flagged: int
    n_others: int
    n_others_flagged: int
    found_interval: tuple[float, float] | None = None
    lost_interval: tuple[float, float] | None = None
    right_interval: tuple[float, float] | None = None

    @property
    def share_planted(self) -> float:
        """Of the interactions of the copy."""
        return self.n_planted / max(self.n_planted + self.n_others, 1)

    @property
    def found(self) -> float:
        return self.n_planted_flagged / max(self.n_planted, 1)

    @property
    def lost(self) -> float:
        return self.n_others_flagged / max(self.n_others, 1)

    @property
    def right(self) -> float | None:
        n_flagged = self.n_planted_flagged + self.n_others_flagged
        return self.n_planted_flagged / n_flagged if n_flagged else None

    @property
    def tells_noise(self) -> bool:
        """Whether planted interactions are flagged clearly more often than others: twice as often, and no chance of few users."""
        if self.found_interval and self.lost_interval and self.found_interval[0] <= self.lost_interval[1]:
            return False
        return self.found > 2 * self.lost


@dataclass(frozen=True)
class ThresholdRow:
    """What another --threshold would flag: n_flagged lines of the log; of the self-test's planted noise the share `found`.

    right: the share of planted ones in what it flags of the self-test's copy; None where that is nothing.
    """

    threshold: float
    n_flagged: int
    found: float
    right: float | None


@dataclass(frozen=True)
class RarityRow:
    """Judged lines whose item `least_users` to `most_users` users have (None: or more).

    n_flagged: of them. mean_probability: None where there is no line.
    """

    least_users: int
    most_users: int | None
    n_lines: int
    n_flagged: int
    mean_probability: float | None


@dataclass(frozen=True)
class EvidenceRow:
    """What one kind of evidence (`collaborative`, ..., `fused`) allows and how well it tells noise.

    share_bound: noise at most, 0..1. auc_context: the AUC on planted items as popular as the log's own, None where not measured.
    """

    kind: str
    share_bound: float
    auc_context: float | None


@dataclass(frozen=True)
class CleaningReport:
    """All that the page says.

    log: name of the log's file. n_records: data lines of it. status_counts {status of scored.csv: lines}. noise_share: what the
    probabilities assume. share_bound: noise at most, holds with BOUND_CONFIDENCE. rule: which lines
    are flagged, in words; is_confirmed: a person has read them. n_flagged: lines flagged. is_replaced: flagged lines
    have their item exchanged in cleaned.csv; else they are left out. taught_by: the folder of --like, which bound and self-test are of;
    None: the log itself. suspects: most suspicious first, up to MOST_SUSPECTS.
    rarity: rarest items first.
    """

    log: str
    n_records: int
    n_users: int
    n_items: int
    status_counts: dict[str, int]
    noise_share: float
    share_bound: float
    rule: str
    n_flagged: int
    suspects: list[SuspiciousInteraction]
    self_test: SelfTest | None = None
    thresholds: list[ThresholdRow] = field(default_factory=list)
    rarity: list[RarityRow] = field(default_factory=list)
    evidence: list[EvidenceRow] = field(default_factory=list)
    is_confirmed: bool = False
    is_replaced: bool = False
    taught_by: str | None = None


def write_report(path: Path, report: CleaningReport) -> None:
    """One self-contained HTML file, whole or absent."""
    write_page(path, page(f"Noise in {report.log}", sections(report), suspects.STYLE, suspects.SCRIPT))


def sections(report: CleaningReport) -> list[str]:
    """The page below its heading: what a person acts on first."""
    return [
        paragraph(
            f"{report.n_records:,} lines of {report.n_users:,} users and {report.n_items:,} items. Noise is what does not belong in "
            "its user's history: a gift, a mis-click, something bought for somebody else."
        ),
        cards(headlines(report)),
        verdict_box(report),
        *threshold_section(report),
        when_not_to_trust(report),
        suspects.suspects_section("The most suspicious lines", introduce_suspects(report), report.suspects),
        *rarity_section(report.rarity),
        details("More figures", [*status_section(report), *self_test_section(report.self_test), *evidence_section(report)]),
    ]


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def headlines(report: CleaningReport) -> list[tuple[str, str]]:
    """(figure, what it is): noise at most, lines flagged, what the self-test says of both kinds of errors."""
    deed = "exchanged" if report.is_replaced else "left out"
    flagged_share = report.n_flagged / max(report.n_records, 1)
    lines_of_bound = "judged lines" if report.taught_by is None else f"lines of the log in {report.taught_by}"
    figures = [
        (
            f"{percent(report.share_bound)} at most",
            f"of the {lines_of_bound} are noise of the kind that is looked for ({BOUND_CONFIDENCE:.0%} confidence); the probabilities "
            f"assume {percent(report.noise_share)} (--noise_share)",
        ),
        (f"{report.n_flagged:,} flagged", f"lines ({percent(flagged_share)}), {report.rule}; {deed} in cleaned.csv"),
    ]
    test = report.self_test
    if test is not None:
        figures += [
            (
                f"{percent(test.found)} found",
                f"of the noise that a self-test planted into a copy of {self_test_log(report)}, by the same rule",
            ),
            (f"{percent(test.lost)} lost", "of everything else in that copy, flagged with it"),
        ]
    return figures


def verdict(test: SelfTest | None, is_confirmed: bool = False) -> tuple[str, str]:
    """(class of the box, a few plain sentences): whether to act on the flags. is_confirmed: a person has read them."""
    if is_confirmed:
        return "good", "Flagged are the lines that you have confirmed."
    if test is None:
        return "", "Not tested: there was no self-test on this log. Read each line before you leave it out."
    if test.n_planted < LEAST_PLANTED:
        return "", f"Only {test.n_planted} items could be planted in the self-test. Read each line before you leave it out."
    if test.right is None:
        return "bad", (
            "Nothing is told at this threshold. In the self-test nothing is flagged, not even noise that was planted: that no line is "
            "flagged does not mean that the log is clean."
        )
    if not test.tells_noise:
        return "bad", "Do not clean by this list. In the self-test noise is hardly told from the rest of the log."
    if test.right < 0.5:
        return "", (
            "Read each line before you leave it out. In the self-test most of what is flagged was not planted, but the order says "
            "where to look first."
        )
    if test.right_interval and test.right_interval[0] < 0.5:
        return "", (
            "Read each line before you leave it out. In the self-test most of what is flagged was planted, but with other users it may "
            "be less than half. The order says where to look first."
        )
    trust = f"The flags are worth trusting if about {percent(test.share_planted)} of the log are noise, as in the self-test"
    if test.found < 0.5:
        return "good", (
            f"{trust}, but they are not all. There most of what is flagged is noise, and most of the noise stays in. A lower threshold "
            "finds more, and errs more. With less noise in the log more of the flags are wrong."
        )
    return "good", (
        f"{trust}. There most of the noise is found, and most of what is flagged is noise. With less noise in the log more of the flags "
        "are wrong."
    )


def verdict_box(report: CleaningReport) -> str:
    kind, sentence = verdict(report.self_test, report.is_confirmed)
    parts = [f"<p><b>{html.escape(sentence)}</b></p>"]
    if report.self_test is not None:
        parts.append(paragraph(describe_self_test(report.self_test, self_test_log(report))))
    return f'<div class="verdict {kind}">{"".join(parts)}</div>'


def self_test_log(report: CleaningReport) -> str:
    return "this log" if report.taught_by is None else f"the log in {report.taught_by}"


def describe_self_test(test: SelfTest, log: str) -> str:
    """The self-test in words; log: what noise was planted into a copy of."""
    text = (
        f"Self-test: {test.n_planted:,} random items were planted into a copy of {log} ({percent(test.share_planted)} of its lines). "
        f"{percent(test.found)}{describe(test.found_interval)} of them are flagged, and "
        f"{percent(test.lost)}{describe(test.lost_interval)} of all other lines."
    )
    if test.right is not None:
        text += (
            f" So {percent(test.right)}{describe(test.right_interval)} of what is flagged was planted. The rest are wrong flags, or noise "
            "that the log had before. In a log with less noise than was planted, more of the flags are wrong."
        )
    return text


def describe(interval: tuple[float, float] | None) -> str:
    """` (26% to 30%)`; nothing where there is none."""
    return "" if interval is None else f" ({percent(interval[0])} to {percent(interval[1])})"


def threshold_section(report: CleaningReport) -> list[str]:
    if not report.thresholds:
        return []
    cells = [
        [f"{row.threshold:g}", row.n_flagged, percent(row.found), None if row.right is None else percent(row.right)]
        for row in report.thresholds
    ]
    return [
        "<h2>Which threshold?</h2>",
        paragraph(
            "What each --threshold flags, and what the self-test says of it. A lower one finds more, and errs more. The same command with "
            "another threshold learns nothing anew."
        ),
        table(["threshold", "lines flagged", "planted noise found", "of the flagged, planted"], cells),
    ]


def when_not_to_trust(report: CleaningReport) -> str:
    """Limits of the method, with this log's numbers where it has them."""
    limits = [
        "Noise that belongs together is not found: what somebody else bought over weeks looks like a taste.",
        "An interest that no other user shares looks like noise. Whether it is, only the user knows.",
        *compare_rarity(report.rarity),
        *items_of_one_user(report),
    ]
    points = "".join(f"<li>{html.escape(limit)}</li>" for limit in limits)
    return f"<h2>When not to trust it</h2><ul>{points}</ul>"


def compare_rarity(rows: list[RarityRow]) -> list[str]:
    """One sentence on the rare and the common items of the log; none where there are not both."""
    rare = [row for row in rows if row.most_users is not None and row.most_users < FEW_USERS]
    common = [row for row in rows if row.most_users is None]
    lines_of_rare, lines_of_common = (sum(row.n_lines for row in group) for group in (rare, common))
    if not lines_of_rare or not lines_of_common:
        return []
    flagged_of_rare, flagged_of_common = (sum(row.n_flagged for row in group) for group in (rare, common))
    return [
        f"Rare items are judged from little. Of the lines whose item fewer than {FEW_USERS} users have, "
        f"{percent(flagged_of_rare / lines_of_rare)} are flagged; of those whose item {describe_users(common[0])} have, "
        f"{percent(flagged_of_common / lines_of_common)}."
    ]


def items_of_one_user(report: CleaningReport) -> list[str]:
    """How much of the log, and of what is flagged, has an item that no other user has; nothing where there is none."""
    alone = sum(row.n_lines for row in report.rarity if row.most_users == 1)
    if not alone:
        return []
    flagged_alone = sum(row.n_flagged for row in report.rarity if row.most_users == 1)
    flagged = sum(row.n_flagged for row in report.rarity)
    share = percent(alone / sum(row.n_lines for row in report.rarity))
    of_flagged = f", and so have {flagged_alone:,} of the {flagged:,} flagged ones" if flagged else ""
    reads_titles = any(row.kind == "semantic" for row in report.evidence)
    unread = "" if reads_titles else ", and titles were not read"
    return [
        f"{share} of the judged lines have an item that nobody else has{of_flagged}. Whether such an item belongs only its title can "
        f"tell{unread}."
    ]


def describe_users(row: RarityRow) -> str:
    """`1 user`, `2 to 4 users`, `20 or more users`."""
    if row.most_users is None:
        return f"{row.least_users} or more users"
    if row.least_users == row.most_users:
        return f"{row.least_users} user{'s' if row.least_users > 1 else ''}"
    return f"{row.least_users} to {row.most_users} users"


def introduce_suspects(report: CleaningReport) -> str:
    shown = len(report.suspects)
    if not shown:
        return "There is none: no line could be judged."
    text = (
        f"Each between the {suspects.AROUND} items that the user had before it and after it, with the probability that it is noise and "
        "with an item that would fit better."
    )
    if report.n_flagged > shown:
        return f"The first {shown:,} of {report.n_flagged:,}; edits.csv has all. {text}"
    if report.n_flagged == 0:
        return f"None is flagged; these come nearest. {text}"
    if report.n_flagged < shown:
        return f"The first {report.n_flagged:,} are flagged, the others come next. {text}"
    return text


def rarity_section(rows: list[RarityRow]) -> list[str]:
    if not rows:
        return []
    cells = [
        [describe_users(row), row.n_lines, percent(row.n_flagged / row.n_lines) if row.n_lines else None, row.mean_probability]
        for row in rows
    ]
    return [
        "<h2>Rare and common items</h2>",
        paragraph("Of an item that few users have little is known. Look at these lines yourself before you leave them out."),
        table(["item had by", "lines", "flagged", "mean probability"], cells),
    ]


def status_section(report: CleaningReport) -> list[str]:
    rows = [[MEANING_OF_STATUS.get(status, status), n_lines] for status, n_lines in report.status_counts.items()]
    return ["<h2>What was judged</h2>", table(["status", "lines"], rows)] if rows else []


def self_test_section(test: SelfTest | None) -> list[str]:
    if test is None:
        return []
    rows = [["planted", test.n_planted, test.n_planted_flagged], ["left as they were", test.n_others, test.n_others_flagged]]
    return ["<h2>The self-test</h2>", table(["lines of the copy", "all", "flagged"], rows)]


def evidence_section(report: CleaningReport) -> list[str]:
    if not report.evidence:
        return []
    rows = [[row.kind, percent(row.share_bound), row.auc_context] for row in report.evidence]
    return [
        "<h2>Kinds of evidence</h2>",
        paragraph(
            "collaborative: which items occur together. semantic: how alike titles are. detector: a small network that reads whole "
            "histories. fused: all there are, and what the probabilities come from. auc_context: how well planted items are told that are "
            "as popular as the rest; 0.5 is guessing, 1 is perfect."
        ),
        table(["evidence", "noise at most", "auc_context"], rows),
    ]

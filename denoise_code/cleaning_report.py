"""report.html of a cleaned log: how much noise there can be, whether to trust what was flagged, and the most suspicious lines.

`write_report` takes a `CleaningReport` and no files: whoever cleans a log counts, this module says it.
"""

from dataclasses import dataclass, field
from pathlib import Path

from denoise_code.common.suspects import Suspect

MOST_SUSPECTS = 500


@dataclass(frozen=True)
class SelfTest:
    """Random items planted into a copy of the log, judged with what was learned from the log.

    n_planted, n_planted_flagged: planted interactions, and how many of them are flagged at the report's threshold. n_others,
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


@dataclass(frozen=True)
class RarityRow:
    """Judged lines whose item `least_users` to `most_users` users have (None: or more).

    n_flagged: above the threshold. mean_probability: None where there is no line.
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
    probabilities assume. share_bound: noise at most, holds with `confidence`. threshold: lines above it are flagged;
    drop_share: what --drop asked for, None where the threshold was given. n_flagged: lines flagged. is_replaced: flagged lines
    have their item exchanged in cleaned.csv; else they are left out. suspects: most suspicious first, up to MOST_SUSPECTS.
    rarity: rarest items first.
    """

    log: str
    n_records: int
    n_users: int
    n_items: int
    status_counts: dict[str, int]
    noise_share: float
    share_bound: float
    threshold: float
    n_flagged: int
    suspects: list[Suspect]
    self_test: SelfTest | None = None
    rarity: list[RarityRow] = field(default_factory=list)
    evidence: list[EvidenceRow] = field(default_factory=list)
    confidence: float = 0.9
    drop_share: float | None = None
    is_replaced: bool = False


def write_report(path: Path, report: CleaningReport) -> None:
    """One self-contained HTML file."""
    raise NotImplementedError

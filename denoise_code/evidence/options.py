"""What the making of evidence can be asked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvidenceOptions:
    """noise_share: the share of noise pi in the log, None: the smaller of 0.1 and the bound. replace_all: a replacement for every
    place, however many there are."""

    noise_share: float | None = None
    replace_all: bool = False
    seed: int = 0

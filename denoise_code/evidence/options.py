"""What the making of evidence can be asked for."""

from dataclasses import dataclass

from denoise_code.common.options import Options, option, share, switch


@dataclass(frozen=True)
class EvidenceOptions(Options):
    """How probabilities and replacements are made: for judging.py. Stage 2 has an option for each but the seed."""

    noise_share: float | None = option(
        None,
        "share of noise in the log that probabilities and replacements take (default: the smaller of 0.1 and the bound)",
        type=share,
    )
    replace_all: bool = switch(
        "a replacement for every place, which --evidence random needs (default: beyond half a million places only above a "
        "probability of 0.1)"
    )
    seed: int = 0

"""What the model says of a row, from the scores of the texts that its interactions stand in."""

from dataclasses import asdict, dataclass

import numpy as np

from denoise_code.reading.plan import PlacedRow, Stretch
from denoise_code.reading.suggesting import Suspect

DIGITS = 5  # of noise_prob: what float32 is good to; bfloat16 (GPUs) has two or three


@dataclass
class Record:
    """What the model says of a row of a split.

    noise_prob: of each scored item. noise_items, noise_items_prob: suspects, the most suspicious first.
    texts or ids: a replacement for each suspect, as free text or as an item; None where no row of the batch has suspects.
    """

    split: str
    row: int
    noise_prob: list[float]
    noise_items: list[int]
    noise_items_prob: list[float]
    texts: list[str] | None = None
    ids: list[int] | None = None

    def as_json(self) -> dict:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class RecordedRow:
    """A row's record, and the suspects whose replacements it waits for."""

    record: Record
    suspects: list[Suspect]


def record_rows(stretches: list[Stretch], scores: list[list[float]], threshold: float, top_k: int) -> list[RecordedRow]:
    """The records of all rows of the stretches. scores: of the items of each of their texts, in order."""
    rows, first_text = [], 0
    for stretch in stretches:
        texts = slice(first_text, first_text + len(stretch.texts))
        noise_probs = noise_prob_of_interactions(stretch, scores[texts])
        rows += [record_row(row, stretch, noise_probs, first_text, threshold, top_k) for row in stretch.rows]
        first_text = texts.stop
    return rows


def noise_prob_of_interactions(stretch: Stretch, scores: list[list[float]]) -> list[float]:
    """noise_prob, a natural log-probability, of each interaction (n,), from the text that scores it; NaN where it is only read."""
    noise_probs = [np.nan] * len(stretch.interactions)
    for text, scores_of_text in zip(stretch.texts, scores):
        rounded = [float(f"{score:.{DIGITS}g}") for score in scores_of_text[text.n_only_read :]]
        noise_probs[text.first_scored : text.stop] = rounded
    return noise_probs


def record_row(
    row: PlacedRow, stretch: Stretch, noise_probs: list[float], first_text: int, threshold: float, top_k: int
) -> RecordedRow:
    """Its record: the suspects are distinct items above the threshold, highest first, ties to the earlier position."""
    places = range(row.start, row.stop)
    place_of_item = {}  # of each item above the threshold, where it is most suspicious
    for place in sorted(places, key=lambda place: -noise_probs[place]):
        if noise_probs[place] > threshold:
            place_of_item.setdefault(stretch.interactions[place].item, place)
    suspects = [make_suspect(stretch, place, first_text) for place in list(place_of_item.values())[:top_k]]
    record = Record(
        row.split,
        row.row,
        noise_prob=[noise_probs[place] for place in places],
        noise_items=[suspect.item for suspect in suspects],
        noise_items_prob=[noise_probs[suspect.place] for suspect in suspects],
    )
    return RecordedRow(record, suspects)


def make_suspect(stretch: Stretch, place: int, first_text: int) -> Suspect:
    """The interaction at a place of a stretch as a suspect; first_text: the number of the stretch's first text."""
    interaction, number = stretch.interactions[place], stretch.text_number(place)
    text = stretch.texts[number]
    n_knowable = min(interaction.first_unknowable, text.stop) - text.start
    return Suspect(first_text + number, place, interaction.item, n_knowable, stretch.items_not_to_suggest(place))

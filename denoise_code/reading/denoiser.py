"""The method at work: scores what is read and suggests replacements, with one model, one wording, one catalogue.

Knows nothing of files, ranks and restarts.
"""

import time
from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from denoise_code.language_model.batches import slices
from denoise_code.language_model.prompt import Titles
from denoise_code.reading.options import ReadingOptions
from denoise_code.reading.plan import Stretch, Text
from denoise_code.reading.records import Record, RecordedRow, record_rows
from denoise_code.reading.scoring import ReadTexts, Scorer
from denoise_code.reading.suggesting import Suggester, Suspect


class Denoiser:
    """Scores windows and suggests replacements with one model and the titles of one catalogue."""

    def __init__(self, model, titles: Titles, options: ReadingOptions, load_in_8bit: bool = False):
        self.titles, self.options = titles, options
        self.seconds, self.tokens = Counter(), Counter()  # of "score" and "suggest", until whoever counts them clears them
        self.scorer = Scorer(model, titles, options.by_likelihood, load_in_8bit, self.tokens)
        self.suggester = Suggester(titles, options.is_free, options.max_new_tokens, self.tokens)
        self.most_windows = 8 * options.batch_size  # whose items are read at once; fewer from where memory ran out

    def begin(self, windows: list[tuple[int, ...]]) -> None:
        """Read what the questions about all windows (their items) of a part have in common."""
        self.scorer.begin(windows)

    def end(self) -> None:
        """Give the memory of the batches back to what follows."""
        self.scorer.end()

    def run(self, stretches: list[Stretch], threshold: float = -np.inf) -> list[Record]:
        """The records of all rows of some stretches; what is not above the threshold is no suspect.

        Where memory runs out, half as much is read at once from there on. A stretch that is larger than that is read in
        chunks of its texts, and these again for their replacements.
        """
        sizes = [text.size for stretch in stretches for text in stretch.texts]
        if len(stretches) > 1 and sum(sizes) > self.most_windows:
            half = len(stretches) // 2
            return self.run(stretches[:half], threshold) + self.run(stretches[half:], threshold)
        tokens_before = self.tokens.copy()
        try:
            with torch.inference_mode():
                return self.run_at_once(stretches, threshold)
        except torch.cuda.OutOfMemoryError:
            if len(sizes) == 1 or self.most_windows == 1:
                raise
        self.end()  # the cache of all of them; only here no traceback holds it
        torch.cuda.empty_cache()
        self.tokens.clear()
        self.tokens.update(tokens_before)
        self.most_windows = min(sum(sizes), self.most_windows) // 2
        return self.run(stretches, threshold)

    def run_at_once(self, stretches: list[Stretch], threshold: float) -> list[Record]:
        """The same, in one chunk where the texts are not larger than what is read at once."""
        started = time.perf_counter()
        texts = [text for stretch in stretches for text in stretch.texts]
        chunks = slices([text.size for text in texts], self.most_windows)
        scores, read_texts = self.score(texts, chunks)
        rows = record_rows(stretches, scores, threshold, self.options.top_k)
        scored = time.perf_counter()
        self.seconds["score"] += scored - started
        if any(row.suspects for row in rows):
            self.suggest(rows, texts, chunks, read_texts)
            self.seconds["suggest"] += time.perf_counter() - scored
        return [row.record for row in rows]

    def score(self, texts: list[Text], chunks: list[slice]) -> tuple[list[list[float]], ReadTexts | None]:
        """The scores of all texts, and what can be read on: the only chunk, or nothing, as chunks use the same memory in turn."""
        scores, read_texts = [], None
        for chunk in chunks:
            read_texts = None  # frees what only the chunk before needs
            read_texts = self.scorer.read(texts[chunk])
            scores += read_texts.scores
        return scores, read_texts if len(chunks) == 1 else None

    def suggest(self, rows: list[RecordedRow], texts: list[Text], chunks: list[slice], read_texts: ReadTexts | None) -> None:
        """Put the replacements of all suspects into the records of their rows. read_texts: where one chunk holds all texts."""
        distinct = dict.fromkeys(suspect for row in rows for suspect in row.suspects)
        suspects, suggestions = sorted(distinct, key=lambda suspect: suspect.text), {}
        for chunk in chunks:
            suspects_of_chunk = [suspect for suspect in suspects if chunk.start <= suspect.text < chunk.stop]
            if suspects_of_chunk:
                suggestions |= self.suggest_in_chunk(suspects_of_chunk, texts, chunk, read_texts)
        for row in rows:
            suggestions_of_row = [suggestions[suspect] for suspect in row.suspects]
            if self.options.is_free:
                row.record.texts = suggestions_of_row
            else:
                row.record.ids = suggestions_of_row

    def suggest_in_chunk(
        self, suspects: list[Suspect], texts: list[Text], chunk: slice, read_texts: ReadTexts | None
    ) -> dict[Suspect, str | int]:
        """{suspect: its replacement} for suspects in a chunk of the texts, which is read again where it cannot be read on."""
        read_texts = read_texts or self.scorer.read(texts[chunk])
        in_chunk = [replace(suspect, text=suspect.text - chunk.start) for suspect in suspects]
        return dict(zip(suspects, self.suggester.suggest(read_texts, in_chunk)))

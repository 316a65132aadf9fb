"""The wording of the task, once for training and inference, and where its titles stand in tokens.

Knows nothing of models and of files of data.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from denoise_code.common.errors import InputError
from denoise_code.common.files import write_json
from denoise_code.data_set.titles import fold_title
from denoise_code.language_model.title_trie import Trie

PROBED_TITLES = 10  # in a window with which it is found out whether questions can be put together
IGNORED = -100  # label of a token that carries no loss, the convention of torch and transformers


@dataclass(frozen=True)
class Prompt:
    """The wording of the task, saved as prompt.json with every adapter.

    Each title stands between `open` and `close`, and every cue ends where a title opens, so a tokenizer that splits at
    spaces reads a title the same way after each of the three cues. Titles stand on lines of their own, without quotation
    marks: titles contain quotation marks and commas, never a line end.
    """

    instruction: str = "One item of this sequence does not fit the user's interests. Name it and an item that fits better."
    sequence_cue: str = "\nSequence:\n"
    noise_cue: str = "Noise item:"
    suggest_cue: str = "Replacement:"
    open: str = " "
    close: str = "\n"
    separator: str = ""

    def title(self, title: str) -> str:
        """A title as the model reads it."""
        return f"{self.open}{fold_title(title)}{self.close}"

    def question(self, titles: list[str]) -> str:
        """All that stands before the answer; ends with the cue after which the model names a noise item."""
        sequence = self.separator.join(map(self.title, titles))
        return self.instruction + self.sequence_cue + sequence + self.noise_cue

    def answer(self, pairs: list[tuple[str, str]]) -> str:
        """What the model learns to say: (noise item, replacement) pairs, the cue of the first left to the question."""
        sentences = [self.title(noise) + self.suggest_cue + self.title(replacement) for noise, replacement in pairs]
        return self.noise_cue.join(sentences)

    def save(self, folder: Path) -> None:
        write_json(folder / "prompt.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Prompt":
        try:
            return cls(**json.loads((folder / "prompt.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{folder}/prompt.json: not the wording of an adapter ({error})") from None


def continue_tokens(tokenizer, context: str, text: str) -> list[int]:
    """Tokens of `text` as it stands after `context`; raises InputError as `continue_all` does."""
    return continue_all(tokenizer, context, [text])[0]


def continue_all(tokenizer, context: str, texts: list[str]) -> list[list[int]]:
    """Tokens of each text as it stands after `context`.

    Raises InputError when the tokenizer merges the two at the seam: cutting there would change the tokens.
    """
    head = tokenizer(context, add_special_tokens=False)["input_ids"]
    wholes = tokenizer([context + text for text in texts], add_special_tokens=False)["input_ids"]
    for text, whole in zip(texts, wholes):
        if whole[: len(head)] != head:
            raise InputError(f"the tokenizer merges {context[-20:]!r} and {text[:20]!r}: end the cue of prompt.json elsewhere")
    return [whole[len(head) :] for whole in wholes]


class Question(NamedTuple):
    """Token ids of a question, and where each of its titles stands in them, `close` included."""

    ids: list[int]
    spans: list[tuple[int, int]]  # (start, end) in ids, a title each

    def spans_from_end(self, n_following: int = 0) -> tuple[list[int], list[int]]:
        """Starts and ends of the titles counted from the end, as rows are padded on the left; so many tokens follow."""
        n_tokens = len(self.ids) + n_following
        return [start - n_tokens for start, _ in self.spans], [end - n_tokens for _, end in self.spans]


def tokenize_questions(tokenizer, prompt: Prompt, windows: list[list[str]]) -> list[Question]:
    """The question about each window of titles, tokenised whole; a token belongs to the title in which it ends."""
    encoded = tokenizer([prompt.question(titles) for titles in windows], return_offsets_mapping=True)
    questions = []
    for titles, ids, offsets in zip(windows, encoded["input_ids"], encoded["offset_mapping"]):
        first_characters, end_characters = title_characters(prompt, titles)  # (n,) each
        last_characters = [end - 1 for _, end in offsets]  # (T,) ascending: the last character of each token
        # The first token that ends at or after a character is the one that belongs to what begins there.
        starts = np.searchsorted(last_characters, first_characters)  # (n,) token numbers
        ends = np.searchsorted(last_characters, end_characters)  # (n,)
        questions.append(Question(ids, list(zip(starts.tolist(), ends.tolist()))))
    return questions


def title_characters(prompt: Prompt, titles: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(starts (n,), ends (n,)) int64: where each title stands in the text of its question, in characters."""
    lengths = np.array([len(prompt.title(title)) for title in titles])
    with_separators = np.cumsum(lengths + len(prompt.separator))  # where the next title would start, from the first on
    before_titles = len(prompt.instruction + prompt.sequence_cue)
    starts = before_titles + with_separators - lengths - len(prompt.separator)
    return starts, starts + lengths


class QuestionParts:
    """What questions are put together from, so that each title is tokenised once and not once a window.

    That is right where the tokenizer splits at the ends of titles, whatever stands there. Then `are_right`: the questions
    about windows that hold each title of the catalogue once are the same tokens, put together and tokenised whole.
    """

    def __init__(self, tokenizer, prompt: Prompt, catalogue: list[str]):
        """catalogue: titles by item id (n_items + 1,), position 0 is padding."""
        titles = catalogue[1:]
        (example,) = tokenize_questions(tokenizer, prompt, [titles[:1]])
        self.beginning = example.ids[: example.spans[0][0]]
        self.end = example.ids[example.spans[0][1] :]
        try:
            in_sequence = continue_all(tokenizer, prompt.close, [prompt.title(title) for title in titles])
        except InputError:  # a title merges with the mark before it
            self.are_right = False
            return
        self.title_tokens = [[], *in_sequence]  # by item id, as they stand after another title
        windows = [range(first, min(first + PROBED_TITLES, len(catalogue))) for first in range(1, len(catalogue), PROBED_TITLES)]
        whole = tokenize_questions(tokenizer, prompt, [[catalogue[item] for item in items] for items in windows])
        self.are_right = [self.question(items) for items in windows] == whole

    def question(self, items) -> Question:
        """The question about a window of items."""
        ids, spans = list(self.beginning), []
        for item in items:
            start = len(ids)
            ids += self.title_tokens[item]
            spans.append((start, len(ids)))
        return Question(ids + self.end, spans)


class Titles:
    """The titles of a catalogue as tokens, wherever the prompt has them."""

    def __init__(self, tokenizer, prompt: Prompt, catalogue: list[str]):
        """catalogue: titles by item id (n_items + 1,), position 0 is padding."""
        self.tokenizer, self.prompt, self.catalogue = tokenizer, prompt, catalogue
        texts = [prompt.title(title) for title in catalogue[1:]]
        as_replacements = continue_all(tokenizer, prompt.suggest_cue, texts)
        self.replacement_trie = Trie(dict(enumerate(as_replacements, 1)))  # of titles as they stand after the cue for one
        # By item id: a title where the answer names it as noise, and the same with the cue that asks for its replacement.
        self.after_noise_cue = [[], *continue_all(tokenizer, prompt.noise_cue, texts)]
        with_cue = [text + prompt.suggest_cue for text in texts]
        self.up_to_replacement = [[], *continue_all(tokenizer, prompt.noise_cue, with_cue)]
        self.parts = QuestionParts(tokenizer, prompt, catalogue)

    def questions(self, windows: list) -> list[Question]:
        """The question about each window of items."""
        if self.parts.are_right:
            return [self.parts.question(items) for items in windows]
        titles = [[self.catalogue[item] for item in items] for items in windows]
        return tokenize_questions(self.tokenizer, self.prompt, titles)

    def length(self, items) -> int:
        """Tokens of the titles of some items: what the lengths of questions are told by before they are tokenised."""
        return sum(len(self.after_noise_cue[item]) for item in items)

    def check_seam(self, items) -> None:
        """Refuse a wording after which, whole, a title is read otherwise than after the cue alone."""
        question = self.prompt.question([self.catalogue[item] for item in items])
        title = self.prompt.title(self.catalogue[items[0]])
        if continue_tokens(self.tokenizer, question, title) != self.after_noise_cue[items[0]]:
            raise InputError("prompt.json: the tokenizer reads a title differently after the whole prompt than after its cue")

    def longest(self, windows: list, written: int | None) -> int:
        """Tokens of the longest question with the longest answer: a title, the cue, and `written` tokens or another title.

        windows: their items.
        """
        (question,) = self.questions([max(windows, key=self.length)])
        longest_title = max(len(self.up_to_replacement[item]) for item in set().union(*windows))
        longest_replacement = written or max(map(len, self.replacement_trie.sequences))
        return len(question.ids) + longest_title + longest_replacement

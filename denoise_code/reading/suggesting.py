"""What would fit in place of a suspect, by what the model says next (section 3.3 of the paper).

After the question the model reads the suspect's title, as if it had named it, and the cue for a replacement. It answers in
free text, which is grounded later (the paper), or by choosing among the titles of the catalogue.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch

from denoise_code.data_set.titles import fold_title
from denoise_code.language_model.prompt import Question, Titles
from denoise_code.language_model.title_trie import Trie, common_prefix
from denoise_code.reading.packed_reader import Reader
from denoise_code.reading.scoring import ReadTexts


@dataclass(frozen=True)
class Suspect:
    """An interaction for which a replacement is asked.

    text: the number of the text that scores it. place: its own, in its stretch; the two say which interaction it is.
    n_knowable: how many items of the text, from the first, its replacement may know. It must be none of items_not_to_suggest.
    """

    text: int
    place: int
    item: int = field(compare=False)
    n_knowable: int = field(compare=False)
    items_not_to_suggest: frozenset[int] = field(compare=False)


@dataclass
class Answer:
    """Free text in the making, as tokens.

    unread: what the model has to read before it goes on. draft: what it may write next, read on approval.
    """

    unread: list[int]
    written: list[int] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    has_ended: bool = False


@dataclass
class Descent:
    """A title in the making: the node of the trie that was reached, and the tokens on the way that the model has not read."""

    unread: list[int]
    node: tuple[int, int, int]
    items_not_to_suggest: frozenset[int]


class Suggester:
    """Asks for replacements of suspects in texts that were read."""

    def __init__(self, titles: Titles, is_free: bool, max_new_tokens: int, tokens: Counter):
        """max_new_tokens: of a free answer. tokens: counts under "suggest" what is read."""
        self.titles, self.is_free, self.max_new_tokens, self.tokens = titles, is_free, max_new_tokens, tokens
        self.trie: Trie = titles.replacement_trie

    def suggest(self, texts: ReadTexts, suspects: list[Suspect]) -> list[str] | list[int]:
        """For each suspect, by text, a free text or an item of the catalogue."""
        reader, pieces = self.branch(texts, suspects)
        if self.is_free:
            return self.write(reader, pieces)
        return self.choose(reader, pieces, [suspect.items_not_to_suggest for suspect in suspects])

    def branch(self, texts: ReadTexts, suspects: list[Suspect]) -> tuple[Reader, list[list[int]]]:
        """A branch of its text for each suspect, and the tokens that ask for its replacement there.

        The branch forgets the items that the suspect may not know, and with them the cue behind all items: that is read again.
        """
        pieces, forgotten = [], []
        for suspect in suspects:
            question = texts.questions[suspect.text]
            piece = self.titles.up_to_replacement[suspect.item]
            n_forgotten = tokens_behind(question, suspect.n_knowable)
            if n_forgotten:
                cue = question.ids[question.spans[-1][1] :]
                piece = cue + piece
            pieces.append(piece)
            forgotten.append(n_forgotten)
        reader = texts.reader.branch([suspect.text for suspect in suspects])
        if any(forgotten):
            reader.forget(forgotten)
        return reader, pieces

    def write(self, reader: Reader, pieces: list[list[int]]) -> list[str]:
        """Greedy free text after each piece, up to the mark that closes a title.

        What all titles of the catalogue that begin as the text does have next is read with it, and stands as far as the
        model would have written it too: speculative decoding (arXiv 2211.17192), the same text in fewer steps.
        """
        answers = [Answer(unread=piece) for piece in pieces]
        active = answers  # that have not ended
        while active:
            n_refused = self.write_on(reader, active)
            going_on = [number for number, answer in enumerate(active) if not answer.has_ended]
            if any(n_refused[number] for number in going_on):
                reader.forget(n_refused)
            if len(going_on) < len(active):
                reader.keep(going_on)
            active = [active[number] for number in going_on]
            for answer in active:
                most = self.max_new_tokens - 1 - len(answer.written)
                answer.draft = self.trie.common_continuation(answer.written)[:most]
        return [self.as_text(answer.written) for answer in answers]

    def write_on(self, reader: Reader, active: list[Answer]) -> list[int]:
        """Read what each answer has unread and its draft, and write what the model says; returns how much of each draft it refused."""
        pieces = [answer.unread + answer.draft for answer in active]
        tails = [1 + len(answer.draft) for answer in active]  # the last unread token and each of the draft are followed by one
        best = torch.cat([logits.argmax(-1) for logits in reader.forward(pieces, tails)]).cpu()  # (sum of the tails,)
        n_refused = []
        for answer, following in zip(active, best.split(tails)):
            following = following.tolist()
            n_right = common_prefix(following, answer.draft)
            n_refused.append(len(answer.draft) - n_right)
            for token in following[: n_right + 1]:
                answer.written.append(token)
                answer.has_ended = self.is_end(answer.written)
                if answer.has_ended:
                    break
            answer.unread = [answer.written[-1]]
        self.tokens["suggest"] += sum(map(len, pieces)) - sum(n_refused)
        return n_refused

    def is_end(self, written: list[int]) -> bool:
        """Whether free text is as long as it may be, or the model closed the title or ended the text."""
        if len(written) == self.max_new_tokens or written[-1] == self.titles.tokenizer.eos_token_id:
            return True
        return self.titles.prompt.close in self.titles.tokenizer.decode(written)

    def as_text(self, written: list[int]) -> str:
        text = self.titles.tokenizer.decode(written, skip_special_tokens=True)
        return fold_title(text.split(self.titles.prompt.close)[0])

    def choose(self, reader: Reader, pieces: list[list[int]], items_not_to_suggest: list[frozenset[int]]) -> list[int]:
        """Greedy decoding after each piece along the trie of titles, never to a banned item; ends where one title is left."""
        descents = []
        for piece, banned in zip(pieces, items_not_to_suggest):
            root = (0, len(self.trie.items), 0)
            certain, node = self.trie.descend(root, banned)
            descents.append(Descent(piece + certain, node, banned))
        active = descents  # all are read once, also where no choice is left
        while active:
            going_on = []
            for number, token in enumerate(self.read_best_children(reader, active)):
                if not self.is_decided(active[number]):
                    self.go_down(active[number], token)
                    if not self.is_decided(active[number]):
                        going_on.append(number)
            active = [active[number] for number in going_on]
            reader.keep(going_on)
        return [self.trie.allowed_items(*descent.node[:2], descent.items_not_to_suggest)[0] for descent in descents]

    def is_decided(self, descent: Descent) -> bool:
        return self.trie.decided(descent.node, descent.items_not_to_suggest)

    def read_best_children(self, reader: Reader, active: list[Descent]) -> list[int]:
        """Read what each descent has unread; returns its most likely next token below which there is an item to suggest.

        Of equally likely tokens the smallest. Where a descent is decided the token means nothing.
        """
        pieces = [descent.unread for descent in active]
        self.tokens["suggest"] += sum(map(len, pieces))
        best = []
        for texts, logits in reader.forward_slices(pieces, [1] * len(pieces)):  # logits (n, V)
            tokens, is_allowed = (torch.from_numpy(table).to(logits.device) for table in self.next_tokens(active[texts]))
            scores = logits.gather(1, tokens).masked_fill(~is_allowed, -torch.inf)  # (n, C)
            best.append(tokens.gather(1, scores.argmax(1, keepdim=True))[:, 0])  # (n,)
        return torch.cat(best).tolist()  # the only wait for the device

    def next_tokens(self, descents: list[Descent]) -> tuple[np.ndarray, np.ndarray]:
        """(next tokens (n, C) int64 of each descent's node, whether there is an item to suggest below each (n, C) bool)."""
        rows = [self.trie.child_tokens(*descent.node) for descent in descents]
        shape = (len(rows), max(1, *map(len, rows)))
        tokens, is_allowed = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
        for number, (descent, row) in enumerate(zip(descents, rows)):
            tokens[number, : len(row)] = row
            is_allowed[number, : len(row)] = True
            banned = self.trie.banned_children(*descent.node, descent.items_not_to_suggest)
            is_allowed[number, np.searchsorted(row, banned)] = False
        return tokens, is_allowed

    def go_down(self, descent: Descent, token: int) -> None:
        """Go down by a token, and on while all titles agree."""
        child = self.trie.child(descent.node, token)
        certain, descent.node = self.trie.descend(child, descent.items_not_to_suggest)
        descent.unread = [token, *certain]


def tokens_behind(question: Question, n_items: int) -> int:
    """How many tokens of a question stand behind its first n_items items; none where it has no more of them."""
    if n_items == len(question.spans):
        return 0
    return len(question.ids) - question.spans[n_items - 1][1]

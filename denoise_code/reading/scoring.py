"""How likely each item of a text is noise, by what the model reads (section 3.3 of the paper).

The question lists a text's titles and ends with the cue for a noise item. `first_token`, the paper's score: the log-probability
with which the model then starts to name a title. `likelihood`, ours: how unlikely the title is after the titles before it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from denoise_code.common.errors import InputError
from denoise_code.language_model.noise_scores import token_log_probs
from denoise_code.language_model.prompt import Question, Titles
from denoise_code.language_model.title_trie import common_prefix
from denoise_code.reading.packed_reader import Reader
from denoise_code.reading.plan import Text

# How far a text read beside others may be from the same text read alone: the mean over the vocabulary of the difference of
# next-token log-probabilities, at the end of any title. Measured with SmolLM2-135M on MovieLens windows, largest of 264 ends:
# float32 0.00001, bfloat16 0.17. TF32 keeps three bits more than bfloat16, so an eighth of that. One of ten titles hidden: at
# least 0.78 at some end. In 8 bit the columns that are not rounded depend on what is read together: 0.97 where that was
# simulated, so there only a plainly wrong reading is caught.
READING_BOUNDS = {"float32": 0.01, "tf32": 0.1, "bfloat16": 0.4, "8 bit": 1.2}
# Tokens whose logits are normalised: 13 MB in float32 with SmolLM2's vocabulary; on a CPU 256 take twice as long.
LOGITS_AT_ONCE = 64
QUESTIONS_AT_ONCE = 1024  # tokenised, when it is found out what all of them begin with


@dataclass
class ReadTexts:
    """Texts that were read: `reader` can read on in each of them.

    questions: theirs, as tokens. scores: of each item of each text, a natural log-probability; NaN where it is only read.
    """

    reader: Reader
    questions: list[Question]
    scores: list[list[float]]


class Scorer:
    """Reads the questions about texts, many at once, and scores their items."""

    def __init__(self, model, titles: Titles, by_likelihood: bool, load_in_8bit: bool, tokens: Counter):
        """by_likelihood: how items are scored; else by first token. tokens: counts under "score" what is read."""
        self.model, self.titles, self.by_likelihood, self.tokens = model, titles, by_likelihood, tokens
        self.load_in_8bit = load_in_8bit
        self.shared: list[int] = []  # the tokens that all questions begin with
        self.start: Reader | None = None  # which has read them, once for all texts

    def begin(self, windows: list[tuple[int, ...]]) -> None:
        """Read once what the questions about all windows of a part have in common: what stands before their first titles.

        Raises InputError where that is nothing, and where the model reads packed texts otherwise than each alone.
        """
        self.shared = self.common_beginning(windows)
        with torch.inference_mode():
            self.start = Reader.start(self.model, self.shared)
            self.check_packing(self.titles.questions(windows[:2]))

    def end(self) -> None:
        """Give the memory of what was read back to what follows."""
        self.start.free_copies()

    def common_beginning(self, windows: list[tuple[int, ...]]) -> list[int]:
        """The tokens that the questions about all windows begin with, before their first titles.

        What comes before the first title depends on that title alone: the tokenizer may merge the two.
        """
        probe = self.titles.tokenizer(self.titles.prompt.question(["?"]))["input_ids"]
        first_items = list(dict.fromkeys(items[:1] for items in windows))
        length = len(probe)
        for start in range(0, len(first_items), QUESTIONS_AT_ONCE):
            for question in self.titles.questions(first_items[start : start + QUESTIONS_AT_ONCE]):
                before_title = question.spans[0][0]
                if self.by_likelihood:
                    before_title -= 1  # what predicts a title's first token is read with the title
                length = min(length, common_prefix(question.ids, probe), before_title)
        if length < 1:
            raise InputError("prompt.json: the prompts of two windows share no first token; give it an instruction")
        return probe[:length]

    def check_packing(self, questions: list[Question]) -> None:
        """Refuse a model that reads questions side by side otherwise than each alone.

        They are compared where each title ends and where the question does: a title that is not seen as it should be moves
        what the model expects after it, and often hardly what it expects many titles later.
        """
        bound = self.reading_bound()
        pieces = [question.ids[len(self.shared) :] for question in questions]
        reader = self.start.copies(len(pieces), room=max(map(len, pieces)))
        logits_of_pieces = reader.forward(pieces, tails=[len(piece) for piece in pieces])
        for question, logits in zip(questions, logits_of_pieces):  # logits (T, V) after each token of the piece
            ends = [end - 1 for _, end in question.spans] + [len(question.ids) - 1]
            places = torch.tensor(ends, device=logits.device)  # (n + 1,) in the question
            packed = logits[places - len(self.shared)].float().log_softmax(-1)  # (n + 1, V)
            ids = torch.tensor([question.ids], device=logits.device)  # (1, T)
            alone = self.model(input_ids=ids, logits_to_keep=places).logits[0].float().log_softmax(-1)  # (n + 1, V)
            largest = (packed - alone).abs().mean(-1).max().item()
            if not largest < bound:  # nor where it is no number
                raise InputError(
                    f"stage 2 cannot read with {type(self.model.get_base_model()).__name__}: packing changes its answers "
                    f"(log-probabilities by {largest:.3g}; up to {bound} is rounding)"
                )

    def reading_bound(self) -> float:
        """The one of READING_BOUNDS by what the model computes in."""
        if self.load_in_8bit:
            return READING_BOUNDS["8 bit"]
        dtype = str(self.model.dtype).removeprefix("torch.")
        is_tf32 = dtype == "float32" and torch.get_float32_matmul_precision() == "high"
        return READING_BOUNDS["tf32" if is_tf32 else dtype]

    def read(self, texts: list[Text]) -> ReadTexts:
        """Read the questions about some texts, and score their items. What was read before can no longer be read on."""
        questions, n_shared = self.titles.questions([text.items for text in texts]), len(self.shared)
        if any(question.ids[:n_shared] != self.shared for question in questions):
            raise InputError("prompt.json: the tokenizer reads the instruction differently before some windows")
        pieces = [question.ids[n_shared:] for question in questions]
        reader = self.start.copies(len(pieces), room=2 * max(map(len, pieces)))  # as much again for the answers
        self.tokens["score"] += sum(map(len, pieces))
        if self.by_likelihood:
            # The tail of a piece: its last token before the first scored title, which predicts that title, and all after it.
            tails = [len(question.ids) - question.spans[text.n_only_read][0] + 1 for question, text in zip(questions, texts)]
            scores = self.likelihood_scores(texts, questions, tails, reader.forward_slices(pieces, tails))
        else:
            scores = self.first_token_scores(texts, reader.forward_slices(pieces, [1] * len(pieces)))
        return ReadTexts(reader, questions, scores)

    def first_token_scores(self, texts: list[Text], logits_of_slices: Iterable) -> list[list[float]]:
        """The paper's score: the log-probability that the answer, after the noise cue, begins with the title's first token.

        logits_of_slices: (slice of the texts, logits (n, V) of the next token after each of their questions).
        """
        lengths, log_probs = [len(text.items) for text in texts], []
        for texts_slice, logits in logits_of_slices:
            tokens = [self.titles.after_noise_cue[item][0] for text in texts[texts_slice] for item in text.items]
            text_of_token = torch.arange(len(logits)).repeat_interleave(torch.tensor(lengths[texts_slice]))  # (m,) in the slice
            normalised = logits.float().log_softmax(-1)
            log_probs.append(normalised[text_of_token.to(logits.device), torch.tensor(tokens, device=logits.device)])  # (m,)
        return [scores.tolist() for scores in torch.cat(log_probs).cpu().split(lengths)]

    def likelihood_scores(
        self, texts: list[Text], questions: list[Question], tails: list[int], logits_of_slices: Iterable
    ) -> list[list[float]]:
        """log P(the item is noise | its title) from log P(title | the titles before it), by Bayes' rule.

        Noise as fine-tuning plants it: one of the n items of a window, drawn uniformly from the n_items of the catalogue.
        Before its title is read, an item belongs with odds of n - 1 to 1; as noise its title has the probability
        1 / n_items. So P(noise | title) = 1 / (1 + (n - 1) n_items P(title | the titles before it)).
        logits_of_slices: (slice of the texts, logits (K, V) in a line, after the last `tail` tokens of each of their questions).
        """
        log_probs = []
        for texts_slice, logits in logits_of_slices:
            # Each token of a tail predicts the one behind it; nothing stands behind the last, whatever is taken there.
            following = [[*question.ids[1 - tail :], 0] for question, tail in zip(questions[texts_slice], tails[texts_slice])]
            tokens = torch.tensor([token for row in following for token in row], device=logits.device)  # (K,)
            log_probs.append(token_log_probs(logits, tokens, LOGITS_AT_ONCE))
        log_probs_of_tails = torch.cat(log_probs).double().cpu().numpy()  # (sum of the tails,): the only wait for the device
        sum_before = np.concatenate([[0.0], log_probs_of_tails.cumsum()])  # of all tokens in the line before each
        n_items, scores, line_start = len(self.titles.catalogue) - 1, [], 0
        for text, question, tail in zip(texts, questions, tails):
            spans = np.array(question.spans[text.n_only_read :])  # (n scored, 2) in the question
            first, last = (spans + (line_start - (len(question.ids) - tail + 1))).T  # of each title, in the line
            log_likelihoods = sum_before[last] - sum_before[first]
            n = min(len(text.items), text.window)
            log_odds = log_likelihoods + (np.log(max(n - 1, 1)) + np.log(n_items))  # that the item belongs
            scores.append([np.nan] * text.n_only_read + (-np.logaddexp(0, log_odds)).tolist())
            line_start += tail
        return scores

"""The method at work: scores what is read and suggests replacements, with one model, one wording, one catalogue.

Knows nothing of files, ranks and restarts.
"""

import time
from collections import Counter

import numpy as np
import torch

from denoise_code.common.errors import InputError
from denoise_code.data_set.titles import fold_title
from denoise_code.language_model.batches import slices
from denoise_code.language_model.noise_scores import title_log_likelihoods
from denoise_code.language_model.prompt import Question, Titles
from denoise_code.language_model.title_trie import Trie, common_prefix
from denoise_code.reading.packed_reader import Reader
from denoise_code.reading.plan import Text, Work

# How far a text read beside others may be from the same text read alone: the mean over the vocabulary of the difference of
# next-token log-probabilities, at the end of any title. Measured with SmolLM2-135M on MovieLens windows, largest of 264 ends:
# float32 0.00001, bfloat16 0.17. One of ten titles hidden: at least 0.78 at some end. In 8 bit the columns that are not
# rounded depend on what is read together: 0.97 where that was simulated, so there only a plainly wrong reading is caught.
READING_BOUNDS = {"float32": 0.01, "bfloat16": 0.4, "8 bit": 1.2}
DIGITS = 5  # of a noise probability: what float32 is good to; bfloat16 (GPUs) has two or three


class Denoiser:
    """Scores windows and suggests replacements with one model and the titles of one catalogue."""

    def __init__(self, model, titles: Titles, args):
        self.model, self.titles, self.args, self.trie = model, titles, args, titles.replacement_trie
        self.seconds, self.tokens = Counter(), Counter()
        self.threshold = -np.inf  # what is above is suspected; of --min_percentile
        self.at_once = 8 * args.batch_size
        self.shared: list[int] = []  # the tokens that all prompts begin with, read once by `start`
        self.start: Reader | None = None

    def begin(self, windows: list[tuple[int, ...]]) -> None:
        """Read once what the questions about all windows of a split have in common: what stands before their first titles."""
        probe = self.titles.tokenizer(self.titles.prompt.question(["?"]))["input_ids"]
        first, shared = list(dict.fromkeys(items[:1] for items in windows)), len(probe)
        for some in range(0, len(first), 1024):
            for question in self.titles.questions(first[some : some + 1024]):
                title = question.spans[0][0]  # a likelihood needs what predicts its first token: read with the window
                shared = min(shared, common_prefix(question.ids, probe), title - (self.args.score == "likelihood"))
        if shared < 1:
            raise InputError("prompt.json: the prompts of two windows share no first token; give it an instruction")
        self.shared = probe[:shared]
        with torch.inference_mode():
            self.start = Reader.start(self.model, self.shared)
            self.check_reading(self.titles.questions(windows[:2]))

    def end(self) -> None:
        """Give the memory of the batches back to what follows."""
        self.start.spare = None

    def check_reading(self, questions: list[Question]) -> None:
        """Refuse a model that reads questions side by side otherwise than each alone.

        They are compared where each title ends and where the question does: a title that is not seen as it should be moves
        what the model expects after it, and often hardly what it expects many titles later.
        """
        bound = READING_BOUNDS["8 bit" if self.args.load_in_8bit else str(self.model.dtype).removeprefix("torch.")]
        pieces = [question.ids[len(self.shared) :] for question in questions]
        packed = self.start.copies(len(pieces), max(map(len, pieces))).forward(pieces, [len(piece) for piece in pieces])
        for question, logits in zip(questions, packed):  # logits (T, V) after each token of the piece
            ends = [end - 1 for _, end in question.spans] + [len(question.ids) - 1]
            places = torch.tensor(ends, device=logits.device)  # (n + 1,) in the question
            beside = logits[places - len(self.shared)].float().log_softmax(-1)  # (n + 1, V)
            ids = torch.tensor([question.ids], device=logits.device)
            alone = self.model(input_ids=ids, logits_to_keep=places).logits[0].float().log_softmax(-1)  # (n + 1, V)
            largest = (beside - alone).abs().mean(-1).max().item()
            if not largest < bound:  # nor where it is no number
                raise InputError(
                    f"stage 2 cannot read with {type(self.model.get_base_model()).__name__}: packing changes its answers "
                    f"(log-probabilities by {largest:.3g}; up to {bound} is rounding)"
                )

    def run(self, works: list[Work]) -> list[dict]:
        """Records {split, row, noise_prob, noise_items, noise_items_prob, texts or ids} of the rows of some works.

        `at_once` windows' worth are read at once, half as many from where memory ran out: a work that is larger is read in
        parts, and its parts again for their replacements.
        """
        sizes = [text.size for work in works for text in work.texts()]
        if len(works) > 1 and sum(sizes) > self.at_once:
            half = len(works) // 2
            return self.run(works[:half]) + self.run(works[half:])
        tokens = self.tokens.copy()
        try:
            with torch.inference_mode():
                return self._run(works)
        except torch.cuda.OutOfMemoryError:
            if len(sizes) == 1 or self.at_once == 1:
                raise
        self.end()  # the cache of all of them; only here no traceback holds it
        torch.cuda.empty_cache()
        self.tokens, self.at_once = tokens, min(sum(sizes), self.at_once) // 2
        return self.run(works)

    def _run(self, works):
        started, reader = time.perf_counter(), None
        texts = [text for work in works for text in work.texts()]
        parts = slices([text.size for text in texts], self.at_once)
        scores: list[list[float]] = []
        for part in parts:
            reader, questions, found = self.score(texts[part])
            scores += found
            if len(parts) > 1:
                reader = None  # its memory is the next one's
        records = self.records(works, scores)
        suspects = sorted(dict.fromkeys(key for _, keys in records for key in keys), key=lambda key: key[0])  # by text
        scored = time.perf_counter()
        self.seconds["score"] += scored - started
        if suspects:
            answers = {}
            for part in parts:
                here = [(number, place) for number, place in suspects if part.start <= number < part.stop]
                if not here:
                    continue
                if len(parts) > 1:
                    reader = None
                    reader, questions, _ = self.score(texts[part])
                within = [(number - part.start, place) for number, place in here]
                answers |= dict(zip(here, self.suggest(reader, texts[part], questions, within)))
            for record, keys in records:
                record["texts" if self.args.suggest == "free" else "ids"] = [answers[key] for key in keys]
            self.seconds["suggest"] += time.perf_counter() - scored
        return [record for record, _ in records]

    def score(self, texts: list[Text]) -> tuple[Reader, list[Question], list[list[float]]]:
        """Read some texts: (what reads on, their questions, a score for each item of each text).

        A likelihood is NaN before the first scored.
        """
        items = [text.items for text in texts]
        questions, cut = self.titles.questions(items), len(self.shared)
        if any(question.ids[:cut] != self.shared for question in questions):
            raise InputError("prompt.json: the tokenizer reads the instruction differently before some windows")
        pieces = [question.ids[cut:] for question in questions]
        reader = self.start.copies(len(pieces), 2 * max(map(len, pieces)))  # as much again for the answers
        self.tokens["score"] += sum(map(len, pieces))
        if self.args.score == "likelihood":
            return reader, questions, self.likelihood_scores(reader, pieces, questions, texts)
        if self.args.score == "title":
            return reader, questions, self.title_scores(reader, reader.read(pieces), items)
        return reader, questions, self.first_token_scores(reader.read(pieces).cpu(), items)

    def first_token_scores(self, log_probs, windows) -> list[list[float]]:
        """The paper's score: the log-probability of the first token of each title, in context."""
        first_tokens = [[self.titles.tokens_after_noise_cue(item)[0] for item in items] for items in windows]
        return [log_probs[row, tokens].tolist() for row, tokens in enumerate(first_tokens)]

    def title_scores(self, reader: Reader, log_probs, windows) -> list[list[float]]:
        """log P(the answer names this title | it names a title of the window), token by token along their trie.

        Where titles of the window part, their next tokens are normalised among themselves; where they run together
        nothing is to be decided. So only the tokens before a parting are ever read. Items of one title share its score.
        """
        tries = [Trie({item: self.titles.tokens_after_noise_cue(item) for item in items}) for items in windows]
        totals = [dict.fromkeys(items, 0.0) for items in windows]
        partings = []  # (row, the tokens read since the question, run of the trie)
        for row, trie in enumerate(tries):
            stack = [(0, len(trie.items), 0)]
            while stack:
                lo, hi, depth = stack.pop()
                children = trie.children(lo, hi, depth)
                if len(children) > 1:
                    partings.append((row, trie.sequences[lo][:depth], children))
                stack.extend((low, high, depth + 1) for low, high in children.values() if high - low > 1)
        deeper, below = [parting for parting in partings if parting[1]], ()
        if deeper:
            below = reader.branch([row for row, _, _ in deeper]).read([tokens for _, tokens, _ in deeper]).cpu()
            self.tokens["score"] += sum(len(tokens) for _, tokens, _ in deeper)
        log_probs, below = log_probs.cpu(), iter(below)
        for row, tokens, children in partings:
            here = next(below) if tokens else log_probs[row]
            among = here[list(children)].log_softmax(0).tolist()
            for (low, high), value in zip(children.values(), among):
                for item in tries[row].items[low:high]:
                    totals[row][item] += value
        return [[total[item] for item in items] for total, items in zip(totals, windows)]

    def likelihood_scores(self, reader: Reader, pieces, questions, texts: list[Text]) -> list[list[float]]:
        """log P(the item is noise | its title) from log P(title | the titles before it), by Bayes' rule.

        Noise as fine-tuning plants it: one of the n items of a window, drawn uniformly from the catalogue.
        """
        scores = []
        tails = [len(question.ids) - question.spans[text.first][0] + 1 for question, text in zip(questions, texts)]
        for question, text, tail, logits in zip(questions, texts, tails, reader.forward(pieces, tails)):
            starts, ends = (places[text.first :] for places in question.spans_from_end())
            read = [torch.tensor([row], device=logits.device) for row in (question.ids[-tail:], starts, ends)]
            likelihoods = title_log_likelihoods(logits[None], *read)[0].double().cpu()
            n = min(len(text.items), text.work.window)
            prior_odds = np.log(max(n - 1, 1)) + np.log(len(self.titles.catalogue) - 1)  # that an item belongs; of a uniform draw
            scores.append([np.nan] * text.first + (-torch.nn.functional.softplus(likelihoods + prior_odds)).tolist())
        return scores

    def records(self, works: list[Work], scores: list[list[float]]) -> list[tuple[dict, list]]:
        """(record, suspects [(text, place of its work)]) of each row from the scores of the texts.

        The suspects of a row are distinct items, highest first, ties to the earlier position.
        """
        records, first = [], 0
        for work in works:
            probs = [
                float(f"{scores[first + reading][place - work.readings[reading][0]]:.{DIGITS}g}")
                for place, reading in enumerate(work.reading)
            ]
            for row in work.rows:
                places, top = range(row.start, row.start + row.length), {}
                for place in sorted(places, key=lambda place: -probs[place]):
                    if probs[place] > self.threshold:
                        top.setdefault(work.items[place], place)
                keys = [(first + work.reading[place], place) for place in list(top.values())[: self.args.top_k]]
                record = {
                    "split": row.split,
                    "row": row.row,
                    "noise_prob": [probs[place] for place in places],
                    "noise_items": [work.items[place] for _, place in keys],
                    "noise_items_prob": [probs[place] for _, place in keys],
                }
                records.append((record, keys))
            first += len(work.readings)
        return records

    def suggest(self, reader: Reader, texts: list[Text], questions: list[Question], suspects: list[tuple[int, int]]) -> list:
        """A text or an item for each suspect (number of its text, place), by text.

        A branch for each: it forgets what the suspect may not know, then reads its title and the cue for a replacement.
        """
        pieces, forgotten, banned = [], [], []
        for number, place in suspects:
            (work, start, stop, _), asked = texts[number], questions[number]
            pieces.append(self.titles.tokens_up_to_replacement(work.items[place]))
            seen = min(work.limits[place], stop) - start
            forgotten.append(0 if seen == stop - start else len(asked.ids) - asked.spans[seen - 1][1])
            if forgotten[-1]:
                pieces[-1] = asked.ids[asked.spans[-1][1] :] + pieces[-1]  # the cue that it forgot
            banned.append(work.near(place))
        reader = reader.branch([number for number, _ in suspects])
        if any(forgotten):
            reader.forget(forgotten)
        return (
            self.suggest_free(reader, pieces)
            if self.args.suggest == "free"
            else self.suggest_from_catalogue(reader, pieces, banned)
        )

    def suggest_free(self, reader: Reader, pieces: list[list[int]]) -> list[str]:
        """Greedy free text after each piece, up to the mark that closes a title.

        What all titles of the catalogue that begin as the text does have next is read with it, and stands as far as the
        model would have written it too: speculative decoding (arXiv 2211.17192), the same text in fewer steps.
        """
        active = list(range(len(pieces)))
        written: list[list[int]] = [[] for _ in pieces]
        drafts: list[list[int]] = [[] for _ in pieces]
        while active:
            self.tokens["suggest"] += sum(map(len, pieces))
            tails = [1 + len(drafts[place]) for place in active]
            best = torch.cat([logits.argmax(-1) for logits in reader.forward(pieces, tails)]).cpu().split(tails)
            refused, going = [], []
            for text, (place, tokens) in enumerate(zip(active, map(torch.Tensor.tolist, best))):
                right = common_prefix(tokens, drafts[place])
                refused.append(len(drafts[place]) - right)
                for token in tokens[: right + 1]:
                    written[place].append(token)
                    if self.ended(written[place]):
                        break
                else:
                    drafts[place] = self.trie.common_continuation(written[place])[
                        : self.args.max_new_tokens - 1 - len(written[place])
                    ]
                    going.append(text)
            self.tokens["suggest"] -= sum(refused)
            if any(refused[text] for text in going):
                reader.forget(refused)
            if len(going) < len(active):
                reader.keep(going)
            active = [active[text] for text in going]
            pieces = [[written[place][-1], *drafts[place]] for place in active]
        return [self.answer_text(tokens) for tokens in written]

    def ended(self, tokens: list[int]) -> bool:
        if len(tokens) == self.args.max_new_tokens or tokens[-1] == self.titles.tokenizer.eos_token_id:
            return True
        return self.titles.prompt.close in self.titles.tokenizer.decode(tokens)

    def answer_text(self, tokens: list[int]) -> str:
        text = self.titles.tokenizer.decode(tokens, skip_special_tokens=True)
        return fold_title(text.split(self.titles.prompt.close)[0])

    def suggest_from_catalogue(self, reader: Reader, pieces: list[list[int]], banned: list[frozenset[int]]) -> list[int]:
        """Greedy decoding after each piece along the trie of titles, never to a banned item; ends where one title is left."""
        common, nodes = map(list, zip(*(self.trie.descend((0, len(self.trie.items), 0), ban) for ban in banned)))
        active, pieces = list(range(len(pieces))), [piece + more for piece, more in zip(pieces, common)]
        while active:
            self.tokens["suggest"] += sum(map(len, pieces))
            going, pieces_left = [], []
            for text, (place, log_probs) in enumerate(zip(active, reader.read(pieces).cpu())):
                if self.trie.decided(nodes[place], banned[place]):
                    continue
                children = self.trie.allowed_children(*nodes[place], banned[place])
                token = max(children, key=dict(zip(children, log_probs[list(children)].tolist())).get)
                follow, nodes[place] = self.trie.descend((*children[token], nodes[place][2] + 1), banned[place])
                if not self.trie.decided(nodes[place], banned[place]):
                    going.append(text)
                    pieces_left.append([token, *follow])
            active, pieces = [active[text] for text in going], pieces_left
            reader.keep(going)
        return [self.trie.allowed_items(lo, hi, ban)[0] for (lo, hi, _), ban in zip(nodes, banned)]

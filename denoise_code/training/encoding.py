"""Training examples as tokens with labels, and as padded batches.

Knows nothing of the model that learns from them.
"""

from typing import NamedTuple

from denoise_code.common.errors import InputError
from denoise_code.language_model.batches import pad_left, pad_right, pad_texts
from denoise_code.language_model.prompt import IGNORED, Prompt, continue_tokens, tokenize_questions
from denoise_code.training.examples import Example


class HeldOutLabels(NamedTuple):
    """What a batch of held-out windows says of the truth; arrays or tensors, padded on the left.

    The trainer collects the columns of these names and gives them back as a plain tuple in this order: `label_names`.
    """

    labels: object  # (B, K + 1) token ids, IGNORED where there is no loss
    answer_length: object  # (B,) tokens of the answer
    candidates: object  # (B, n) first token of each title where the answer names it; IGNORED where a window has no item
    planted: object  # (B, n) 1 where an item was planted, else 0; IGNORED where a window has no item
    popular: object  # (B,) 1 where the planted item was drawn by popularity
    title_starts: object  # (B, n) token where each title starts, counted from the end of the text: negative
    title_ends: object  # (B, n) the token behind it


FOR_METRICS = tuple(name for name in HeldOutLabels._fields if name != "labels")  # what only measuring reads


def encode(
    tokenizer, prompt: Prompt, example: Example, cutoff_len: int, loss_on: str = "answer", for_metrics: bool = True
) -> dict | None:
    """A row of a `datasets.Dataset`: token ids and labels, lists of `length` ints; items `dropped` at the cutoff.

    With `for_metrics` it has the columns FOR_METRICS too. loss_on: "answer", "all" or "unplanted" (all but the planted
    titles of the question). The answer is followed by the end token and is never cut: the oldest items that it does not
    name are dropped until the text fits `cutoff_len` tokens. None when two items are left and it still does not fit.
    """
    answer = continue_tokens(tokenizer, prompt.noise_cue, prompt.answer(example.pairs)) + [tokenizer.eos_token_id]
    positions = list(range(len(example.titles)))  # of the items that stay
    while True:
        titles = [example.titles[position] for position in positions]
        (question,) = tokenize_questions(tokenizer, prompt, [titles])
        if len(question.ids) + len(answer) <= cutoff_len:
            break
        oldest = next((position for position in positions if position not in example.positions), None)
        if oldest is None or len(titles) <= 2:
            return None
        positions.remove(oldest)
    is_planted = [position in example.positions for position in positions]
    row = {
        "input_ids": question.ids + answer,
        "labels": question_labels(question, is_planted, loss_on) + answer,
        "dropped": len(example.titles) - len(titles),
        "length": len(question.ids) + len(answer),
    }
    if for_metrics:  # tokenising each title alone takes longer than all the rest
        title_starts, title_ends = question.spans_from_end(len(answer))
        row |= {
            "answer_length": len(answer),
            "candidates": [continue_tokens(tokenizer, prompt.noise_cue, prompt.title(title))[0] for title in titles],
            "planted": list(map(int, is_planted)),
            "popular": int(example.by_popularity),
            "title_starts": title_starts,
            "title_ends": title_ends,
        }
    return row


def question_labels(question, is_planted: list[bool], loss_on: str) -> list[int]:
    """The labels of a question's tokens: its tokens, or IGNORED where they carry no loss."""
    if loss_on == "answer":
        return [IGNORED] * len(question.ids)
    labels = [IGNORED, *question.ids[1:]]  # nothing predicts the first
    if loss_on == "unplanted":
        for planted, (start, end) in zip(is_planted, question.spans):
            if planted:
                labels[start:end] = [IGNORED] * (end - start)
    return labels


def tokenize(tokenizer, prompt: Prompt, examples: list[Example], cutoff_len: int, loss_on: str, for_metrics: bool):
    """The `datasets.Dataset` of the encoded examples, tokenised once; `for_metrics` where they are held out.

    Prints what the cutoff dropped. Raises InputError where no example fits, or none of those drawn in one of the two ways.
    """
    from datasets import Dataset

    encoded = [encode(tokenizer, prompt, example, cutoff_len, loss_on, for_metrics) for example in examples]
    rows = [row for row in encoded if row is not None]
    n_dropped_items = sum(row["dropped"] for row in rows)
    if n_dropped_items or len(rows) < len(encoded):
        print(f"cutoff_len {cutoff_len}: {n_dropped_items} old items dropped, {len(encoded) - len(rows)} windows left out")
    ways_before = {example.by_popularity for example in examples}
    ways_after = {example.by_popularity for example, row in zip(examples, encoded) if row is not None}
    if ways_after != ways_before:
        raise InputError(f"--cutoff_len {cutoff_len}: no example{' of a kind' if rows else ''} fits")
    return Dataset.from_list(rows)


class Collator:
    """Batches of rows of `encode`, which ask the model for the logits that are needed and no others."""

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict]) -> dict:
        """A model's inputs for rows that are all trained on or all held out."""
        return self.held_out_batch(rows) if "candidates" in rows[0] else self.trained_batch(rows)

    def trained_batch(self, rows: list[dict]) -> dict:
        """Padded on the right: what is causal sees no padding there, so attention needs no mask, which would cost it time.

        input_ids (B, L). logits_to_keep (B, L) bool: the tokens whose next token has a label. shift_labels (n,): these n
        labels, row after row; under the name `labels` too, without which a model computes no loss.
        """
        import torch

        labels = pad_right([row["labels"] for row in rows], IGNORED)  # (B, L)
        next_labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # (B, L)
        has_label = next_labels != IGNORED
        return {
            "input_ids": pad_right([row["input_ids"] for row in rows], self.pad_token_id),
            "logits_to_keep": has_label,
            "labels": next_labels[has_label],
            "shift_labels": next_labels[has_label],
        }

    def held_out_batch(self, rows: list[dict]) -> dict:
        """Padded on the left: the model's inputs (B, L) and HeldOutLabels.

        All answers end in the last column, so the last K + 1 columns hold them (K is the longest answer's length) and
        the model's own loss, shifted by one, needs no other logits: `labels` is (B, K + 1).
        """
        labels = pad_left([row["labels"] for row in rows], IGNORED)  # (B, L)
        has_label = (labels != IGNORED).any(0)  # (L,)
        first_column = max(int(has_label.nonzero()[0]) - 1, 0)  # the one before predicts the first label
        n_columns = labels.shape[1] - first_column  # K + 1
        return {
            **pad_texts([row["input_ids"] for row in rows], self.pad_token_id),
            "labels": labels[:, -n_columns:],
            "logits_to_keep": n_columns,
            **self.for_metrics(rows),
        }

    @staticmethod
    def for_metrics(rows: list[dict]) -> dict:
        """The columns FOR_METRICS: (B,) or, for each title of a window, (B, n), padded on the left."""
        import torch

        return {
            "answer_length": torch.tensor([row["answer_length"] for row in rows]),
            "candidates": pad_left([row["candidates"] for row in rows], IGNORED),
            "planted": pad_left([row["planted"] for row in rows], IGNORED),
            "popular": torch.tensor([row["popular"] for row in rows]),
            "title_starts": pad_left([row["title_starts"] for row in rows], -1),
            "title_ends": pad_left([row["title_ends"] for row in rows], -1),
        }

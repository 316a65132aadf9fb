"""What stage 1 minimises and how it is measured: the paper's naming of the planted item, or title vectors by contrast.

Knows nothing of the trainer, checkpoints and adapters.
"""

from pathlib import Path

import numpy as np

from denoise_code.command_line import InputError
from denoise_code.dataset import find_train_file, noise_pools, plant, read_catalogue, read_windows, split_rows
from denoise_code.examples import FOR_METRICS, IGNORED, Collator, load_examples, pad_left, pad_texts, tokenize
from denoise_code.language_model import layer_outputs
from denoise_code.prompt import Prompt, clean_title
from denoise_code.scores import detection_metrics, first_token_scores, title_log_likelihoods
from denoise_code.title_vectors import choose_layer, mean_state, standardise, strangeness

TEMPERATURE = 0.1
GROUPS = 8  # of titles of like length that are read at once: padding would take most of the time


class Naming:
    """The paper's (section 3.2): name the planted item, and say what stood there."""

    label_names = ("labels", *FOR_METRICS)

    def __init__(self, folder: Path, args, tokenizer):
        self.args, self.layers, self.record = args, None, {}
        loaded = load_examples(folder, args.sample, args.eval_sample, args.seed, args.manual_noise, args.plant)
        self.prompt, examples, held_out = loaded
        self.train_set = tokenize(tokenizer, self.prompt, examples, args.cutoff_len, args.loss_on)
        measured = "answer" if args.loss_on == "answer" else "all"
        self.eval_set = tokenize(tokenizer, self.prompt, held_out, args.cutoff_len, measured) if held_out else None
        self.longest, self.mean_tokens = max(self.train_set["length"]), float(np.mean(self.train_set["length"]))
        self.lengths, self.collator = list(self.train_set["length"]), Collator(tokenizer.pad_token_id)

    def begin(self, model, tokenizer) -> None:
        """Nothing is to be learned from the base model."""

    def loss(self, of_model, model, inputs: dict, **kwargs):
        return of_model(model, {name: value for name, value in inputs.items() if name not in FOR_METRICS}, **kwargs)

    def scores(self, logits, labels):
        """What `metrics` reads; the whole logits of the held-out windows never leave the device."""
        first_token = first_token_scores(logits, labels)
        return first_token if self.args.loss_on == "answer" else (first_token, title_log_likelihoods(logits, labels))

    def metrics(self, prediction) -> dict[str, float]:
        """Detection of the first-token scores of held-out windows, and of the likelihoods where they were computed."""
        labels, scores = dict(zip(self.label_names, prediction.label_ids)), prediction.predictions
        first_token, *likelihood = scores if isinstance(scores, tuple) else (scores,)
        found = detection_metrics(first_token, labels["planted"], labels["popular"])
        for values in likelihood:
            more = detection_metrics(-values, labels["planted"], labels["popular"])
            found |= {f"likelihood_{name}": value for name, value in more.items()}
        return found


class Contrast:
    """Title vectors in which items of one window are near each other, against the other titles of the batch.

    InfoNCE (van den Oord et al., arXiv 1807.03748) over all pairs of a window, corrected for popular titles being drawn
    more often (log q, Bengio and Senecal 2008). Only the layers up to the one whose states are the vectors are run.
    """

    label_names = ("planted", "popular")

    def __init__(self, folder: Path, args, tokenizer):
        from datasets import Dataset

        self.catalogue, self.prompt, self.args = read_catalogue(folder), Prompt(), args
        source = find_train_file(folder)
        self.windows = read_windows(source, len(self.catalogue) - 1)["item_ids"].tolist()
        if args.sample + args.eval_sample > len(self.windows):
            raise InputError(
                f"--sample {args.sample} and --eval_sample {args.eval_sample}: {source} has {len(self.windows)} rows"
            )
        train, held_out = split_rows(len(self.windows), args.sample, args.eval_sample, args.seed)
        pools, rng = noise_pools(self.windows, len(self.catalogue) - 1), np.random.default_rng([args.seed, 1])
        rows = [self.row(self.windows[row], {}, 0) for row in train]
        self.train_set, self.eval_set = Dataset.from_list(rows), None
        if len(held_out):
            planted = [plant(self.windows[row], list(pools.values())[n % 2], rng) for n, row in enumerate(held_out)]
            rows = [self.row(self.windows[row], new, n % 2) for n, (row, new) in enumerate(zip(held_out, planted))]
            self.eval_set = Dataset.from_list(rows)
        self.tokens = [tokenizer(clean_title(title))["input_ids"] for title in self.catalogue]
        self.counts = np.bincount(pools["popularity"], minlength=len(self.catalogue))
        lengths = np.array([len(title) for title in self.tokens])
        self.longest, self.lengths = int(lengths.max()), [1] * len(train)  # batches are drawn at random
        self.mean_tokens = float(np.mean([lengths[row["items"]].sum() for row in self.train_set]))
        self.pad_token_id = tokenizer.pad_token_id

    @staticmethod
    def row(items: list[int], planted: dict[int, int], popular: int) -> dict:
        noisy = [planted.get(place, item) for place, item in enumerate(items)]
        return {"items": noisy, "planted": [int(place in planted) for place in range(len(items))], "popular": popular}

    def collator(self, rows: list[dict]) -> dict:
        """The titles (U, L) of a batch, each once, the shortest first; windows (B, W): which stand where, -1 where none."""
        import torch

        read = sorted(set().union(*(row["items"] for row in rows)), key=lambda item: (len(self.tokens[item]), item))
        place = {item: number for number, item in enumerate(read)}
        return {
            "planted": pad_left([row["planted"] for row in rows], IGNORED),  # first: the trainer counts a batch by it
            "popular": torch.tensor([row["popular"] for row in rows]),
            "windows": pad_left([[place[item] for item in row["items"]] for row in rows], -1),
            "log_counts": torch.tensor(self.counts[read]).clamp(min=1).log(),
            **pad_texts([self.tokens[item] for item in read], self.pad_token_id),
        }

    def begin(self, model, tokenizer) -> None:
        """Choose the layer by the untrained model; its vectors' mean and deviation stay those of the start."""
        rng = np.random.default_rng([self.args.seed, 4])
        found = choose_layer(model, tokenizer, self.catalogue, self.windows, rng, 4 * self.args.micro_batch_size)
        self.mean, self.std, self.layers = found.pop("mean"), found.pop("std"), found["layer"]
        self.record = found

    def loss(self, of_model, model, inputs: dict, return_outputs: bool = False, **_):
        import torch

        vectors = []
        with layer_outputs(getattr(model, "module", model), [self.layers]) as states:  # the module of what distributes it
            names = ("input_ids", "attention_mask", "position_ids")
            for parts in zip(*(inputs[name].chunk(GROUPS) for name in names)):
                read = {name: part[:, -int(parts[1].sum(1).max()) :] for name, part in zip(names, parts)}
                model(**read, use_cache=False, logits_to_keep=1)
                vectors.append(mean_state(states[0], read["attention_mask"]))
        device = vectors[0].device
        vectors = standardise(torch.cat(vectors), self.mean.to(device), self.std.to(device))
        loss = contrast_loss(vectors, inputs["windows"], inputs["log_counts"])
        return (loss, {"scores": strangeness(vectors, inputs["windows"])}) if return_outputs else loss

    def scores(self, logits, labels):
        return logits

    def metrics(self, prediction) -> dict[str, float]:
        return detection_metrics(prediction.predictions, *prediction.label_ids)


def contrast_loss(vectors, windows, log_counts):
    """Mean over the pairs (i, j) of each window of -log exp(s_ij) / (exp(s_ij) + sum over titles k of other windows of exp(s_ik)).

    vectors (U, D) of length 1; windows (B, W) rows of vectors, -1 where none; s = cosine / TEMPERATURE - log_counts (U,).
    """
    import torch

    logits = vectors @ vectors.T / TEMPERATURE - log_counts  # (U, U)
    here, own = windows >= 0, windows.clamp(min=0)
    inside = torch.zeros(len(windows), len(vectors), dtype=torch.bool, device=windows.device)
    inside[here.nonzero()[:, 0], windows[here]] = True  # (B, U)
    others = logits[own].masked_fill(inside[:, None], -torch.inf).logsumexp(-1)  # (B, W)
    pairs = logits[own[:, :, None], own[:, None, :]]  # (B, W, W)
    different = here[:, :, None] & here[:, None, :] & (own[:, :, None] != own[:, None, :])
    return torch.nn.functional.softplus(others[:, :, None] - pairs)[different].mean()


OBJECTIVES = {"naming": Naming, "contrast": Contrast}

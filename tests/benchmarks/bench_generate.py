"""Score and suggest beside a plain version of the release's way, in one run, with equal results.

The plain way: padded prompts in file order, one full forward with all logits to score a batch, and for each of the
three suspects a full-prompt `generate`. All ways take turns for some rounds, each after one batch that warms it; the
fastest round of each step counts. Tokens that are not shared set the limit of scoring: 2 x parameters x tokens at the
measured rate of float32 products; attention and the LM head do not count as work.

    python tests/benchmarks/bench_generate.py ADAPTER DATASET_FOLDER [--split test_5000] [--windows 64] [--rounds 3]
"""

import argparse
import ctypes
import gc
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import generate_denoised as generate  # noqa: E402
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.titles import fold_title as clean_title
from denoise_code.data_set.windows import read_scored_windows as read_split
from denoise_code.language_model.batches import pad_left
from denoise_code.language_model.loading import check_adapter, load_model, load_tokenizer
from denoise_code.language_model.prompt import Prompt, Titles
from denoise_code.reading.denoiser import Denoiser
from denoise_code.reading.job import plan_part
from denoise_code.reading.plan import plan_rows
from denoise_code.reading.records import DIGITS


def gemm_flops() -> float:
    """FLOP/s of float32 products of the shapes of this model's layers."""
    a, b = torch.randn(2048, 576), torch.randn(576, 1536)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(20):
            a @ b
        best = max(best, 20 * 2 * a.shape[0] * a.shape[1] * b.shape[1] / (time.perf_counter() - started))
    return best


class PeakMemory:
    """Highest resident memory of this process in GiB in the block, above what it was before; Linux keeps it, no thread does."""

    def __enter__(self):
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else freed pages of the run before would count for nothing
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far is what it is now
        self.before = self.peak()
        return self

    def __exit__(self, *_):
        self.gib = self.peak() - self.before

    @staticmethod
    def peak() -> float:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20


@torch.no_grad()
def plain(model, tokenizer, prompt, catalogue, windows, options):
    """[(noise_prob, suspects, texts)], and the seconds and tokens of scoring and of suggesting."""
    seconds, count, results = Counter(), Counter(), []
    for start in [0, *range(0, len(windows), 16)]:
        if not start:  # the first batch is read twice, once to warm up
            seconds, count, results = Counter(), Counter(), []
        batch, started = windows[start : start + 16], time.perf_counter()
        questions = [prompt.question([catalogue[item] for item in window.items]) for window in batch]
        tokens = [tokenizer(question)["input_ids"] for question in questions]
        ids, mask = pad_left(tokens, tokenizer.pad_token_id), pad_left([[1] * len(row) for row in tokens], 0)
        count["score"] += sum(map(len, tokens))
        logits = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        log_probs = logits.float().log_softmax(-1)[:, -1]
        scored = []
        for window, row in zip(batch, log_probs):
            first = [
                tokenizer(prompt.noise_cue + prompt.title(catalogue[i]), add_special_tokens=False)["input_ids"]
                for i in window.items
            ]
            cue = len(tokenizer(prompt.noise_cue, add_special_tokens=False)["input_ids"])
            probs = [float(f"{row[piece[cue]].item():.{DIGITS}g}") for piece in first]
            order = sorted(range(len(probs)), key=lambda place: -probs[place])
            suspects = list(dict.fromkeys(window.items[place] for place in order))[:3]
            scored.append((probs, suspects))
        seconds["score"] += time.perf_counter() - started
        started = time.perf_counter()
        texts = [[] for _ in batch]
        for rank in range(3):
            prompts = [q + prompt.title(catalogue[s[rank]]) + prompt.suggest_cue for q, (_, s) in zip(questions, scored)]
            tokens = [tokenizer(text)["input_ids"] for text in prompts]
            ids, mask = pad_left(tokens, tokenizer.pad_token_id), pad_left([[1] * len(row) for row in tokens], 0)
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=options.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
            count["suggest"] += sum(map(len, tokens)) + out[:, ids.shape[1] :].numel()
            for row, tokens_out in enumerate(out[:, ids.shape[1] :]):
                text = tokenizer.decode(tokens_out, skip_special_tokens=True).split(prompt.close)[0]
                texts[row].append(clean_title(text))
        seconds["suggest"] += time.perf_counter() - started
        results += [(probs, suspects, text) for (probs, suspects), text in zip(scored, texts)]
    return results, seconds, count


def ours(model, tokenizer, prompt, catalogue, windows, options):
    titles = Titles(tokenizer, prompt, catalogue)
    denoiser, records = Denoiser(model, titles, options), []
    denoiser.begin([window.items for window in windows])
    plan = plan_part(plan_rows("windows", windows), titles, options.batch_size)
    denoiser.run([plan.stretches[row] for row in plan.batches[0]])  # as warm as the plain way
    denoiser.seconds.clear()
    denoiser.tokens.clear()
    for batch in plan.batches:
        records += denoiser.run([plan.stretches[row] for row in batch])
    denoiser.end()
    return sorted(records, key=lambda record: record.row), denoiser.seconds, denoiser.tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--split", default="test_5000")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    place = tempfile.mkdtemp()

    def request(*extra):
        options = ["--denoise_model_path", given.adapter, "--noise_dataset_path", given.dataset, "--output_root", place]
        args = generate.parse_args([str(option) for option in [*options, "--batch_size", 16, *extra]])
        return generate.read_request(args)

    prompt, catalogue = Prompt.load(given.adapter), read_catalogue(given.dataset)
    record = check_adapter(given.adapter, None)
    model = load_model(given.adapter, record.base_model, request().model.precision)
    tokenizer = load_tokenizer(str(given.adapter))
    model.merge_adapter()
    windows = read_split(given.dataset, given.split, catalogue, given.windows, 0, record).windows
    parameters = sum(p.numel() for name, p in model.named_parameters() if "lora" not in name and "embed" not in name)
    limit = gemm_flops()
    print(f"{len(windows)} windows of {given.dataset.name}, {torch.get_num_threads()} threads", flush=True)

    def measure(way, *options):
        with PeakMemory() as memory:
            records, seconds, tokens = way(model, tokenizer, prompt, catalogue, windows, request(*options).reading)
        return seconds, tokens, memory.gib, records

    ways = {
        "plain": (plain,),
        "free": (ours,),
        "catalogue": (ours, "--suggest", "catalogue"),
    }
    rounds = [{name: measure(*way) for name, way in ways.items()} for _ in range(given.rounds)]
    limit, before = max(limit, gemm_flops()), None
    for name in ways:
        score, suggest = (min(found[name][0][step] for found in rounds) / len(windows) for step in ("score", "suggest"))
        before = before or score + suggest
        totals = ", ".join(f"{sum(found[name][0].values()) / len(windows):.3f}" for found in rounds)
        tokens, gib = {step: count / len(windows) for step, count in rounds[0][name][1].items()}, max(f[name][2] for f in rounds)
        print(
            f"{name:10s} score {score:.3f} + suggest {suggest:.3f} s/window (rounds {totals}), {tokens['score']:.0f} + "
            f"{tokens['suggest']:.0f} tokens/window, scoring at {2 * parameters * tokens['score'] / score / limit:.0%} of "
            f"{limit / 1e9:.0f} GFLOP/s, memory {gib:+.2f} GiB, {before / (score + suggest):.1f}x"
        )
    same = [
        (np.allclose(probs, record.noise_prob, atol=1e-3), suspects == record.noise_items, texts == record.texts)
        for (probs, suspects, texts), record in zip(rounds[0]["plain"][-1], rounds[0]["free"][-1])
    ]
    print(
        "equal to the plain way: noise_prob {:.0%}, suspects {:.0%}, suggestions {:.0%} of windows".format(*np.mean(same, axis=0))
    )


if __name__ == "__main__":
    main()

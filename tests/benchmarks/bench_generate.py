"""Score and suggest beside a plain version of the release's way, in one run, with equal results.

The plain way: padded prompts in file order, one full forward with all logits to score a batch, and for each of the
three suspects a full-prompt `generate`. Both are timed after one batch that warms them. Tokens that are not shared set
the limit of scoring: 2 x parameters x tokens at the machine's measured GEMM rate.

    python tests/benchmarks/bench_generate.py ADAPTER DATASET_FOLDER [--split test_5000] [--windows 64]
"""

import argparse
import ctypes
import gc
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import generate_denoised as generate  # noqa: E402
from train_denoise_model import Prompt, pad_left, read_catalogue  # noqa: E402


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
    """Highest resident memory of this process in GiB while the block runs, above what it was before."""

    def __enter__(self):
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else freed pages of the run before would count for nothing
        self.before, self.peak, self.running = self.now(), 0.0, True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.running = False
        self.thread.join()
        self.gib = self.peak - self.before

    def watch(self):
        while self.running:
            self.peak = max(self.peak, self.now())
            time.sleep(0.01)

    @staticmethod
    def now() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**30


@torch.no_grad()
def plain(model, tokenizer, prompt, catalogue, windows, batch_size, max_new_tokens):
    """[(noise_prob, suspects, texts)] and the seconds of scoring and of suggesting."""
    seconds, results = [0.0, 0.0], []
    for start in range(0, len(windows), batch_size):
        batch, started = windows[start : start + batch_size], time.perf_counter()
        questions = [prompt.question([catalogue[item] for item in window.items]) for window in batch]
        tokens = [tokenizer(question)["input_ids"] for question in questions]
        ids, mask = pad_left(tokens, tokenizer.pad_token_id), pad_left([[1] * len(row) for row in tokens], 0)
        logits = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        log_probs = logits.float().log_softmax(-1)[:, -1]
        scored = []
        for window, row in zip(batch, log_probs):
            first = [
                tokenizer(prompt.noise_cue + prompt.title(catalogue[i]), add_special_tokens=False)["input_ids"]
                for i in window.items
            ]
            cue = len(tokenizer(prompt.noise_cue, add_special_tokens=False)["input_ids"])
            probs = [float(f"{row[piece[cue]].item():.{generate.DIGITS}g}") for piece in first]
            order = sorted(range(len(probs)), key=lambda place: -probs[place])
            suspects = list(dict.fromkeys(window.items[place] for place in order))[:3]
            scored.append((probs, suspects))
        seconds[0] += time.perf_counter() - started
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
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
            for row, tokens_out in enumerate(out[:, ids.shape[1] :]):
                text = tokenizer.decode(tokens_out, skip_special_tokens=True).split(prompt.close)[0]
                texts[row].append(generate.clean_title(text))
        seconds[1] += time.perf_counter() - started
        results += [(probs, suspects, text) for (probs, suspects), text in zip(scored, texts)]
    return results, seconds


def ours(model, tokenizer, prompt, catalogue, windows, options, args):
    denoiser = generate.Denoiser(model, tokenizer, prompt, catalogue, args(*options))
    questions = denoiser.prepare(windows)
    plan, records = generate.batches(questions, 16), []
    denoiser.run([windows[row] for row in plan[0]], [questions[row] for row in plan[0]])  # as warm as the plain way
    denoiser.seconds.clear()
    denoiser.tokens.clear()
    for batch in plan:
        records += denoiser.run([windows[row] for row in batch], [questions[row] for row in batch])
    return sorted(records, key=lambda record: record["row"]), dict(denoiser.seconds), dict(denoiser.tokens)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--split", default="test_5000")
    parser.add_argument("--windows", type=int, default=64)
    given = parser.parse_args()
    place = tempfile.mkdtemp()

    def args(*extra):
        options = ["--denoise_model_path", given.adapter, "--noise_dataset_path", given.dataset, "--output_root", place, *extra]
        parsed = generate.parse_args([str(option) for option in options])
        parsed.batch_size = 16
        return parsed

    prompt, catalogue = Prompt.load(given.adapter), read_catalogue(given.dataset)
    run = generate.check_adapter(given.adapter, None)
    model = generate.load_model(given.adapter, run["base_model"], args())
    tokenizer = generate.load_tokenizer(str(given.adapter))
    model.merge_adapter()
    _, windows = generate.read_split(given.dataset, given.split, catalogue, given.windows, 0, run)
    parameters = sum(p.numel() for name, p in model.named_parameters() if "lora" not in name and "embed" not in name)
    limit = gemm_flops()
    print(
        f"{len(windows)} windows of {given.dataset.name}; {limit / 1e9:.0f} GFLOP/s in float32 products, {torch.get_num_threads()} threads"
    )

    results = {}
    for name, options in (
        ("free", []),
        ("catalogue", ["--suggest", "catalogue"]),
        ("title", ["--suggest", "catalogue", "--score", "title"]),
    ):
        with PeakMemory() as memory:
            records, seconds, tokens = ours(model, tokenizer, prompt, catalogue, windows, options, args)
        results[name] = records, sum(seconds.values()) / len(windows)
        rate = 2 * parameters * tokens["score"] / seconds["score"] / limit
        print(
            f"{name:10s} score {seconds['score'] / len(windows):.3f} + suggest {seconds['suggest'] / len(windows):.3f} s/window, "
            f"{tokens['score'] / len(windows):.0f} + {tokens['suggest'] / len(windows):.0f} tokens/window, "
            f"scoring at {rate:.0%} of the GEMM limit, memory {memory.gib:+.2f} GiB",
            flush=True,
        )
    plain(model, tokenizer, prompt, catalogue, windows[:16], 16, args().max_new_tokens)
    with PeakMemory() as memory:
        expected, seconds = plain(model, tokenizer, prompt, catalogue, windows, 16, args().max_new_tokens)
    total = sum(seconds) / len(windows)
    print(
        f"plain      score {seconds[0] / len(windows):.3f} + suggest {seconds[1] / len(windows):.3f} s/window, "
        f"memory {memory.gib:+.2f} GiB"
    )
    print(f"speed-up   free {total / results['free'][1]:.1f}x, catalogue {total / results['catalogue'][1]:.1f}x")
    same = [
        (np.allclose(probs, record["noise_prob"], atol=1e-3), suspects == record["noise_items"], texts == record["texts"])
        for (probs, suspects, texts), record in zip(expected, results["free"][0])
    ]
    print(
        "equal to the plain way: noise_prob {:.0%}, suspects {:.0%}, suggestions {:.0%} of windows".format(*np.mean(same, axis=0))
    )


if __name__ == "__main__":
    main()

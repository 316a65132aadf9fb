"""Estimate tokens, FLOPs and hours of fine-tuning and denoising, and the memory of denoising, from sizes alone.

Counted: 2 FLOPs a parameter and token forward; backward the same again, since the frozen base model needs gradients of
its activations only. The layers compute every token, the head fewer: in training those of the answer, in scoring every token
of a history by likelihood and one a window by first token, in suggesting those that are written. Attention is not counted.
Scoring reads the tokens of a window that are not shared; suggesting reads the suspects' titles and writes their
replacements. With `interactions` each is read once (--unit interaction, by likelihood), with half a window read again at
every four windows, and replacements are asked for the share of them that is among the top three of a row.

    python tests/benchmarks/cost.py                                        # the table of the README
    python tests/benchmarks/cost.py --windows 38000 --title_tokens 14 --flops 4e14 --gpus 4
"""

import argparse

# Parameters of the layers and of the head; the embeddings, as large as the head, are looked up.
LLAMA_3_8B = dict(layers=6.98e9, head=5.25e8)
SMOLLM2_135M = dict(layers=1.06e8, head=2.83e7)
# Llama: assumed are 40 % of the 312 TFLOP/s that an A100 80 GB computes in bfloat16. SmolLM2: 244 MovieLens windows/s, measured
A100, H200 = dict(flops=1.25e14), dict(flops=5.7e12)
CASES = {
    "Toy, Llama-3-8B, 4 x A100": dict(windows=47_900, title_tokens=14, gpus=4, **LLAMA_3_8B, **A100),
    "Movie, Llama-3-8B, 4 x A100": dict(windows=124_000, title_tokens=8, gpus=4, **LLAMA_3_8B, **A100),
    "the same, each interaction once": dict(windows=124_000, interactions=214_980, title_tokens=8, gpus=4, **LLAMA_3_8B, **A100),
    "100 M windows, SmolLM2-135M, 8 x H200": dict(
        windows=100_000_000, title_tokens=10, gpus=8, likelihood=True, **SMOLLM2_135M, **H200
    ),
    "100 M windows, Llama-3-8B, 64 x A100": dict(windows=100_000_000, title_tokens=10, gpus=64, **LLAMA_3_8B, **A100),
}

SUSPECTED = 0.43  # of the interactions of sliding windows that are in the top three of one of them (MovieLens-100k)


def estimate(
    windows,
    title_tokens,
    layers,
    head,
    flops,
    gpus,
    interactions=None,
    likelihood=False,
    sample=5000,
    epochs=50,
    window=11,
    prompt=25,
    top_k=3,
    decoded=5,
) -> dict:
    """Tokens, FLOPs and hours of both stages. title_tokens: mean tokens of a title with its mark; decoded: of a replacement.

    layers, head: parameters that every token, and every token whose successor is asked for, is multiplied with.
    `decoded` is below title_tokens with --suggest catalogue, which stops when one title is left.
    """
    history = window * title_tokens
    answer = 2 * title_tokens + 4
    train_tokens = sample * epochs * (prompt + history + answer)
    train_flops = 4 * (layers * train_tokens + head * sample * epochs * answer)
    score_tokens, suspects = windows * (history + 3), windows * top_k
    if interactions:
        score_tokens, suspects = interactions * title_tokens * 4 * window / (4 * window - 6), interactions * SUSPECTED
    suggest_tokens = suspects * (title_tokens + 3 + decoded)
    scored = score_tokens if likelihood or interactions else windows  # tokens whose successors are asked for
    denoise_flops = 2 * (layers * (score_tokens + suggest_tokens) + head * (scored + suspects * decoded))
    hours = 1 / (flops * gpus * 3600)
    return {
        "train_tokens": train_tokens,
        "train_flops": train_flops,
        "train_hours": train_flops * hours,
        "score_tokens": score_tokens,
        "suggest_tokens": suggest_tokens,
        "denoise_flops": denoise_flops,
        "denoise_hours": denoise_flops * hours,
    }


def memory_gib(parameters, bytes_per_weight=2, layers=32, kv_width=1024, batch=128, tokens=200) -> float:
    """Weights, and keys and values of a batch with as much room for answers, in GiB; the defaults are Llama-3-8B in bfloat16."""
    cache = 2 * layers * kv_width * 2 * tokens * batch * bytes_per_weight
    return (parameters * bytes_per_weight + cache) / 2**30


def show(name: str, case: dict) -> None:
    e = estimate(**case)
    print(
        f"| {name} | {e['train_tokens'] / 1e6:,.0f} M | {in_hours(e['train_hours'])} | "
        f"{(e['score_tokens'] + e['suggest_tokens']) / 1e6:,.0f} M | {e['denoise_flops']:.1e} | {in_hours(e['denoise_hours'])} |"
    )


def in_hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 0.05 else "< 0.1 h"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--windows", type=int)
    add("--interactions", type=int, help="of --unit interaction: each is read once")
    add("--title_tokens", type=float, default=10)
    add("--layers", type=float, default=LLAMA_3_8B["layers"], help="parameters of the layers (default: Llama-3-8B's)")
    add("--head", type=float, default=LLAMA_3_8B["head"], help="parameters of the head (default: Llama-3-8B's)")
    add("--likelihood", action="store_true", help="of --score likelihood: the head computes every token")
    add("--flops", type=float, default=1.25e14, help="FLOP/s that a device reaches")
    add("--gpus", type=int, default=1)
    args = parser.parse_args()
    print("| case | training tokens (5,000 windows, 50 epochs) | training | denoising tokens | denoising FLOPs | denoising |")
    print("|---|---|---|---|---|---|")
    if args.windows:
        show(f"{args.windows:,} windows", vars(args))
    else:
        for name, case in CASES.items():
            show(name, case)
    parameters = LLAMA_3_8B["layers"] + 2 * LLAMA_3_8B["head"]  # with the embeddings
    print(f"memory of denoising with Llama-3-8B, 128 windows at once: {memory_gib(parameters):.0f} GiB")


if __name__ == "__main__":
    main()

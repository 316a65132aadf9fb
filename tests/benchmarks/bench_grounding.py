"""Share of misspelt titles that go to the right item: by last-token states (the release) and by title vectors.

python tests/benchmarks/bench_grounding.py data/ML100K_noise_user0.1
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.folder import find_train_file
from denoise_code.data_set.rows import read_windows
from denoise_code.data_set.titles import fold_title as clean_title
from denoise_code.language_model.loading import EMBEDDED_MODEL, load_base_model, load_tokenizer
from denoise_code.language_model.title_vectors import choose_layer, mean_over_title, read_title_states, standardise
from denoise_code.reading.grounding import nearest_items

TITLES = 500


def misspell(title: str, rng) -> dict[str, str]:
    """A letter left out, two letters swapped, a word left out; as the title is where it has too few."""
    place, words = int(rng.integers(max(len(title) - 1, 1))), title.split()
    without = [word for number, word in enumerate(words) if number != rng.integers(len(words))]
    return {
        "letter left out": title[:place] + title[place + 1 :],
        "letters swapped": title[:place] + title[place + 1 : place + 2] + title[place : place + 1] + title[place + 2 :],
        "word left out": " ".join(without) or title,
    }


def main() -> None:
    folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
    catalogue = [clean_title(title) for title in read_catalogue(folder)]
    tokenizer, model = load_tokenizer(EMBEDDED_MODEL), load_base_model(EMBEDDED_MODEL, "float32").eval()
    windows = read_windows(find_train_file(folder), len(catalogue) - 1)["item_ids"].tolist()
    layer = choose_layer(model, tokenizer, catalogue, windows, rng)["layer"]
    chosen = rng.choice(np.arange(1, len(catalogue)), size=min(TITLES, len(catalogue) - 1), replace=False).tolist()
    written = [misspell(catalogue[item], rng) for item in chosen]
    print(f"{folder.name}: {len(catalogue) - 1:,} titles, {len(chosen)} of them misspelt; layer {layer}")
    ways = {
        "last token": ([], lambda states, mask: states[:, -1]),
        f"mean at layer {layer}": ([layer], mean_over_title),
    }
    for way, (layers, pool) in ways.items():
        started = time.perf_counter()
        table = read_title_states(model, tokenizer, catalogue[1:], layers, pool)[0]
        mean, std = (0, torch.ones(())) if not layers else (table.mean(0), table.std(0))
        if layers:
            table = standardise(table, mean, std)
        shares = {}
        for kind in written[0]:
            queries = read_title_states(model, tokenizer, [kinds[kind] for kinds in written], layers, pool)[0]
            found = nearest_items(standardise(queries, mean, std) if layers else queries, table)
            shares[kind] = np.mean([catalogue[a] == catalogue[b] for a, b in zip(found, chosen)])
        print(f"{way:18s}", "  ".join(f"{kind} {share:.3f}" for kind, share in shares.items()), end="")
        print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()

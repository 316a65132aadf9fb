"""The paper's task learned by a small transformer: it reads a window as a set of items and marks those that were planted.

LLM4DSR (section 3.2) fine-tunes a language model to name the one item of a window that was replaced by a random one. Here the
language model only reads the catalogue (title vectors), and a transformer of two layers learns the same task over whole
windows, in minutes on a CPU. An item is its title vector, mapped, plus a free vector of its own. The network is not told the
place of an item: the same items in another order have the same log-odds. A detector speaks only for users whom it did not learn
from. The users are halved in two ways, and a detector is learned from each of the four halves. Two of the four did not learn from
a given user. Their mean counts, as it is better than either (AUC of planted items on a log of toys 0.785 -> 0.802).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from denoise_code.common.dropout import Dropout
from denoise_code.evidence.features import WindowKind

STEPS_WORTH_A_PROCESS = 200  # of learning; starting one takes some seconds
PLACES_AT_ONCE = 32_768  # of windows that are read together, which takes 150 MiB


@dataclass(frozen=True)
class DetectorSettings:
    """How a detector is built and learned; the values were chosen on planted windows of users that it did not learn from."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    feed_forward: int = 2  # times the width
    dropout: float = 0.2
    free_vector_dropout: float = 0.3  # so that titles must be read as well
    planted_share: float = 0.3  # of the places of a window: many labels, though some context is lost
    planted_by_popularity: float = 0.5  # share of the planted items drawn as popular as the windows' own, the rest uniformly
    steps: int = 1500  # of the optimiser; fewer where the windows are few:
    most_passes: int = 60  # over the windows
    batch_size: int = 128  # windows
    learning_rate: float = 2e-3

    def steps_for(self, n_windows: int) -> int:
        """Steps of learning from so many windows."""
        return min(self.steps, self.most_passes * -(-n_windows // self.batch_size))


class Detector(nn.Module):
    """Log-odds that each place of a window was planted, whatever the order of its items.

    Windows may have any length; item 0 is padding, to the left in all that calls it.
    """

    def __init__(self, n_items: int, title_vectors: Tensor | None, settings: DetectorSettings):
        """title_vectors (n_items + 1, D) float32, row 0 for padding, or None."""
        super().__init__()
        self.settings = settings
        self.free_vectors = nn.Embedding(n_items + 1, settings.width, padding_idx=0)
        nn.init.normal_(self.free_vectors.weight, std=0.1)
        with torch.no_grad():
            self.free_vectors.weight[0] = 0
        self.register_buffer("title_vectors", title_vectors, persistent=False)
        self.register_buffer("item_vectors", None, persistent=False)  # (n_items + 1, width) once learning is over
        if title_vectors is not None:
            self.title_map = nn.Linear(title_vectors.shape[1], settings.width, bias=False)
        self.input_norm = nn.LayerNorm(settings.width)
        layer = nn.TransformerEncoderLayer(
            settings.width,
            settings.heads,
            settings.feed_forward * settings.width,
            settings.dropout,
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        # All but the attention's: nn.Dropout takes a fifth of a step on a CPU.
        layer.dropout = layer.dropout1 = layer.dropout2 = Dropout(settings.dropout)
        self.encoder = nn.TransformerEncoder(layer, settings.layers, nn.LayerNorm(settings.width), enable_nested_tensor=False)
        self.output = nn.Linear(settings.width, 1)

    @staticmethod
    def of_state(arrays: dict[str, np.ndarray], settings: DetectorSettings) -> "Detector":
        """Of the arrays of a `state_dict`, without the titles of a catalogue, which `for_catalogue` gives it."""
        free_vectors, title_map = arrays["free_vectors.weight"], arrays.get("title_map.weight")
        no_titles = None if title_map is None else torch.zeros(len(free_vectors), title_map.shape[1])
        detector = Detector(len(free_vectors) - 1, no_titles, settings)
        detector.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        return detector.eval()

    def for_catalogue(self, n_items: int, title_vectors: Tensor | None) -> "Detector":
        """This detector for a catalogue that goes on behind the items it was learned from: new items have a free vector of zeros."""
        state = self.state_dict()
        known = state["free_vectors.weight"]
        state["free_vectors.weight"] = nn.functional.pad(known, (0, 0, 0, n_items + 1 - len(known)))
        extended = Detector(n_items, title_vectors, self.settings).to(known.device)
        extended.load_state_dict(state)
        return extended.finish()

    def embed(self, windows: Tensor) -> Tensor:
        """Item vectors (B, W, width) of windows (B, W) int64."""
        if self.item_vectors is not None:
            return nn.functional.embedding(windows, self.item_vectors)
        vectors = self.free_vectors(windows)
        if self.title_vectors is not None:
            keep = torch.rand(windows.shape, device=windows.device) >= self.settings.free_vector_dropout
            titles = nn.functional.embedding(windows, self.title_vectors)
            vectors = vectors * keep[..., None] + self.title_map(titles)
        return self.input_norm(vectors)

    @torch.no_grad()
    def forget_items_but(self, learned_from: Tensor) -> None:
        """Free vectors of all items but these (K,) become zeros: random ones of items that were never seen would be noise."""
        is_unlearned = torch.ones(len(self.free_vectors.weight), dtype=torch.bool, device=learned_from.device)
        is_unlearned[learned_from] = False
        self.free_vectors.weight[is_unlearned] = 0

    @torch.no_grad()
    def finish(self) -> "Detector":
        """Learning is over: each item has one vector from now on."""
        vectors = self.free_vectors.weight
        if self.title_vectors is not None:
            vectors = vectors + self.title_map(self.title_vectors)
        self.item_vectors = self.input_norm(vectors)  # (n_items + 1, width)
        return self.eval()

    def forward(self, windows: Tensor) -> Tensor:
        """Log-odds (B, W); what stands at padding means nothing."""
        hidden = self.encoder(self.embed(windows), src_key_padding_mask=windows == 0)
        return self.output(hidden)[..., 0]


def plant_items(windows: Tensor, pools: tuple[Tensor, Tensor], settings: DetectorSettings, rng: torch.Generator):
    """(windows with planted items (B, W), where they stand (B, W) bool); a drawn item that the window has is not planted.

    pools: the distinct items to draw from uniformly, and the items of all positions, to draw from by popularity.
    """
    shape = windows.shape
    chosen = (torch.rand(shape, generator=rng) < settings.planted_share) & (windows != 0)
    by_popularity = torch.rand(shape, generator=rng) < settings.planted_by_popularity
    uniform, popular = (pool[torch.randint(len(pool), shape, generator=rng)] for pool in pools)
    items = torch.where(by_popularity, popular, uniform)
    in_window = (items[:, :, None] == windows[:, None, :]).any(2)  # (B, W)
    planted = chosen & ~in_window
    return torch.where(planted, items, windows), planted


def learn_detector(
    windows: np.ndarray,
    n_items: int,
    title_vectors: np.ndarray | None,
    settings: DetectorSettings,
    seed: int = 0,
    device: str = "cpu",
    show: str | None = "learn the detector",
) -> Detector:
    """A detector learned from windows (N, W) int64 of items 1..n_items, 0 where padding; equal bytes for equal input on a CPU.

    title_vectors (n_items + 1, D) or None. Learned as the paper plants: without labels. An item that no window holds has a free vector
    of zeros, as one that is new to the catalogue. show: the name of a progress bar, None: none.
    """
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # dropout and first weights
    vectors = None if title_vectors is None else torch.from_numpy(title_vectors.astype(np.float32))
    detector = Detector(n_items, vectors, settings).to(device)
    rows = torch.tensor(windows)
    positions = rows[rows != 0]
    pools = (positions.unique(), positions)
    steps = settings.steps_for(len(rows))
    optimiser = torch.optim.AdamW(detector.parameters(), settings.learning_rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, max(steps, 2))
    detector.train()
    batches = shuffled_batches(len(rows), settings.batch_size, rng)
    bar = {"desc": show, "disable": show is None, "unit": "step", "leave": False, "mininterval": 1}
    for batch in tqdm(islice(batches, steps), total=steps, **bar):
        noisy, planted = plant_items(rows[batch], pools, settings, rng)
        noisy, planted = noisy.to(device), planted.to(device)
        real = noisy != 0
        loss = nn.functional.binary_cross_entropy_with_logits(detector(noisy)[real], planted[real].float())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    detector.forget_items_but(pools[0].to(device))
    return detector.finish()


def shuffled_batches(count: int, batch_size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Row numbers (B,), pass after pass without an end, each pass in an order of its own."""
    while True:
        yield from torch.randperm(count, generator=rng).split(batch_size)


@torch.inference_mode()
def planted_log_odds(detector: Detector, windows: np.ndarray) -> np.ndarray:
    """Log-odds (N, W) float32 that each place of windows (N, W) was planted, NaN at padding."""
    device = detector.output.weight.device
    rows_at_once = max(1, PLACES_AT_ONCE // windows.shape[1])
    result = np.full(windows.shape, np.nan, dtype=np.float32)
    for start in range(0, len(windows), rows_at_once):
        rows = slice(start, start + rows_at_once)
        batch = torch.from_numpy(np.ascontiguousarray(windows[rows])).to(device)
        log_odds = detector(batch).float().cpu().numpy()
        result[rows] = np.where(windows[rows] != 0, log_odds, np.nan)
    return result


def learn_detectors(
    windows: np.ndarray,
    halvings: np.ndarray,
    n_items: int,
    title_vectors: np.ndarray | None,
    settings: DetectorSettings,
    seed: int = 0,
) -> list[list[Detector]]:
    """Detectors [halving][half]: each learned without the users of this half, and judges them.

    windows (N, W) items of train rows, 0 where none; halvings (2, N): of their users; title_vectors (n_items + 1, D) or None. On a CPU
    each is learned on one core, as many side by side as PyTorch has threads.
    """
    learned_from = [halving != half for halving in halvings for half in (0, 1)]  # four of (N,) bool
    if torch.cuda.is_available():
        detectors = [learn_detector(windows[rows], n_items, title_vectors, settings, seed, "cuda") for rows in learned_from]
    else:
        detectors = learn_side_by_side([windows[rows] for rows in learned_from], n_items, title_vectors, settings, seed)
    return [detectors[:2], detectors[2:]]


def learn_side_by_side(
    windows_of_detectors: Sequence[np.ndarray],
    n_items: int,
    title_vectors: np.ndarray | None,
    settings: DetectorSettings,
    seed: int,
) -> list[Detector]:
    """A detector from each of these windows (N, W), each by a process of one thread where that is worth starting processes."""
    from joblib import Parallel, delayed

    n_processes = min(len(windows_of_detectors), torch.get_num_threads())
    if settings.steps_for(max(map(len, windows_of_detectors))) < STEPS_WORTH_A_PROCESS:
        n_processes = 1
    states = Parallel(n_processes)(
        delayed(learn_on_one_core)(
            windows, n_items, title_vectors, settings, seed, progress_of(number, n_processes, len(windows_of_detectors))
        )
        for number, windows in enumerate(windows_of_detectors)
    )
    table = None if title_vectors is None else torch.from_numpy(title_vectors.astype(np.float32))
    return [Detector.of_state(state, settings).for_catalogue(n_items, table) for state in states]


def progress_of(number: int, n_processes: int, count: int) -> str | None:
    """The name of the bar of detector `number`, from 0, of so many; None for those that are learned beside one that has a bar."""
    last = min(number + n_processes, count)
    names = f"detector {number + 1}" if n_processes == 1 else f"detectors {number + 1} to {last}"
    return f"learn {names} of {count}" if number % n_processes == 0 else None


def learn_on_one_core(windows, n_items, title_vectors, settings, seed, show) -> dict[str, np.ndarray]:
    """The arrays of `learn_detector`'s detector, as numpy arrays; arguments as there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        detector = learn_detector(windows, n_items, title_vectors, settings, seed, "cpu", show)
    finally:
        torch.set_num_threads(threads)
    return {name: values.numpy() for name, values in detector.state_dict().items()}


def detector_kind(detectors: Sequence[Sequence[Detector]], halvings: np.ndarray) -> WindowKind:
    """The kind of evidence `detector`: the mean log-odds of those detectors that did not learn from a user.

    detectors [halving][half]; halvings (2, U) of the users of the table.
    """

    def log_odds_of_windows(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(N, W, 1) of windows (N, W) of users (N,), codes of the table."""
        total = np.zeros((*items.shape, 1), dtype=np.float32)
        for halving, of_halving in zip(halvings, detectors):
            for half, detector in enumerate(of_halving):
                rows = halving[users] == half
                total[rows, :, 0] += planted_log_odds(detector, items[rows])
        return total / len(detectors)

    return WindowKind(("marked by the detector",), log_odds_of_windows)

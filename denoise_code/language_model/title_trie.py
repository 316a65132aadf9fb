"""The token sequences of titles as a trie: which tokens may come next, and which titles are left.

Knows nothing of models and tokenizers: titles are lists of numbers here.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from functools import lru_cache, partial


def common_prefix(a: list[int], b: list[int]) -> int:
    return next((place for place, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def child_runs(sequences: list[list[int]], lo: int, hi: int, depth: int) -> dict[int, tuple[int, int]]:
    """{next token: (lo, hi)} below the node lo:hi of sorted sequences; empty where the titles end."""
    runs = {}
    for place in range(lo, hi):
        if depth < len(sequences[place]):
            token = sequences[place][depth]
            runs[token] = (runs[token][0] if token in runs else place, place + 1)
    return runs


class Trie:
    """The token sequences of titles, sorted; a node is the run lo:hi of those that share their first `depth` tokens."""

    def __init__(self, sequences: dict[int, list[int]]):
        """sequences: {item: tokens}. Each ends with the mark that closes a title, so none is the start of another."""
        self.items = sorted(sequences, key=lambda item: (sequences[item], item))
        self.sequences = [sequences[item] for item in self.items]
        self.place = {item: place for place, item in enumerate(self.items)}
        # Of a function of the sequences, not of a method: a cache that holds the trie that holds it is a reference cycle.
        self.children = lru_cache(maxsize=100_000)(partial(child_runs, self.sequences))

    def allowed_children(self, lo: int, hi: int, depth: int, banned: frozenset[int]) -> dict[int, tuple[int, int]]:
        """The children below which there is an item that is not banned."""
        children = self.children(lo, hi, depth)
        places = [self.place[item] for item in banned if lo <= self.place[item] < hi]
        lost = Counter(self.sequences[place][depth] for place in places) if children else {}
        empty = {token for token, count in lost.items() if count == children[token][1] - children[token][0]}
        return {token: run for token, run in children.items() if token not in empty} if empty else children

    def common_continuation(self, tokens: list[int]) -> list[int]:
        """The tokens that all titles which begin so have next, up to the mark that closes them; none where no title does."""
        lo = bisect_left(self.sequences, tokens)
        hi = bisect_right(self.sequences, tokens, key=lambda sequence: sequence[: len(tokens)])
        return self.sequences[lo][:-1][len(tokens) : common_prefix(self.sequences[lo], self.sequences[hi - 1])] if lo < hi else []

    def allowed_items(self, lo: int, hi: int, banned: frozenset[int]) -> list[int]:
        """Items of a node that are not banned, at most two."""
        found = []
        for item in self.items[lo:hi]:
            if item not in banned:
                found.append(item)
                if len(found) == 2:
                    break
        return found

    def descend(self, node: tuple[int, int, int], banned: frozenset[int]) -> tuple[list[int], tuple[int, int, int]]:
        """The tokens below a node along which titles run together, and the node where they part or one is left."""
        tokens = []
        while not self.decided(node, banned):
            children = self.allowed_children(*node, banned)
            if len(children) > 1:
                break
            ((token, run),) = children.items()
            tokens.append(token)
            node = (*run, node[2] + 1)
        return tokens, node

    def decided(self, node: tuple[int, int, int], banned: frozenset[int]) -> bool:
        """One item is left, or several of one title."""
        lo, hi, depth = node
        return len(self.allowed_items(lo, hi, banned)) == 1 or not self.children(lo, hi, depth)

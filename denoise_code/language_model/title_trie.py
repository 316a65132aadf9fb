"""The token sequences of titles as a trie: which tokens may come next, and which titles are still possible.

Knows nothing of models and tokenizers: titles are lists of numbers here.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np

Node = tuple[int, int, int]  # (lo, hi, depth): the sorted sequences lo:hi, which share their first `depth` tokens


def common_prefix(a: list[int], b: list[int]) -> int:
    """How many tokens two sequences begin with in common."""
    for position, (token_a, token_b) in enumerate(zip(a, b)):
        if token_a != token_b:
            return position
    return min(len(a), len(b))


def child_runs(sequences: list[list[int]], lo: int, hi: int, depth: int) -> dict[int, tuple[int, int]]:
    """{next token: (lo, hi)} below the node lo:hi of sorted sequences; empty where the titles end."""
    runs = {}
    for number in range(lo, hi):
        if depth < len(sequences[number]):
            token = sequences[number][depth]
            first = runs[token][0] if token in runs else number
            runs[token] = (first, number + 1)
    return runs


def child_tokens(children: Callable, lo: int, hi: int, depth: int) -> np.ndarray:
    """The next tokens (C,) int64 below a node, ascending, as the sequences are sorted. children: `child_runs` of the sequences."""
    return np.fromiter(children(lo, hi, depth), dtype=np.int64)


class Trie:
    """The token sequences of titles, sorted; a node is the run lo:hi of those that share their first `depth` tokens."""

    def __init__(self, sequences: dict[int, list[int]]):
        """sequences: {item: tokens}. Each ends with the mark that closes a title, so none is the start of another."""
        self.items = sorted(sequences, key=lambda item: (sequences[item], item))
        self.sequences = [sequences[item] for item in self.items]
        self.number_of_item = {item: number for number, item in enumerate(self.items)}
        # Of functions of the sequences, not of methods: a cache that holds the trie that holds it is a reference cycle.
        self.children = lru_cache(maxsize=100_000)(partial(child_runs, self.sequences))
        self.child_tokens = lru_cache(maxsize=100_000)(partial(child_tokens, self.children))

    def banned_children(self, lo: int, hi: int, depth: int, banned: frozenset[int]) -> list[int]:
        """The next tokens below which all items are banned, ascending."""
        children = self.children(lo, hi, depth)
        if not children:
            return []
        banned_here = [number for number in map(self.number_of_item.__getitem__, banned) if lo <= number < hi]
        n_banned = Counter(self.sequences[number][depth] for number in banned_here)  # by next token
        return sorted(token for token, count in n_banned.items() if count == children[token][1] - children[token][0])

    def common_continuation(self, tokens: list[int]) -> list[int]:
        """The tokens that all titles which begin so have next, up to the mark that closes them; none where no title does."""
        lo = bisect_left(self.sequences, tokens)
        hi = bisect_right(self.sequences, tokens, key=lambda sequence: sequence[: len(tokens)])
        if lo >= hi:
            return []
        shared = common_prefix(self.sequences[lo], self.sequences[hi - 1])  # sorted: all between share it too
        without_mark = self.sequences[lo][:-1]
        return without_mark[len(tokens) : shared]

    def allowed_items(self, lo: int, hi: int, banned: frozenset[int]) -> list[int]:
        """Items of a node that are not banned, at most two: enough to tell whether one title remains."""
        allowed = []
        for number in range(lo, hi):
            if self.items[number] not in banned:
                allowed.append(self.items[number])
                if len(allowed) == 2:
                    break
        return allowed

    def descend(self, node: Node, banned: frozenset[int]) -> tuple[list[int], Node]:
        """The tokens below a node along which titles run together, and the node where they part or one remains."""
        tokens = []
        while not self.decided(node, banned):
            children, without_items = self.children(*node), self.banned_children(*node, banned)
            if len(children) - len(without_items) > 1:
                break
            (token,) = children.keys() - without_items
            tokens.append(token)
            node = self.child(node, token)
        return tokens, node

    def child(self, node: Node, token: int) -> Node:
        """The node that a next token leads to."""
        return (*self.children(*node)[token], node[2] + 1)

    def decided(self, node: Node, banned: frozenset[int]) -> bool:
        """One item remains, or several of one title."""
        lo, hi, depth = node
        return len(self.allowed_items(lo, hi, banned)) == 1 or not self.children(lo, hi, depth)

"""denoise_code/trie.py by hand."""

from denoise_code.trie import Trie


def test_trie_by_hand():
    trie = Trie({1: [5, 9], 2: [5, 7, 9], 3: [4, 9], 4: [5, 9]})
    assert trie.items == [3, 2, 1, 4] and trie.children(0, 4, 0) == {4: (0, 1), 5: (1, 4)}
    assert trie.allowed(0, 4, 0, frozenset({3})) == {5: (1, 4)} and trie.children(2, 4, 2) == {}
    assert trie.left(1, 4, frozenset({2, 1})) == [4] and trie.left(0, 4, frozenset()) == [3, 2]
    assert trie.follow([]) == trie.follow([4]) == trie.follow([5]) == trie.follow([6]) == trie.follow([5, 9, 1]) == []
    longer = Trie({1: [5, 6, 7, 8, 9], 2: [5, 6, 4, 9], 3: [5, 6, 7, 8, 9]})
    assert longer.follow([5]) == [6] and longer.follow([5, 6]) == [] and longer.follow([5, 6, 7]) == [8]

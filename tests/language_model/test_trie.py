"""denoise_code/language_model/title_trie.py by hand."""

import gc
import weakref

from denoise_code.language_model.title_trie import Trie


def test_trie_by_hand():
    trie = Trie({1: [5, 9], 2: [5, 7, 9], 3: [4, 9], 4: [5, 9]})
    assert trie.items == [3, 2, 1, 4] and trie.children(0, 4, 0) == {4: (0, 1), 5: (1, 4)}
    assert trie.child_tokens(0, 4, 0).tolist() == [4, 5] and trie.child_tokens(1, 4, 1).tolist() == [7, 9]
    assert trie.children(2, 4, 2) == {} and trie.child_tokens(2, 4, 2).tolist() == []
    assert trie.banned_children(0, 4, 0, frozenset({3})) == [4] and trie.banned_children(1, 4, 1, frozenset({1, 2, 3})) == [7]
    assert trie.banned_children(1, 4, 1, frozenset({1, 4})) == [9] and trie.banned_children(0, 4, 0, frozenset()) == []
    assert trie.child((0, 4, 0), 5) == (1, 4, 1) and trie.child((1, 4, 1), 9) == (2, 4, 2)
    assert trie.descend((0, 4, 0), frozenset({3, 2})) == ([5, 9], (2, 4, 2))
    assert trie.descend((0, 4, 0), frozenset({1})) == ([], (0, 4, 0))
    assert trie.allowed_items(1, 4, frozenset({2, 1})) == [4] and trie.allowed_items(0, 4, frozenset()) == [3, 2]
    assert (
        trie.common_continuation([])
        == trie.common_continuation([4])
        == trie.common_continuation([5])
        == trie.common_continuation([6])
        == trie.common_continuation([5, 9, 1])
        == []
    )
    longer = Trie({1: [5, 6, 7, 8, 9], 2: [5, 6, 4, 9], 3: [5, 6, 7, 8, 9]})
    assert (
        longer.common_continuation([5]) == [6]
        and longer.common_continuation([5, 6]) == []
        and longer.common_continuation([5, 6, 7]) == [8]
    )


def test_a_trie_is_freed_when_its_last_name_goes():
    """It holds the titles of a whole catalogue: reference counting must free it, not a garbage collection some time later."""
    trie = Trie({1: [5, 9], 2: [5, 7, 9], 3: [4, 9]})
    assert trie.child_tokens(0, 3, 0).tolist() == [4, 5]  # what was asked for is kept with the trie
    last_seen = weakref.ref(trie)
    gc.disable()
    try:
        del trie
        assert last_seen() is None
    finally:
        gc.enable()

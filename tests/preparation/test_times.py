"""denoise_code/data_set/log/times.py: times by all their digits, in their order, whatever they are written as."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise_code.common.errors import InputError
from denoise_code.data_set.log import times


def read(*chunks):
    collected = times.Times()
    for chunk in chunks:
        collected.add(list(chunk), lambda place: f"log.csv:{place + 2}")
    return *collected.result(), collected.cut


DECIMALS = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{whole}{fraction}{exponent}",
    st.sampled_from(["", "-", "+"]),
    st.integers(0, 10**7).map(str),  # with 8 decimals at most: 64 bits hold all digits
    st.one_of(st.just(""), st.integers(0, 10**6).map(lambda number: f".{number:06}")),
    st.sampled_from(["", "e2", "E-2", "e0"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(DECIMALS, min_size=1, max_size=5), min_size=1, max_size=4))
def test_numbers_are_exact(chunks):
    whole, decimals, cut = read(*chunks)
    expected = [Fraction(text) for chunk in chunks for text in chunk]
    assert [Fraction(int(time), 10**decimals) for time in whole] == expected and cut == 0
    assert decimals == 0 or (whole % 10).any()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("0123456789.", max_size=5), min_size=1, max_size=4))
def test_points_and_digits(texts):
    """Against Python's own reading of decimal numbers."""
    try:
        whole, decimals, _ = read(texts)
    except InputError:
        assert not all(text.count(".") <= 1 and text.strip(".") for text in texts)
    else:
        assert [Fraction(int(time), 10**decimals) for time in whole] == [
            Fraction(text.strip() or "x") for text in map(padded, texts)
        ]


def padded(text: str) -> str:
    """ ".5" and "5." as Fraction reads them."""
    return f"0{text}0" if "." in text else text


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**12), st.text("0123456789", min_size=1, max_size=25)), min_size=1, max_size=6))
def test_what_64_bits_do_not_hold_is_cut_and_counted(parts):
    texts = [f"{whole}.{fraction}" for whole, fraction in parts]
    found, decimals, cut = read(texts)
    exact = [Fraction(text) for text in texts]
    assert all(0 <= time - Fraction(int(number), 10**decimals) < Fraction(1, 10**decimals) for time, number in zip(exact, found))
    assert cut == sum(Fraction(int(number), 10**decimals) != time for time, number in zip(exact, found))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=4))
def test_any_text_is_a_time_or_refused_in_one_line(texts):
    try:
        found, *_ = read(texts)
    except InputError as error:
        assert str(error).startswith("log.csv:") and "\n" not in str(error)
    else:
        assert len(found) == len(texts)


@pytest.mark.parametrize(
    "chunks, expected",
    [
        ([["9223372036854775807", "-9223372036854775807"]], ([2**63 - 1, 1 - 2**63], 0)),
        ([["1", "2"], ["3.5"]], ([10, 20, 35], 1)),
        ([["3.25"], ["1", "2"]], ([325, 100, 200], 2)),
        ([["3.0", "14.0"]], ([3, 14], 0)),
        ([["3.25", "14.50", ".75"]], ([325, 1450, 75], 2)),
        ([["3.25", "1.2"]], ([325, 120], 2)),
        ([["1e18", "5"]], ([10**18, 5], 0)),
        ([["0.000000001", "0"]], ([1, 0], 9)),
        ([["1970-01-01"], ["1970-01-01 00:00:00.000000001"]], ([0, 1], 9)),
        ([["1970-01-01", "1970-01-01T00:00:01+00:00"]], ([0, 1], 0)),
        ([["1677-09-22", "2262-04-10"]], ([-9223286400, 9223200000], 0)),
    ],
)
def test_by_hand(chunks, expected):
    found, decimals, _ = read(*chunks)
    assert (found.tolist(), decimals) == expected

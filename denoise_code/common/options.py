"""Types of options: each turns the text of an option into a number, or says what is wrong with it."""

import argparse


def at_least(low: int):
    """A whole number that is not below `low`."""

    def number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{text} is below {low}")
        return value

    return number


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def share(text: str) -> float:
    """A number strictly between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def probability_below_one(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value


def finite(text: str) -> float:
    """A number, neither infinite nor NaN."""
    value = float(text)
    if not -float("inf") < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def ranged(kind, low, high=float("inf")):
    def number(text: str):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not in {low}..{high}")
        return value

    return number

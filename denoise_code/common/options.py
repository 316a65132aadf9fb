"""What options are made of: a base of the dataclasses in which they travel, and their types.

A type turns the text of an option into a number, or says what is wrong with it.
"""

import argparse
import math
from dataclasses import fields
from typing import Self


class Options:
    """A base of frozen dataclasses, each a group of options by who reads them; a field has the name of its option."""

    @classmethod
    def from_arguments(cls, args: argparse.Namespace, **instead) -> Self:
        """Each field from the option of its name; instead: fields whose value is not an option's as it stands."""
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls) if field.name not in instead} | instead)


def finite(text: str) -> float:
    """A number, neither infinite nor NaN."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def ranged(kind, low, high=math.inf):
    """A number of this kind, int or float, from `low` to `high`, both included; never infinite."""

    def number(text: str):
        value = finite(text) if kind is float else kind(text)
        if not low <= value <= high:
            problem = f"is below {low}" if high == math.inf else f"is not in {low}..{high}"
            raise argparse.ArgumentTypeError(f"{text} {problem}")
        return value

    return number


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

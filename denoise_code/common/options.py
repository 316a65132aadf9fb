"""What options are made of: a base of the dataclasses in which they stand and travel, and their types.

A type turns the text of an option into a number, or says what is wrong with it.
"""

import argparse
import dataclasses
import math
from typing import Self


class Options:
    """A base of frozen dataclasses, each a group of options by who reads them: a field made by `option` is an option of its name."""

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser, heading: str, **changed: dict) -> None:
        """Gives the parser the options, below a heading of --help. changed: {option: what argparse is told otherwise here}."""
        group = parser.add_argument_group(heading)
        for field in dataclasses.fields(cls):
            if field.metadata:
                group.add_argument(f"--{field.name}", **field.metadata | changed.get(field.name, {}))

    @classmethod
    def from_arguments(cls, args: argparse.Namespace, **instead) -> Self:
        """Each field from the option of its name; instead: fields whose value is not an option's as it stands."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: getattr(args, name) for name in names if name not in instead} | instead)


def option(value, help: str, /, **arguments):
    """A field of a group of options that is an option of its name; value: where it is not given.

    arguments: what else argparse is told. `default=None` among them is for options of which it counts whether they were given.
    """
    default = {"default_factory": value.copy} if isinstance(value, list) else {"default": value}
    return dataclasses.field(**default, metadata={"default": value, "help": help} | arguments)


def needed(help: str, **arguments):
    """A field that is an option without a default."""
    return dataclasses.field(metadata={"required": True, "help": help} | arguments)


def switch(help: str):
    """A field that is an option without a value: False where it is not given."""
    return option(False, help, action="store_true")


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


positive = ranged(int, 1)


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

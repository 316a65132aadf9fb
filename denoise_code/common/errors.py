"""Errors that a user can act on, and how a script ends with one. One class for all stages."""

import argparse
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Input that cannot be used; the message names the file, line or option and says what to do."""


def one_line(error: Exception) -> str:
    """What a library says of an error in one line, its first 200 characters; its class where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


@contextmanager
def input_errors(script: str):
    """Ends a script with one line for what its user can mend."""
    try:
        yield
    except InputError as error:
        Parser(prog=Path(script).name).error(str(error))

"""common/options.py: a field of a group of options is declared once, and from it come the option, its help and its value."""

import argparse
from dataclasses import dataclass

import pytest

from denoise_code.common.options import Options, needed, option, positive, switch


@dataclass(frozen=True)
class Group(Options):
    name: str = needed("the name (needed)")
    size: int = option(3, "how large (default: 3)", type=positive)
    words: list[str] = option(["a", "b"], "which words (default: a b)", nargs="+")
    width: int = option(64, "by the model where it is not given", type=positive, default=None)
    quick: bool = switch("less is done (default: off)")
    place: str = "here"  # no option


def parser_of(**changed):
    parser = argparse.ArgumentParser(exit_on_error=False)
    Group.add_to(parser, "a group", **changed)
    return parser


def test_values_come_from_options_defaults_and_the_caller():
    args = parser_of().parse_args(["--name", "x", "--size", "4"])
    assert vars(args) == {"name": "x", "size": 4, "words": ["a", "b"], "width": None, "quick": False}
    assert Group.from_arguments(args, place="there", width=7) == Group("x", 4, ["a", "b"], 7, False, "there")
    assert Group("x") == Group("x", 3, ["a", "b"], 64, False, "here")


def test_help_has_a_heading_and_a_script_may_tell_otherwise():
    text = parser_of(size={"help": "how long (default: 3)"}).format_help()
    assert "a group:" in text and "how long (default: 3)" in text and "how large" not in text and "--place" not in text


def test_what_is_needed_or_of_another_type_is_refused():
    with pytest.raises(argparse.ArgumentError, match="0 is below 1"):
        parser_of().parse_args(["--name", "x", "--size", "0"])
    with pytest.raises(SystemExit):
        parser_of().parse_args([])

"""--help of every script: what each option does, its default, and what the paper or its release sets."""

import argparse
import re
from pathlib import Path

import compare
import draw_gap
import export
import main
import prepare_noise_data
import pytest
import report
import sweep

import generate_denoised
import train_denoise_model
from denoise_code import clean_log_file

SCRIPTS = {
    module.__name__.removeprefix("denoise_code."): module
    for module in (
        train_denoise_model,
        generate_denoised,
        prepare_noise_data,
        main,
        sweep,
        compare,
        draw_gap,
        export,
        report,
        clean_log_file,
    )
}
# Options whose value the paper or the authors' release sets, and that have to say so.
OF_THE_FILTER = (
    "maxlen denoise_category train_noise_filter_threshold test_noise_filter_threshold train_max_denoise_num "
    "test_max_denoise_num threshold_from evidence edit"
)
OF_THE_RECOMMENDER = (
    "model batchsize lr hidden_units num_blocks num_heads num_epochs dropout_rate weight_decay seed loss select_on patience"
)
MARKED = {
    "train_denoise_model": (
        "base_model sample seed batch_size micro_batch_size num_epochs learning_rate warmup_steps cutoff_len lora_r lora_alpha "
        "lora_dropout lora_target_modules plant manual_noise loss_on score eval_sample load_in_8bit dtype report_to"
    ),
    "generate_denoised": "denoise_data top_k score unit suggest ground max_new_tokens dtype",
    "prepare_noise_data": "k_core sample_items window",
    "main": f"{OF_THE_FILTER} {OF_THE_RECOMMENDER}",
    "sweep": f"{OF_THE_FILTER} {OF_THE_RECOMMENDER}",
    "export": f"{OF_THE_FILTER} rows",
    "report": "maxlen",
}


class Parsing(Exception):
    """Raised where a script would parse its options."""


def parsers_of(module, monkeypatch) -> list[argparse.ArgumentParser]:
    """The parser that a script makes, and those of its subcommands."""
    made = []

    def keep(parser, *arguments):
        made.append(parser)
        raise Parsing

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", keep)
    with pytest.raises(Parsing):
        module.parse_args([])
    for action in made[0]._actions:
        if isinstance(action, argparse._SubParsersAction):
            made += action.choices.values()
    return made


def options_of(module, monkeypatch) -> list[tuple[argparse.Action, str]]:
    """(option, its help as a user reads it) of all parsers of a script."""
    options = []
    for parser in parsers_of(module, monkeypatch):
        for action in parser._actions:
            if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                options.append((action, parser._get_formatter()._expand_help(action) if action.help else ""))
    return options


def tells_default(action: argparse.Action, text: str) -> bool:
    """Whether the help names the value that the option has where it is not given."""
    if "default" not in text:
        return False
    values = action.default if isinstance(action.default, list) else [action.default]
    return all(names_value(value, text) for value in values)


def names_value(value, text: str) -> bool:
    if value is None or value is False:  # words say what happens then
        return True
    if isinstance(value, int | float):
        numbers = re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)
        return value in [float(number) for number in numbers]
    if isinstance(value, Path):
        return value.name in text
    return {",": "comma"}.get(value, value) in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_option_has_a_sentence_and_its_default(name, monkeypatch):
    options = options_of(SCRIPTS[name], monkeypatch)
    assert options
    for action, text in options:
        assert len(text.split()) >= 4, (name, action.dest, text)
        if action.required and action.option_strings:
            assert text.endswith("(needed)"), (name, action.dest, text)
        elif action.option_strings:
            assert tells_default(action, text), (name, action.dest, action.default, text)


@pytest.mark.parametrize("name", MARKED)
def test_what_the_paper_or_its_release_sets_is_marked(name, monkeypatch):
    marked = {action.dest for action, text in options_of(SCRIPTS[name], monkeypatch) if re.search(r"\b(paper|release)\b", text)}
    assert marked == set(MARKED[name].split())


@pytest.mark.parametrize("name", SCRIPTS)
def test_commands_of_the_help_can_be_copied(name, monkeypatch):
    """A command of two lines keeps the backslash at the end of the first."""
    description = parsers_of(SCRIPTS[name], monkeypatch)[0].description
    commands = [line for line in description.splitlines() if re.match(r"\s+(python|accelerate launch|\./denoise\.sh) ", line)]
    assert commands
    for line in commands:
        assert not re.search(r"\S {4,}--", line), line

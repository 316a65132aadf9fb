"""Checkpoints of a training: their record run.json, and the one from which a training goes on."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from denoise_code.common.errors import InputError
from denoise_code.common.files import read_json, write_json
from denoise_code.common.resources import peak_memory_gib
from denoise_code.language_model.prompt import Prompt
from denoise_code.training.duration import Stopwatch, examples_between
from denoise_code.training.examples import Examples
from denoise_code.training.options import TrainingOptions

# Where things lie is not recorded: a run.json tells nothing of the machine.
LOCATIONS = {"data_root", "output_root"}
# All other options shape the examples, the order of the batches or the optimiser's path and may not change on resuming.
MAY_CHANGE = LOCATIONS | {"micro_batch_size", "gradient_checkpointing", "eval_steps", "logging_steps", "report_to"}
MAY_CHANGE |= {"resume_from_checkpoint"}
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets")


@dataclass
class TrainingRun:
    """What a training learns from and how far it has come: all of run.json that the trainer does not know."""

    options: TrainingOptions
    cpu_only: bool
    examples: Examples
    data_fingerprint: str
    catalogue_fingerprint: str  # stage 2 refuses the adapter on another catalogue
    n_windows: int  # trained on, after the cutoff
    mean_tokens: float  # of a trained window
    first_step: int  # optimiser steps that a resumed checkpoint had done
    watch: Stopwatch

    @property
    def prompt(self) -> Prompt:
        return self.examples.prompt

    def examples_trained(self, step: int) -> int:
        """Windows that this process group has trained on when the optimiser has done `step` steps in all."""
        return examples_between(self.first_step, step, self.n_windows, self.options.optimiser.batch_size)


def write_run(folder: Path, run: TrainingRun, state) -> None:
    """run.json: what was run on what, how fast, and how well it detects. state: the trainer's."""
    examples, watch = run.examples, run.watch
    n_trained = run.examples_trained(state.global_step)
    training_seconds = max(watch.seconds["training"], 1e-9)
    best = state.best_model_checkpoint
    arguments = run.options.by_name | {"cpu_only": run.cpu_only}
    write_json(
        folder / "run.json",
        {
            "arguments": {name: value for name, value in arguments.items() if name not in LOCATIONS},
            "data_fingerprint": run.data_fingerprint,
            "catalogue_fingerprint": run.catalogue_fingerprint,
            "held_out": examples.split.by,  # stage 2 plants by the same split
            "windows": {"trained": len(examples.trained), "held_out": len(examples.held_out)},
            "held_out_users": examples.n_held_out_users,
            "versions": {package: version(package) for package in PACKAGES},
            "base_model": run.options.base_model,
            "best_checkpoint": best and Path(best).name,
            "steps": state.global_step,
            "seconds": round(watch.total(), 1),
            "seconds_of": {activity: round(seconds, 3) for activity, seconds in watch.seconds.items()},
            "examples_trained": n_trained,
            "examples_per_second": round(n_trained / training_seconds, 3),  # of training alone
            "tokens_per_second": round(n_trained * run.mean_tokens / training_seconds, 1),
            "peak_memory_gib": round(peak_memory_gib(), 3),
            "history": state.log_history,
        },
    )


def checkpoint_to_resume(options: TrainingOptions, data_fingerprint: str, held_out_by: str) -> Path | None:
    """The checkpoint to go on from, None to start afresh.

    Raises InputError where there is none to go on from, where it was made otherwise, and where a fresh start would write
    into a folder that holds checkpoints.
    """
    output = options.output_folder
    if options.resume_from_checkpoint is None:
        if list(output.glob("checkpoint-*/run.json")):
            raise InputError(
                f"{output} holds checkpoints: --resume_from_checkpoint continues, another --output_root starts afresh"
            )
        return None
    folder = find_checkpoint(output, options.resume_from_checkpoint)
    check_resumable(folder, options, data_fingerprint, held_out_by)
    return folder


def find_checkpoint(output: Path, request: str) -> Path:
    """The requested folder, or for "last" the complete checkpoint with the most steps; one without run.json was cut off."""
    if request == "last":
        records = sorted(output.glob("checkpoint-*/run.json"), key=lambda path: int(path.parent.name.rsplit("-", 1)[-1]))
        folder = records[-1].parent if records else None
    else:
        folder = Path(request)
    if folder is None or not all((folder / name).exists() for name in ("run.json", "trainer_state.json")):
        raise InputError(f"--resume_from_checkpoint: no complete checkpoint in {folder or output}")
    return folder


def check_resumable(folder: Path, options: TrainingOptions, data_fingerprint: str, held_out_by: str) -> None:
    """Raise InputError for a checkpoint made with other arguments, from other data or with another way of holding out."""
    record = read_json(folder / "run.json")
    for name, value in options.by_name.items():
        before = record["arguments"].get(name)
        if name not in MAY_CHANGE and before != value:
            raise InputError(f"--resume_from_checkpoint: {folder} was made with --{name} {before}, not {value}")
    if record["data_fingerprint"] != data_fingerprint:
        raise InputError(f"--resume_from_checkpoint: {folder} was made from other data than {options.dataset_name} holds now")
    if record.get("held_out", "rows") != held_out_by:  # older checkpoints do not say
        raise InputError(
            f"--resume_from_checkpoint: {folder} was made when single rows were held out, now whole users are, so other rows "
            "would be trained on; another --output_root starts afresh"
        )

"""The options of train_denoise_model.py, grouped by who reads them. The script builds them once from its command line."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from denoise_code.common.options import Options, needed, option, positive, ranged, share, switch
from denoise_code.language_model.loading import EMBEDDED_MODEL
from denoise_code.language_model.options import AdapterOptions, Precision

ROOT = Path(__file__).resolve().parents[2]  # of the project
# What of Precision is not as in stage 2. auto is here bfloat16 on GPUs that have it, as in loading.choose_dtype.
PRECISION_OF_TRAINING = {
    "dtype": {
        "choices": ["auto", "float32", "bfloat16"],
        "help": "number type of the weights (default: auto, bfloat16 on GPUs that have it; release: bfloat16)",
    },
    "load_in_8bit": {
        "help": "base model in 8 bit; needs CUDA and the package bitsandbytes (default: off; release: on)",
    },
}


@dataclass(frozen=True)
class ExampleOptions(Options):
    """What is learned from and measured on: read where examples are loaded and tokenised."""

    sample: int = option(5000, "windows to train on (default, paper: 5000)", type=positive)
    eval_sample: int = option(
        200, "held-out windows on which detection is measured; 0, release: none (default: 200)", type=ranged(int, 0)
    )
    plant: str = option(
        "uniform",
        "how planted items are drawn over the catalogue (default, paper: uniform)",
        choices=["uniform", "popularity"],
    )
    manual_noise: float | None = option(
        None, "plant each item with this probability (default, paper: one item a window)", type=share
    )
    loss_on: str = option(
        "answer",
        "tokens that carry loss: the answer's, all, or all but those of planted titles (default: answer; release: all)",
        choices=["answer", "all", "unplanted"],
    )
    cutoff_len: int = option(512, "longest text in tokens; beyond it the oldest items go (default, release: 512)", type=positive)


@dataclass(frozen=True)
class OptimiserOptions(Options):
    """How the optimiser walks: read where the trainer is made."""

    batch_size: int = option(128, "windows an optimiser step, over all devices (default, release: 128)", type=positive)
    micro_batch_size: int = option(
        16,
        "windows a device computes at once; --batch_size is a multiple of it (default: 16, at most the device's share; "
        "release: that share)",
        type=positive,
    )
    num_epochs: int = option(50, "passes over the trained windows (default, release: 50)", type=positive)
    max_steps: int = option(
        -1, "stop after so many optimiser steps, whatever --num_epochs says (default: -1, it does not)", type=int
    )
    learning_rate: float = option(1e-4, "highest learning rate of AdamW (default, release: 1e-4)", type=ranged(float, 1e-12))
    warmup_steps: int = option(20, "optimiser steps in which the learning rate rises (default, release: 20)", type=ranged(int, 0))
    gradient_checkpointing: bool = switch(
        "compute activations again in the backward pass: less memory, a third more time (default: off)"
    )


@dataclass(frozen=True)
class ReportOptions(Options):
    """What is measured, saved and logged on the way: read where the trainer is made."""

    score: str = option(
        "first_token",
        "noise score whose held-out AUC picks the best checkpoint (default, paper: first_token)",
        choices=["first_token", "likelihood"],
    )
    eval_steps: int | None = option(None, "evaluate and save every so many steps (default: every epoch)", type=positive)
    logging_steps: int = option(10, "optimiser steps between two lines of the loss (default: 10)", type=positive)
    report_to: str = option(
        "tensorboard", "where losses are logged: tensorboard, wandb, … or none (default, release: tensorboard)"
    )


@dataclass(frozen=True)
class TrainingOptions(Options):
    """All options of a training."""

    dataset_name: str = needed("folder below --data_root, e.g. Movie_noise_user0.0 (needed)")
    data_root: Path = option(ROOT / "data", "where the data sets are (default: data beside this script)", type=Path)
    output_root: Path = option(ROOT / "save_denoise_model", "where adapters go (default: save_denoise_model)", type=Path)
    base_model: str = option(
        EMBEDDED_MODEL, "any Hugging Face causal LM, name or folder (default: %(default)s; paper: meta-llama/Meta-Llama-3-8B)"
    )
    seed: int = option(
        2024, "seed of the split, of what is planted, of batches and weights (default: 2024; release: 42)", type=ranged(int, 0)
    )
    resume_from_checkpoint: str | None = option(
        None, "continue from this checkpoint, or from the last (default: start afresh)", nargs="?", const="last"
    )
    precision: Precision = Precision()
    adapter: AdapterOptions = AdapterOptions()
    examples: ExampleOptions = ExampleOptions()
    optimiser: OptimiserOptions = OptimiserOptions()
    report: ReportOptions = ReportOptions()
    by_name: dict = field(default_factory=dict)  # {option: value} of the whole command line, as run.json records it

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser) -> None:
        """All options, those of the groups too."""
        super().add_to(parser, "data and model")
        ExampleOptions.add_to(parser, "what is learned from and measured on")
        OptimiserOptions.add_to(parser, "optimiser")
        AdapterOptions.add_to(parser, "adapter")
        ReportOptions.add_to(parser, "what is measured, saved and logged")
        Precision.add_to(parser, "weights in memory", **PRECISION_OF_TRAINING)

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> Self:
        return super().from_arguments(
            args,
            precision=Precision.from_arguments(args),
            adapter=AdapterOptions.from_arguments(args),
            examples=ExampleOptions.from_arguments(args),
            optimiser=OptimiserOptions.from_arguments(args),
            report=ReportOptions.from_arguments(args),
            by_name=vars(args),
        )

    @property
    def data_folder(self) -> Path:
        return self.data_root / self.dataset_name

    @property
    def output_folder(self) -> Path:
        """save_denoise_model/<dataset>/batch<B>_sample<N>_epoch<E>, named as in the release."""
        optimiser = self.optimiser
        name = f"batch{optimiser.batch_size}_sample{self.examples.sample}_epoch{optimiser.num_epochs}"
        return self.output_root / self.dataset_name / name

    @property
    def selection_metric(self) -> str:
        """The held-out figure that picks the best checkpoint: of the score and the kind of noise that is trained on."""
        figure = "auc" if self.examples.plant == "uniform" else "auc_context"
        return f"likelihood_{figure}" if self.report.score == "likelihood" else figure

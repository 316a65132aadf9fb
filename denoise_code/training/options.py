"""The options of train_denoise_model.py, grouped by who reads them. The script builds them once from its command line."""

from dataclasses import dataclass
from pathlib import Path

from denoise_code.language_model.loading import AdapterOptions, Precision


@dataclass(frozen=True)
class ExampleOptions:
    """What is learned from and measured on: read where examples are loaded and tokenised."""

    sample: int  # windows to train on
    eval_sample: int  # held-out windows
    plant: str  # "uniform" or "popularity": how the planted items of trained windows are drawn
    planting_rate: float | None  # probability with which each item is planted; None: one item a window
    loss_on: str  # "answer", "all" or "unplanted": the tokens that carry loss
    cutoff_len: int  # tokens of the longest text


@dataclass(frozen=True)
class OptimiserOptions:
    """How the optimiser walks: read where the trainer is made."""

    batch_size: int  # windows an optimiser step, over all devices
    micro_batch_size: int  # windows that a device computes at once
    num_epochs: int
    max_steps: int  # overrides num_epochs where it is positive
    learning_rate: float
    warmup_steps: int
    gradient_checkpointing: bool  # activations are computed again in the backward pass


@dataclass(frozen=True)
class ReportOptions:
    """What is measured, saved and logged on the way: read where the trainer is made."""

    score: str  # "first_token" or "likelihood": its held-out AUC picks the best checkpoint
    eval_steps: int | None  # evaluate and save every so many steps; None: every epoch
    logging_steps: int
    report_to: str


@dataclass(frozen=True)
class TrainingOptions:
    """All options of a training."""

    dataset_name: str
    data_root: Path
    output_root: Path
    base_model: str
    seed: int
    precision: Precision
    adapter: AdapterOptions
    examples: ExampleOptions
    optimiser: OptimiserOptions
    report: ReportOptions
    resume_from_checkpoint: str | None  # a checkpoint's folder, or "last"
    by_name: dict  # {option: value} of the whole command line, as run.json records it

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

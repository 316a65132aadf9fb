"""The Hugging Face Trainer for this task: batches of similar lengths, loss and logits where they count, complete checkpoints."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from denoise_code.common.errors import InputError
from denoise_code.language_model.loading import choose_dtype
from denoise_code.training.checkpoints import TrainingRun, write_run
from denoise_code.training.duration import Stopwatch, readable
from denoise_code.training.encoding import FOR_METRICS, Collator, HeldOutLabels
from denoise_code.training.held_out_metrics import held_out_metrics, score_held_out
from denoise_code.training.options import TrainingOptions

SHOWN = ("loss", "auc", "auc_context", "top1")  # while training; the rest is in run.json
MEASURED_STEPS = 3  # before the time left is printed


def make_trainer(model, tokenizer, train_set, eval_set, run: TrainingRun) -> "DenoiseTrainer":
    """The trainer of a model with its adapter. train_set, eval_set (or None): `tokenize`d examples."""
    options = run.options
    trainer = DenoiseTrainer(
        windows_per_step=options.optimiser.batch_size,
        with_likelihood=options.examples.loss_on != "answer",
        model=model,
        args=training_arguments(options, run.cpu_only, has_held_out=bool(eval_set)),
        train_dataset=train_set,
        eval_dataset=eval_set,
        processing_class=tokenizer,
        data_collator=Collator(tokenizer.pad_token_id),
        compute_metrics=held_out_metrics,
        callbacks=[LossGuard(), TimeKeeper(run.watch), CheckpointCompleter(run)],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Progress(run.first_step))
    return trainer


def training_arguments(options: TrainingOptions, cpu_only: bool, has_held_out: bool) -> TrainingArguments:
    """The options as the Trainer of Hugging Face takes them."""
    optimiser, report = options.optimiser, options.report
    world = int(os.environ.get("WORLD_SIZE", 1))
    when = {"strategy": "steps", "steps": report.eval_steps} if report.eval_steps else {"strategy": "epoch"}
    saving = {f"save_{name}": value for name, value in when.items()}
    evaluating = {"eval_strategy": "no"}
    if has_held_out:
        evaluating = {f"eval_{name}": value for name, value in when.items()}
        evaluating |= {"metric_for_best_model": options.selection_metric, "greater_is_better": True}
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(options.output_folder / "tensorboard")
    arguments = TrainingArguments(
        output_dir=str(options.output_folder),
        per_device_train_batch_size=optimiser.micro_batch_size,
        per_device_eval_batch_size=optimiser.micro_batch_size,
        gradient_accumulation_steps=optimiser.batch_size // (optimiser.micro_batch_size * world),
        num_train_epochs=optimiser.num_epochs,
        max_steps=optimiser.max_steps,
        learning_rate=optimiser.learning_rate,
        warmup_steps=optimiser.warmup_steps,
        activation_checkpointing=optimiser.gradient_checkpointing,
        bf16=choose_dtype(options.precision.dtype) == torch.bfloat16 and not cpu_only,
        use_cpu=cpu_only,
        logging_steps=report.logging_steps,
        logging_nan_inf_filter=False,  # it waits for the device at each pass; LossGuard reads what is logged
        dataloader_num_workers=0 if cpu_only else 2,  # a GPU need not wait while batches are made
        save_only_model=False,
        remove_unused_columns=False,
        label_names=list(HeldOutLabels._fields),  # in this order `prediction_step` and the metrics get them
        report_to=report.report_to,
        seed=options.seed,
        ddp_find_unused_parameters=False,
        **saving,
        **evaluating,
    )
    if arguments.n_gpu > 1:  # plain python on a machine with several: one process, one device, or the batch would grow
        arguments._n_gpu = 1
    return arguments


class DenoiseTrainer(Trainer):
    """The Trainer with our order of batches, and with scores of the held-out windows in place of their logits."""

    def __init__(self, *, windows_per_step: int, with_likelihood: bool, **trainer_arguments):
        self.windows_per_step = windows_per_step  # over all devices
        self.with_likelihood = with_likelihood  # whether the model learns how likely titles are
        super().__init__(**trainer_arguments)

    def _get_train_sampler(self, train_dataset=None):
        """Batches of the whole step, not of this device: so the order is the same on any number of devices."""
        lengths = list(self.train_dataset["length"])
        return EpochSampler(self.windows_per_step, lengths, self.args.seed, lambda: int(self.state.epoch or 0))

    def compute_loss(self, model, inputs, *args, **kwargs):
        """The model's own loss: of what it takes."""
        for_the_model = {name: value for name, value in inputs.items() if name not in FOR_METRICS}
        return super().compute_loss(model, for_the_model, *args, **kwargs)

    def floating_point_ops(self, inputs):
        """Not counted, as nobody reads it: counting walks through all parameters at each pass."""
        return 0

    def prediction_step(self, *args, **kwargs):
        """(loss, scores, labels) of a held-out batch.

        Scores are made here, for two reasons: the whole logits never leave the device, and later those of several devices
        are padded to one length.
        """
        loss, logits, labels = super().prediction_step(*args, **kwargs)
        scores = score_held_out(logits, HeldOutLabels(*labels), self.with_likelihood)
        return loss, tuple(scores) if self.with_likelihood else scores.first_token, labels


class EpochSampler(LengthGroupedSampler):
    """Batches of similar lengths in an order that seed and epoch decide: the same on every rank and after a resume."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int, current_epoch: Callable[[], int]):
        super().__init__(batch_size, lengths=lengths)
        self.seed, self.current_epoch = seed, current_epoch

    def __iter__(self):
        self.generator = torch.Generator().manual_seed(self.seed + self.current_epoch())
        return super().__iter__()


class LossGuard(TrainerCallback):
    """Ends a training whose loss is no number: nothing that is trained further, or saved, would be of use.

    The Trainer logs, then evaluates and saves. So the loss is logged wherever a checkpoint is due, too.
    """

    def on_step_end(self, arguments, state, control, **_):
        control.should_log |= control.should_save

    on_epoch_end = on_step_end

    def on_log(self, arguments, state, control, logs=None, **_):
        loss = logs.get("loss", 0.0)
        if not math.isfinite(loss):
            raise InputError(
                f"step {state.global_step}: the loss is {loss}: a smaller --learning_rate or --dtype float32 may help"
            )


class CheckpointCompleter(TrainerCallback):
    """Completes a checkpoint with its prompt and its record; one without them was cut off and is not resumed."""

    def __init__(self, run: TrainingRun):
        self.run = run

    def on_save(self, arguments, state, control, **_):
        self.run.watch.charge("saving")
        if state.is_world_process_zero:
            folder = Path(arguments.output_dir) / f"checkpoint-{state.global_step}"
            self.run.prompt.save(folder)
            write_run(folder, self.run, state)


class TimeKeeper(TrainerCallback):
    """Tells the time of training steps from that of evaluating; that of saving is taken where it is recorded."""

    def __init__(self, watch: Stopwatch):
        self.watch = watch

    def on_train_begin(self, arguments, state, control, **_):
        self.watch.charge("preparing")

    def on_step_end(self, arguments, state, control, **_):
        if control.should_evaluate or control.should_save:
            self.charge_training()

    def on_epoch_end(self, arguments, state, control, **_):
        self.charge_training()

    def on_train_end(self, arguments, state, control, **_):
        self.charge_training()

    def on_evaluate(self, arguments, state, control, **_):
        self.watch.charge("evaluating")

    def charge_training(self):
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # steps that are queued are training, not evaluation
        self.watch.charge("training")


class Progress(ProgressCallback):
    """One bar, short lines where the library prints dictionaries, and once how long the steps that remain take."""

    def __init__(self, first_step: int):
        super().__init__()
        self.first_step = first_step
        self.second_step_began = None  # time.perf_counter()

    def on_step_end(self, arguments, state, control, **kwargs):
        self.estimate_time_left(state)
        super().on_step_end(arguments, state, control, **kwargs)

    def estimate_time_left(self, state) -> None:
        """Prints it after MEASURED_STEPS steps; the first step, which warms up, does not count."""
        n_steps = state.global_step - self.first_step
        if n_steps == 1:
            self.second_step_began = time.perf_counter()
        elif n_steps == 1 + MEASURED_STEPS and state.is_world_process_zero and state.global_step < state.max_steps:
            seconds_per_step = (time.perf_counter() - self.second_step_began) / MEASURED_STEPS
            time_left = readable(seconds_per_step * (state.max_steps - state.global_step))
            self.training_bar.write(f"step {state.global_step}: about {time_left} left to train, and what evaluating takes")

    def on_log(self, arguments, state, control, logs=None, **_):
        figures = {name.removeprefix("eval_"): value for name, value in logs.items() if name.endswith(SHOWN)}
        if state.is_world_process_zero and self.training_bar is not None and figures:
            line = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
            self.training_bar.write(f"step {state.global_step:>6}  {line}")

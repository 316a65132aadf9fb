"""Stage 1: fine-tune a language model with LoRA to name the item that does not belong, without labels.

One item of a training window is replaced by a random one; the model learns to name it and to say what belongs there
(LLM4DSR, arXiv 2408.08208, section 3.2).

Reads   data/<dataset_name>/train.csv (or TDMD/train.json of the release) and id2name4Rec.json
Writes  save_denoise_model/<dataset_name>/batch<B>_sample<N>_epoch<E>/checkpoint-<step>/: the LoRA adapter, the tokenizer,
        prompt.json and run.json (see save_denoise_model/README.md)

    python train_denoise_model.py --dataset_name ML100K_noise_user0.1 --sample 512 --batch_size 16 --num_epochs 1
    CUDA_VISIBLE_DEVICES=0,1,2,3 accelerate launch train_denoise_model.py --dataset_name "Movie_noise_user0.0" --sample 5000

These train SmolLM2-135M, which comes along. The paper trains Llama: --base_model meta-llama/Meta-Llama-3-8B
"""

import argparse
import fcntl
import gc
import os
from contextlib import contextmanager
from pathlib import Path

from denoise_code.common.errors import InputError, Parser, input_errors
from denoise_code.common.files import lock, read_json
from denoise_code.common.resources import peak_memory_gib
from denoise_code.data_set.catalogue import fingerprint_of_catalogue, read_catalogue
from denoise_code.data_set.folder import data_fingerprint
from denoise_code.language_model.loading import (
    add_adapter,
    check_base_model,
    compile_layers,
    load_base_model,
    load_tokenizer,
    quiet_libraries,
)
from denoise_code.training.checkpoints import TrainingRun, checkpoint_to_resume, write_run
from denoise_code.training.duration import Stopwatch, cpu_estimate, plan_training, product_rate
from denoise_code.training.encoding import tokenize
from denoise_code.training.examples import Examples, describe_held_out, load_examples
from denoise_code.training.options import ExampleOptions, TrainingOptions


def main(argv=None) -> None:
    options = parse_args(argv)
    with input_errors(__file__):
        train(options)
    gc.collect()  # model and trainer hold each other, and a group of processes whose threads may abort Python's exit


def train(options: TrainingOptions) -> None:
    """The acts of a training; raises InputError for what a user can mend."""
    quiet_libraries()
    check_environment(options)
    cpu_only = trains_on_cpu()

    # 1. Load what there is to learn from, and say who is held out.
    examples = examples_of(options)

    # 2. Find the checkpoint to go on from, if any.
    fingerprint = data_fingerprint(options.data_folder)
    checkpoint = checkpoint_to_resume(options, fingerprint, examples.split.by)

    # 3. Turn the examples into tokens.
    tokenizer = load_tokenizer(options.base_model)
    train_set, eval_set = tokenize_examples(tokenizer, examples, options.examples)

    # 4. Load the model, with a fresh adapter.
    model = load_trainable_model(options, longest_text(train_set, eval_set))

    # 5. Train; evaluate and save at each epoch.
    run = TrainingRun(
        options=options,
        cpu_only=cpu_only,
        examples=examples,
        data_fingerprint=fingerprint,
        catalogue_fingerprint=fingerprint_of_catalogue(read_catalogue(options.data_folder)),
        n_windows=len(train_set),
        mean_tokens=sum(train_set["length"]) / len(train_set),
        first_step=read_json(checkpoint / "trainer_state.json")["global_step"] if checkpoint else 0,
        watch=Stopwatch(),
    )
    with only_training_in(options.output_folder):
        trainer = run_training(model, tokenizer, train_set, eval_set, run, checkpoint)

    # 6. Record the run, and say where the adapters are.
    finish(trainer, run)


@contextmanager
def only_training_in(folder: Path):
    """Keeps a second training out of a folder, which has no checkpoint yet that would tell it of the first."""
    if int(os.environ.get("RANK", 0)) > 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def check_environment(options: TrainingOptions) -> None:
    """Refuse what cannot work before anything large is loaded."""
    import torch

    if not options.data_folder.is_dir():
        names = sorted(path.name for path in options.data_root.glob("*_noise_*") if path.is_dir())
        raise InputError(
            f"--dataset_name {options.dataset_name}: no such folder in {options.data_root}; "
            f"there are: {', '.join(names) or 'none'}"
        )
    if options.precision.load_in_8bit and not torch.cuda.is_available():
        raise InputError("--load_in_8bit needs a CUDA device")


def trains_on_cpu() -> bool:
    """Whether there is no GPU, or accelerate was told to leave it alone."""
    import torch

    return not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1")


def examples_of(options: TrainingOptions) -> Examples:
    """The examples of the data set; rank 0 prints who is held out."""
    example_options = options.examples
    examples = load_examples(
        options.data_folder,
        example_options.sample,
        example_options.eval_sample,
        options.seed,
        example_options.manual_noise,
        example_options.plant,
    )
    if int(os.environ.get("RANK", 0)) == 0:
        for line in describe_held_out(examples, example_options.sample):
            print(line)
    return examples


def tokenize_examples(tokenizer, examples: Examples, options: ExampleOptions):
    """(trained, held-out or None): `datasets.Dataset`s of tokens with labels."""
    prompt, cutoff_len = examples.prompt, options.cutoff_len
    train_set = tokenize(tokenizer, prompt, examples.trained, cutoff_len, options.loss_on, for_metrics=False)
    if not examples.held_out:
        return train_set, None
    measured_on = "answer" if options.loss_on == "answer" else "all"  # likelihoods are of planted titles too
    return train_set, tokenize(tokenizer, prompt, examples.held_out, cutoff_len, measured_on, for_metrics=True)


def longest_text(train_set, eval_set) -> int:
    """Tokens of the longest window with its answer, trained on or held out."""
    return max(length for rows in (train_set, eval_set) if rows for length in rows["length"])


def load_trainable_model(options: TrainingOptions, longest: int):
    """The base model, checked before its weights are read, with a fresh adapter."""
    from transformers import set_seed

    check_base_model(options.base_model, longest, options.adapter.lora_target_modules)
    set_seed(options.seed)
    base = load_base_model(options.base_model, options.precision.dtype, options.precision.load_in_8bit)
    model = add_adapter(
        base,
        options.base_model,
        options.adapter,
        load_in_8bit=options.precision.load_in_8bit,
        checkpointing=options.optimiser.gradient_checkpointing,
    )
    if not trains_on_cpu() and not options.precision.load_in_8bit:
        compile_layers(model)
    return model


def run_training(model, tokenizer, train_set, eval_set, run: TrainingRun, checkpoint: Path | None):
    """Say what is to be computed, train, and return the trainer. checkpoint: to go on from."""
    from denoise_code.training.trainer import make_trainer

    trainer = make_trainer(model, tokenizer, train_set, eval_set, run)
    if trainer.is_world_process_zero():
        trainable, total = model.get_nb_trainable_parameters()
        print(f"{run.n_windows} windows of {run.mean_tokens:.0f} tokens; training {trainable:,} of {total:,} parameters")
        eval_lengths = list(eval_set["length"]) if eval_set else []
        optimiser, eval_steps = run.options.optimiser, run.options.report.eval_steps
        plan = plan_training(model, list(train_set["length"]), eval_lengths, optimiser, eval_steps, run.first_step)
        print(plan.describe())
        if run.cpu_only:
            print(cpu_estimate(plan, product_rate()))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer


def finish(trainer, run: TrainingRun) -> None:
    """run.json beside the checkpoints, and one line for people."""
    if trainer.is_world_process_zero():
        output = run.options.output_folder
        write_run(output, run, trainer.state)
        best = trainer.state.best_model_checkpoint
        print(f"peak memory {peak_memory_gib():.2f} GiB; best checkpoint: {best or 'the last'}; adapters in {output}")
    trainer.accelerator.end_training()


def parse_args(argv=None) -> TrainingOptions:
    """The options of the command line, checked as far as they can be without reading anything."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    TrainingOptions.add_to(parser)
    args = parser.parse_args(argv)
    args.micro_batch_size = choose_micro_batch_size(parser, args.batch_size, args.micro_batch_size)
    check_args(parser, args)
    return TrainingOptions.from_arguments(args)


def choose_micro_batch_size(parser: Parser, batch_size: int, micro_batch_size: int) -> int:
    """Windows that a device computes at once: at most its share of an optimiser step, which has to be a multiple of them."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    micro_batch_size = min(micro_batch_size, max(1, batch_size // world))
    if batch_size % (micro_batch_size * world):
        parser.error(
            f"--batch_size {batch_size} is not a multiple of --micro_batch_size {micro_batch_size} times {world} processes"
        )
    return micro_batch_size


def check_args(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse options that contradict each other."""
    if args.score == "likelihood" and args.loss_on == "answer":
        parser.error("--score likelihood needs --loss_on all or unplanted: only then the model learns how likely a title is")
    if args.eval_sample == 1:
        parser.error("--eval_sample 1: 0, or 2 and more, half of them planted uniformly, half by popularity")
    if args.score == "likelihood" and args.eval_sample == 0:
        parser.error(
            "--score likelihood picks no checkpoint with --eval_sample 0: without held-out windows the last one is taken"
        )
    if args.max_steps == 0 or args.max_steps < -1:
        parser.error(f"--max_steps {args.max_steps}: -1, or 1 and more")


if __name__ == "__main__":
    main()

"""Stage 1: fine-tune a language model with LoRA to name the item that does not belong, without labels.

One item of a training window is replaced by a random one; the model learns to name it and to say what belongs there
(LLM4DSR, arXiv 2408.08208, section 3.2).

Reads   data/<dataset_name>/train.csv (or TDMD/train.json of the release) and id2name4Rec.json
Writes  save_denoise_model/<dataset_name>/batch<B>_sample<N>_epoch<E>/checkpoint-<step>/: the LoRA adapter, the tokenizer,
        prompt.json and run.json (see save_denoise_model/README.md)

    python train_denoise_model.py --dataset_name ML100K_noise_user0.1 --sample 512 --batch_size 16 --num_epochs 1
    CUDA_VISIBLE_DEVICES=0,1,2,3 accelerate launch train_denoise_model.py --dataset_name "Movie_noise_user0.0" --sample 5000
"""

import argparse
import os
import time
from importlib.metadata import version
from pathlib import Path

from denoise_code.common.errors import InputError, Parser, input_errors
from denoise_code.common.files import read_json, write_json
from denoise_code.common.options import positive, share
from denoise_code.common.resources import peak_memory_gib
from denoise_code.data_set.folder import data_fingerprint
from denoise_code.language_model.loading import (
    EMBEDDED_MODEL,
    add_adapter,
    check_base_model,
    choose_dtype,
    load_base_model,
    load_tokenizer,
    quiet_libraries,
)
from denoise_code.language_model.noise_scores import first_token_scores, title_log_likelihoods
from denoise_code.training.duration import Plan, Stopwatch, cpu_estimate, examples_after, product_rate, readable
from denoise_code.training.examples import FOR_METRICS, Collator, Examples, load_examples, tokenize
from denoise_code.training.held_out_metrics import held_out_metrics

ROOT = Path(__file__).resolve().parent
SHOWN = ("loss", "auc", "auc_context", "top1")  # while training; the rest is in run.json
MEASURED_STEPS = 3  # before the time left is said
# All other arguments shape the examples, the order of the batches or the optimiser's path and may not change on resuming.
PLACES = {"data_root", "output_root"}
MAY_CHANGE = PLACES | {"micro_batch_size", "gradient_checkpointing", "eval_steps", "logging_steps", "report_to"}
MAY_CHANGE |= {"resume_from_checkpoint", "cpu_only"}


def training_arguments(args, output: Path, measured: bool):
    """The settings of the release, as the Trainer of Hugging Face takes them; measured: on held-out windows."""
    import torch
    from transformers import TrainingArguments

    world = int(os.environ.get("WORLD_SIZE", 1))
    metric = ("likelihood_" if args.score == "likelihood" else "") + ("auc" if args.plant == "uniform" else "auc_context")
    evaluate = {"metric_for_best_model": metric, "greater_is_better": True} if measured else {"eval_strategy": "no"}
    every = {"strategy": "steps", "steps": args.eval_steps} if args.eval_steps else {"strategy": "epoch"}
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(output / "tensorboard")
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=args.micro_batch_size,
        per_device_eval_batch_size=args.micro_batch_size,
        gradient_accumulation_steps=args.batch_size // (args.micro_batch_size * world),
        num_train_epochs=args.num_epochs,
        max_steps=args.max_steps,
        learning_rate=args.learning_rate,
        warmup_steps=args.warmup_steps,
        activation_checkpointing=args.gradient_checkpointing,
        bf16=choose_dtype(args.dtype) == torch.bfloat16 and not args.cpu_only,
        use_cpu=args.cpu_only,
        logging_steps=args.logging_steps,
        save_only_model=False,
        remove_unused_columns=False,
        label_names=["labels", *FOR_METRICS],
        report_to=args.report_to,
        seed=args.seed,
        ddp_find_unused_parameters=False,
        **{f"save_{key}": value for key, value in every.items()},
        **({f"eval_{key}": value for key, value in every.items()} | evaluate),
    )
    if arguments.n_gpu > 1:  # plain python on a machine with several: one process, one device, or the batch would grow
        arguments._n_gpu = 1
    return arguments


def make_trainer(model, tokenizer, train_set, eval_set, output: Path, args, run: dict):
    """The Hugging Face Trainer: batches of similar lengths, loss and logits where they count, complete checkpoints."""
    import torch
    from transformers import ProgressCallback, Trainer, TrainerCallback
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class EpochSampler(LengthGroupedSampler):
        """Batches of similar lengths in an order that seed and epoch decide: the same on every rank and after a resume."""

        def __iter__(self):
            self.generator = torch.Generator().manual_seed(args.seed + int(trainer.state.epoch or 0))
            return super().__iter__()

    class KeepRun(TrainerCallback):
        """Completes a checkpoint with its prompt and its record; one without them was cut off and is not resumed."""

        def on_save(self, arguments, state, control, **_):
            run["watch"].charge("saving")
            if state.is_world_process_zero:
                folder = output / f"checkpoint-{state.global_step}"
                run["prompt"].save(folder)
                write_run(folder, args, run, state)

    class SplitTime(TrainerCallback):
        """Tells the time of training steps from that of evaluating; that of saving is taken where it is recorded."""

        def on_train_begin(self, arguments, state, control, **_):
            run["watch"].charge("preparing")

        def on_step_end(self, arguments, state, control, **_):
            if control.should_evaluate or control.should_save:
                self.end_training_part()

        def on_epoch_end(self, arguments, state, control, **_):
            self.end_training_part()

        def on_train_end(self, arguments, state, control, **_):
            self.end_training_part()

        def on_evaluate(self, arguments, state, control, **_):
            run["watch"].charge("evaluating")

        def end_training_part(self):
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # steps that are queued are training, not evaluation
            run["watch"].charge("training")

    class SayTimeLeft(TrainerCallback):
        """Once, after a few steps: how long the training steps that are left take at their rate."""

        def on_step_end(self, arguments, state, control, **_):
            steps = state.global_step - run["first_step"]
            if steps == 1:  # the first warms up
                self.started = time.perf_counter()
            elif steps == 1 + MEASURED_STEPS and state.is_world_process_zero and state.global_step < state.max_steps:
                seconds = (time.perf_counter() - self.started) / MEASURED_STEPS * (state.max_steps - state.global_step)
                message = f"step {state.global_step}: about {readable(seconds)} left to train, and what evaluating takes"
                trainer_bar = next(callback for callback in trainer.callback_handler.callbacks if isinstance(callback, Progress))
                trainer_bar.training_bar.write(message)

    def noise_scores(logits, labels):
        """What the metrics read; the whole logits of the held-out windows never leave the device."""
        tokens, answer_lengths, candidates, *_, title_starts, title_ends = labels
        first_token = first_token_scores(logits, answer_lengths, candidates)
        if args.loss_on == "answer":
            return first_token
        return first_token, title_log_likelihoods(logits, tokens, title_starts, title_ends)

    class Progress(ProgressCallback):
        """One bar, and a short line where the library prints a dictionary."""

        def on_log(self, arguments, state, control, logs=None, **_):
            shown = {name.removeprefix("eval_"): value for name, value in logs.items() if name.endswith(SHOWN)}
            if state.is_world_process_zero and self.training_bar is not None and shown:
                figures = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
                self.training_bar.write(f"step {state.global_step:>6}  {figures}")

    class DenoiseTrainer(Trainer):
        def _get_train_sampler(self, train_dataset=None):
            return EpochSampler(args.batch_size, lengths=list(train_set["length"]))  # the same order on any number of devices

        def compute_loss(self, model, inputs, *args, **kwargs):
            return super().compute_loss(model, {k: v for k, v in inputs.items() if k not in FOR_METRICS}, *args, **kwargs)

        def prediction_step(self, *args, **kwargs):
            loss, logits, labels = super().prediction_step(*args, **kwargs)
            return loss, noise_scores(logits, labels), labels  # here, as later logits of several devices are padded to one length

    trainer = DenoiseTrainer(
        model=model,
        args=training_arguments(args, output, measured=bool(eval_set)),
        train_dataset=train_set,
        eval_dataset=eval_set,
        processing_class=tokenizer,
        data_collator=Collator(tokenizer.pad_token_id),
        compute_metrics=held_out_metrics,
        callbacks=[SplitTime(), KeepRun(), SayTimeLeft()],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Progress)
    return trainer


def write_run(folder: Path, args, run: dict, state) -> None:
    """run.json: what was run on what, how fast, and how well it detects."""
    watch, n_windows = run["watch"], run["n_windows"]
    examples = examples_after(state.global_step, n_windows, args.batch_size)
    examples -= examples_after(run["first_step"], n_windows, args.batch_size)
    training_seconds = max(watch.seconds["training"], 1e-9)
    best = state.best_model_checkpoint
    write_json(
        folder / "run.json",
        {
            "arguments": {key: value for key, value in vars(args).items() if key not in PLACES},
            "data_fingerprint": run["fingerprint"],
            "held_out": run["examples"].split.by,  # stage 2 plants by the same split
            "windows": {"trained": len(run["examples"].trained), "held_out": len(run["examples"].held_out)},
            "held_out_users": run["examples"].n_held_out_users,
            "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "datasets")},
            "base_model": args.base_model,
            "best_checkpoint": best and Path(best).name,
            "steps": state.global_step,
            "seconds": round(watch.total(), 1),
            "seconds_of": {what: round(seconds, 3) for what, seconds in watch.seconds.items()},
            "examples_trained": examples,
            "examples_per_second": round(examples / training_seconds, 3),  # of training alone
            "tokens_per_second": round(examples * run["mean_tokens"] / training_seconds, 1),
            "peak_memory_gib": round(peak_memory_gib(), 3),
            "history": state.log_history,
        },
    )


def find_checkpoint(output: Path, wanted: str, args, data: str, held_out: str) -> Path:
    """The checkpoint to continue from; refuses one made with other arguments, other data or another way of holding out."""
    complete = sorted(output.glob("checkpoint-*/run.json"), key=lambda path: int(path.parent.name.rsplit("-", 1)[-1]))
    folder = Path(wanted) if wanted != "last" else complete[-1].parent if complete else None
    if folder is None or not all((folder / name).exists() for name in ("run.json", "trainer_state.json")):
        raise InputError(f"--resume_from_checkpoint: no complete checkpoint in {folder or output}")
    before = read_json(folder / "run.json")
    arguments = before["arguments"]
    for key in vars(args).keys() - MAY_CHANGE:
        if arguments.get(key) != getattr(args, key):
            raise InputError(
                f"--resume_from_checkpoint: {folder} was made with --{key} {arguments.get(key)}, not {getattr(args, key)}"
            )
    if before["data_fingerprint"] != data:
        raise InputError(f"--resume_from_checkpoint: {folder} was made from other data than {args.dataset_name} holds now")
    if before.get("held_out", "rows") != held_out:  # older checkpoints do not say
        raise InputError(
            f"--resume_from_checkpoint: {folder} was made when single rows were held out, now whole users are, so other rows "
            "would be trained on; another --output_root starts afresh"
        )
    return folder


def plan_training(model, train_set, eval_set, args, run: dict) -> Plan:
    """What is left to compute, from sizes alone."""
    steps_of_epoch = -(-len(train_set) // args.batch_size)
    last_step = args.max_steps if args.max_steps > 0 else args.num_epochs * steps_of_epoch
    steps = max(last_step - run["first_step"], 0)
    windows = examples_after(last_step, len(train_set), args.batch_size)
    windows -= examples_after(run["first_step"], len(train_set), args.batch_size)
    n_evaluations = -(-steps // (args.eval_steps or steps_of_epoch)) if eval_set else 0
    parameters = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not any(part in name for part in ("lora_", "embed", "lm_head", "wte", "wpe"))
    )
    eval_tokens = n_evaluations * sum(eval_set["length"]) if eval_set else 0
    return Plan(steps, max(windows, 0) * run["mean_tokens"], eval_tokens, parameters)


def say_held_out(examples: Examples, args) -> None:
    """Print who is held out, and where that is less than was asked for."""
    if int(os.environ.get("RANK", 0)):
        return
    n_held_out, n_trained = len(examples.held_out), len(examples.trained)
    if examples.split.by == "users":
        print(
            f"{n_held_out} held-out windows of {examples.n_held_out_users} users, of whom nothing is trained on; "
            f"{examples.n_users} users in all"
        )
    elif n_held_out:
        reason = "whose the examples are is not known" if examples.n_users is None else "there are too few users"
        print(f"held-out windows may be of users that are trained on ({reason}): their figures flatter")
    if n_trained < args.sample:
        print(f"--sample {args.sample}: {n_trained} windows are trained on, the users of the others are held out")


def parse_args(argv=None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--dataset_name", required=True, help="folder below --data_root, e.g. Movie_noise_user0.0")
    add("--data_root", default=ROOT / "data", type=Path, help="where the data sets are")
    add("--output_root", default=ROOT / "save_denoise_model", type=Path, help="where adapters go")
    add(
        "--base_model",
        default=EMBEDDED_MODEL,
        help="any Hugging Face causal LM, name or folder; paper: meta-llama/Meta-Llama-3-8B",
    )
    add("--sample", type=positive, default=5000, help="windows to train on")
    add("--seed", type=int, default=2024)
    add("--batch_size", type=positive, default=128, help="windows an optimiser step, over all devices")
    add("--micro_batch_size", type=positive, default=16, help="windows a device computes at once; batch_size is a multiple")
    add("--num_epochs", type=positive, default=50)
    add("--learning_rate", type=float, default=1e-4)
    add("--warmup_steps", type=int, default=20)
    add("--cutoff_len", type=positive, default=512, help="longest text in tokens; the oldest items are dropped beyond it")
    add("--lora_r", type=positive, default=8)
    add("--lora_alpha", type=positive, default=16)
    add("--lora_dropout", type=float, default=0.05)
    add("--lora_target_modules", nargs="+", default=["q_proj", "v_proj"], help="module names, or all-linear")
    add("--plant", choices=["uniform", "popularity"], default="uniform", help="how planted items are drawn (paper: uniform)")
    add("--manual_noise", type=share, help="plant each item with this probability instead of one a window")
    add("--loss_on", choices=["answer", "all", "unplanted"], default="answer", help="tokens that carry loss; release: all")
    add("--score", choices=["first_token", "likelihood"], default="first_token", help="its held-out AUC picks the best")
    add("--eval_sample", type=int, default=200, help="held-out windows that measure detection; 0: none")
    add("--eval_steps", type=positive, help="evaluate and save every so many steps instead of every epoch")
    add("--logging_steps", type=positive, default=10)
    add("--resume_from_checkpoint", nargs="?", const="last", help="continue from this checkpoint, or from the last")
    add("--load_in_8bit", action="store_true", help="base model in 8 bit (CUDA and the package bitsandbytes)")
    add("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="auto: bfloat16 on GPUs that have it")
    add("--gradient_checkpointing", action="store_true", help="less memory, a third more time")
    add("--max_steps", type=int, default=-1, help="optimiser steps; overrides --num_epochs")
    add("--report_to", default="tensorboard", help="tensorboard, wandb, … or none")
    args = parser.parse_args(argv)
    world = int(os.environ.get("WORLD_SIZE", 1))
    args.micro_batch_size = min(args.micro_batch_size, max(1, args.batch_size // world))
    if args.batch_size % (args.micro_batch_size * world):
        parser.error(
            f"--batch_size {args.batch_size} is not a multiple of --micro_batch_size {args.micro_batch_size} "
            f"times {world} processes"
        )
    if args.score == "likelihood" and args.loss_on == "answer":
        parser.error("--score likelihood needs --loss_on all or unplanted: only then the model learns how likely a title is")
    if args.eval_sample < 0 or args.eval_sample == 1:
        parser.error(f"--eval_sample {args.eval_sample}: 0, or 2 and more, half of them planted uniformly, half by popularity")
    return args


def check_environment(args) -> Path:
    """The data set folder; refuses what cannot work before anything large is loaded."""
    import torch

    folder = args.data_root / args.dataset_name
    if not folder.is_dir():
        there = sorted(path.name for path in args.data_root.glob("*_noise_*") if path.is_dir())
        raise InputError(
            f"--dataset_name {args.dataset_name}: no such folder in {args.data_root}; there are: {', '.join(there) or 'none'}"
        )
    if args.load_in_8bit and not torch.cuda.is_available():
        raise InputError("--load_in_8bit needs a CUDA device")
    args.cpu_only = not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1")
    return folder


def main(argv=None) -> None:
    args = parse_args(argv)
    with input_errors(__file__):
        train(args)


def train(args) -> None:
    from transformers import set_seed

    quiet_libraries()
    # 1. what there is to learn from
    folder = check_environment(args)
    examples = load_examples(folder, args.sample, args.eval_sample, args.seed, args.manual_noise, args.plant)
    prompt = examples.prompt
    say_held_out(examples, args)
    output = args.output_root / args.dataset_name / f"batch{args.batch_size}_sample{args.sample}_epoch{args.num_epochs}"
    data, checkpoint = data_fingerprint(folder), None
    if args.resume_from_checkpoint:
        checkpoint = find_checkpoint(output, args.resume_from_checkpoint, args, data, examples.split.by)
    elif list(output.glob("checkpoint-*/run.json")):
        raise InputError(f"{output} holds checkpoints: --resume_from_checkpoint continues, another --output_root starts afresh")

    # 2. as tokens
    tokenizer = load_tokenizer(args.base_model)
    train_set = tokenize(tokenizer, prompt, examples.trained, args.cutoff_len, args.loss_on, for_metrics=False)
    measured = "answer" if args.loss_on == "answer" else "all"
    eval_set = None
    if examples.held_out:
        eval_set = tokenize(tokenizer, prompt, examples.held_out, args.cutoff_len, measured, for_metrics=True)
    longest = max(length for rows in (train_set, eval_set) if rows for length in rows["length"])

    # 3. the model and its adapter
    check_base_model(args.base_model, longest, args.lora_target_modules)
    set_seed(args.seed)
    model = add_adapter(load_base_model(args.base_model, args.dtype, args.load_in_8bit), args)

    # 4. train, evaluate and save at each epoch
    run = {"prompt": prompt, "examples": examples, "fingerprint": data, "watch": Stopwatch(), "first_step": 0}
    run["n_windows"] = len(train_set)
    run["mean_tokens"] = sum(train_set["length"]) / len(train_set)
    if checkpoint:
        run["first_step"] = read_json(checkpoint / "trainer_state.json")["global_step"]
    trainer = make_trainer(model, tokenizer, train_set, eval_set, output, args, run)
    if trainer.is_world_process_zero():
        trainable, total = model.get_nb_trainable_parameters()
        print(f"{len(train_set)} windows of {run['mean_tokens']:.0f} tokens; training {trainable:,} of {total:,} parameters")
        plan = plan_training(model, train_set, eval_set, args, run)
        print(plan.describe())
        if args.cpu_only:
            print(cpu_estimate(plan, product_rate()))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    # 5. say what came of it
    if trainer.is_world_process_zero():
        write_run(output, args, run, trainer.state)
        best = trainer.state.best_model_checkpoint
        print(f"peak memory {peak_memory_gib():.2f} GiB; best checkpoint: {best or 'the last'}; adapters in {output}")
    trainer.accelerator.end_training()  # a communication thread that outlives the interpreter aborts the process


if __name__ == "__main__":
    main()

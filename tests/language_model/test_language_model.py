"""denoise_code/language_model/loading.py: what is refused before and while it is loaded."""

import json
import shutil

import pytest
import torch
from conftest import arguments, refused

from denoise_code.common.errors import InputError
from denoise_code.language_model import loading
from denoise_code.language_model.loading import (
    check_attention,
    check_base_model,
    choose_dtype,
    choose_reading_dtype,
    load_base_model,
    load_model,
    load_tokenizer,
    merge_adapter,
    products_in,
    restore_base_weights,
    unpack,
)


@pytest.mark.parametrize("kind", ["Bloom", "DeepseekV3", "Lfm2", "Mamba", "Qwen3Next", "Bart", "GPT2", "Gemma2", "Qwen3", "OPT"])
def test_models_with_more_than_attention_are_refused(kind):
    import transformers

    layers = {"layer_types": ["conv", "full_attention"]} if kind == "Lfm2" else {}
    config = getattr(transformers, f"{kind}Config")(num_hidden_layers=2, **layers)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    if kind in ("GPT2", "Gemma2", "Qwen3", "OPT"):
        check_attention("there", model)
    else:
        with pytest.raises(InputError, match=f"--base_model there: stage 2 cannot read with {kind}"):
            check_attention("there", model)


def test_a_model_is_not_unpacked_as_an_empty_one(tiny_models, monkeypatch):
    """What comes first may have to unpack the embedded model, which needs its weights."""
    devices = []
    monkeypatch.setattr(loading, "locate_model", lambda name: devices.append(torch.empty(0).device.type) or name)
    check_base_model(str(tiny_models["llama"]), 10)
    assert devices == ["cpu"]


def test_bad_adapters(tiny_models, tiny_adapters, data, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    def spoiled(name, change):
        folder = shutil.copytree(tiny_adapters["llama"], tmp_path / name / "sample40")
        change(folder)
        return arguments(folder, data)

    def tensors(edit):
        def change(folder):
            found = load_file(folder / "adapter_model.safetensors")
            edit(found)
            save_file(found, folder / "adapter_model.safetensors", metadata={"format": "pt"})

        return change

    def zero(found):
        found.update({name: torch.zeros_like(tensor) for name, tensor in found.items()})

    def no_number(found):
        found[max(found)][0, 0] = float("nan")

    def other_base(folder):
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(tiny_models["gpt2"])
        (folder / "adapter_config.json").write_text(json.dumps(config))

    refused(capsys, arguments(tmp_path / "none", data), "no adapter_config.json")
    refused(capsys, spoiled("prompt", lambda folder: (folder / "prompt.json").unlink()), "no prompt.json")
    refused(capsys, spoiled("lost", tensors(lambda found: found.pop(min(found)))), "1 tensors are missing or not wanted")
    refused(capsys, spoiled("zero", tensors(zero)), "all zero")
    refused(capsys, spoiled("nan", tensors(no_number)), "some weights are no finite numbers")
    refused(capsys, spoiled("base", other_base), "does not fit")
    refused(capsys, spoiled("torn", lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"junk")), "does not fit")


def test_a_broken_tokenizer_is_named(tiny_models, tiny_adapters, data, tmp_path, capsys):
    """An adapter brings its tokenizer: what is broken there is no fault of the base model, which may be fine."""
    adapter = shutil.copytree(tiny_adapters["llama"], tmp_path / "adapter_sample40")
    file, whole = adapter / "tokenizer.json", (adapter / "tokenizer.json").read_text()
    for content in ("version https://git-lfs.github.com/spec/v1", whole[:500], "{}"):
        file.write_text(content)
        refused(capsys, arguments(adapter, data), f"--denoise_model_path {adapter}: its tokenizer cannot be read: tokenizer.json")
    file.unlink()
    refused(capsys, arguments(adapter, data), f"--denoise_model_path {adapter}: no tokenizer.json")
    file.write_text(whole)
    (adapter / "tokenizer_config.json").write_text('{"torn": ')
    refused(capsys, arguments(adapter, data), "its tokenizer cannot be read: tokenizer_config.json")

    base = shutil.copytree(tiny_models["llama"], tmp_path / "base")
    (base / "tokenizer.json").write_text("{}")
    untrained = ["--noise_dataset_path", str(data), "--base_model", str(base)]
    refused(capsys, untrained, f"--base_model {base}: its tokenizer cannot be read: tokenizer.json")
    refused(capsys, [*untrained[:-1], str(tmp_path / "nowhere")], f"--base_model {tmp_path}/nowhere: not found")
    (base / "config.json").write_text("{}")
    (base / "tokenizer.json").write_text(whole)
    refused(capsys, untrained, f"--base_model {base}: its config.json cannot be read")


def test_unpacked_once_whoever_comes_second(tiny_models, tmp_path, monkeypatch):
    """A folder that from_pretrained reads, whole or absent; a process that comes too late leaves it, and nothing beside it."""
    import transformers

    model, tokenizer = load_base_model(str(tiny_models["llama"]), "float32"), load_tokenizer(str(tiny_models["llama"]))
    model.config.quantization_config = {}  # as of a GGUF file
    weights, folder = model.state_dict(), tmp_path / "cache" / "model"
    for kind, loaded in (("Model", model), ("Tokenizer", tokenizer)):
        auto = getattr(transformers, "AutoModelForCausalLM" if kind == "Model" else "AutoTokenizer")
        monkeypatch.setattr(auto, "from_pretrained", lambda *_, loaded=loaded, **__: loaded)
    unpack(tmp_path / "model.gguf", folder)
    made = (folder / "model.safetensors").stat()
    model.config.quantization_config = {}
    unpack(tmp_path / "model.gguf", folder)
    monkeypatch.undo()

    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert (folder / "model.safetensors").stat().st_ino == made.st_ino
    found = load_base_model(str(folder), "float32")
    assert not hasattr(found.config, "quantization_config")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.state_dict().items())
    assert load_tokenizer(str(folder))("Heat Wave")["input_ids"] == tokenizer("Heat Wave")["input_ids"]


def test_attention_plans_of_cudnn_are_off_on_a_gpu(tiny_models, monkeypatch):
    """cuDNN builds a plan for each exact shape, and nearly every batch has a new one."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        for has_gpu in (False, True):
            torch.backends.cuda.enable_cudnn_sdp(True)
            monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
            load_base_model(str(tiny_models["llama"]), "float32")
            assert torch.backends.cuda.cudnn_sdp_enabled() is not has_gpu
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_what_a_gpu_reads_in(tiny_models, monkeypatch):
    """auto: TF32 for small models, bfloat16 for large ones and in 8 bit, float32 without a GPU that has both."""
    model = str(tiny_models["llama"])
    assert choose_reading_dtype("auto", model, False) == "float32" and choose_dtype("tf32") == torch.float32
    with pytest.raises(InputError, match="--dtype tf32 needs a CUDA device"):
        choose_reading_dtype("tf32", model, False)
    monkeypatch.setattr(loading, "computes_in_bfloat16", lambda: True)
    assert choose_reading_dtype("auto", model, False) == choose_reading_dtype("tf32", model, False) == "tf32"
    assert choose_reading_dtype("auto", model, True) == "bfloat16"
    assert choose_reading_dtype("float32", model, True) == "float32"
    monkeypatch.setattr(loading, "SMALL_MODEL", 1000)
    assert choose_reading_dtype("auto", model, False) == "bfloat16"


def test_products_are_rounded_where_that_is_asked_alone():
    for dtype, expected in (("tf32", "high"), ("float32", "highest"), ("bfloat16", "highest")):
        with pytest.raises(KeyError), products_in(dtype):
            assert torch.get_float32_matmul_precision() == expected
            raise KeyError
        assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_merged_adapter_is_taken_out_again(tiny_models, tiny_adapters, kind, dtype):
    """Merged, the answers are about those with the adapter beside the weights; restored in bfloat16 they are the same bits."""
    base_model, ids = str(tiny_models[kind]), torch.tensor([[5, 6, 7, 8, 9]])
    base = load_base_model(base_model, dtype).eval()
    model = load_model(tiny_adapters[kind], base_model, loading.Precision(dtype))
    with torch.no_grad():
        of_base, beside = base(ids).logits.float(), model(ids).logits.float()
        base_weights = merge_adapter(model)
        merged = model(ids).logits.float()
        restore_base_weights(model, base_weights)
        with model.disable_adapter():
            restored = model(ids).logits.float()
        again = model(ids).logits.float()
    assert bool(base_weights) == (dtype == "bfloat16")
    tolerance = 0.1 if dtype == "bfloat16" else 1e-5
    assert (merged - beside).abs().mean() < tolerance * beside.std() < (beside - of_base).abs().mean()
    if dtype == "bfloat16":
        assert torch.equal(restored, of_base) and torch.equal(again, beside)
    else:
        assert torch.allclose(restored, of_base, atol=1e-4)

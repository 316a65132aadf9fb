"""How a language model is loaded, and which adapter it is trained with: options that more than one stage or module reads."""

import argparse
from dataclasses import dataclass
from typing import Self

from denoise_code.common.options import Options, option, positive, probability_below_one, switch


@dataclass(frozen=True)
class Precision(Options):
    """How the weights of a language model stand in memory: read where they are loaded."""

    dtype: str = option(  # what is read with is never auto
        "auto",
        "number type of the weights; tf32: float32, whose products a GPU rounds; auto: tf32 on GPUs that have it, there bfloat16 "
        "with models of a billion parameters, else float32 (default: auto; release: bfloat16)",
        choices=["auto", "float32", "tf32", "bfloat16"],
    )
    load_in_8bit: bool = switch("base model in 8 bit; needs CUDA and the package bitsandbytes (default: off)")


@dataclass(frozen=True)
class AdapterOptions(Options):
    """The LoRA adapter that is trained (arXiv 2106.09685); the defaults are the values of the authors' release."""

    lora_r: int = option(8, "rank of the change that LoRA learns (default, release: %(default)s)", type=positive)
    lora_alpha: int = option(16, "scale of that change, divided by the rank (default, release: %(default)s)", type=positive)
    lora_dropout: float = option(
        0.05, "dropout of the adapter's input (default, release: %(default)s)", type=probability_below_one
    )
    lora_target_modules: tuple[str, ...] = option(
        ("q_proj", "v_proj"),
        "names of the layers that are changed, or all-linear (default, release: q_proj v_proj)",
        nargs="+",
        default=["q_proj", "v_proj"],
    )

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> Self:
        return super().from_arguments(args, lora_target_modules=tuple(args.lora_target_modules))

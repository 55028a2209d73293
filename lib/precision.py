"""Where numbers are computed, and how precisely it pays to compute them there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lib.names import require_known


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_precision() -> str:
    """The name of the fast one: "bf16" where the hardware multiplies it natively, else "fp32".

    Measured on two AVX512-BF16 cores: Lite0 encodes four times as fast, an LSTM of 1024 trains 1.8 times as fast.
    """
    if device().type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def autocast() -> torch.autocast:
    """A context in which frozen networks run in `fast_precision`."""
    return torch.autocast(device().type, torch.bfloat16, enabled=fast_precision() == "bf16")


def resolved(precision: str) -> str:
    """A training precision by its name: "auto" is bf16 where training was measured to be faster with it.

    That is on CPUs which multiply it natively. On an H200 VSE's GRU took 10.0 ms a step in bf16 and 6.6 in fp32, MAF
    257 and 61 over ever new lengths: so "auto" is fp32 on a GPU.
    """
    require_known("precision", precision, ("auto", "fp32", "bf16"))
    if precision != "auto":
        return precision
    return fast_precision() if device().type == "cpu" else "fp32"


def mixed_precision(precision: str) -> str:
    """Accelerate's name for a training precision."""
    return {"fp32": "no", "bf16": "bf16"}[resolved(precision)]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """A context that computes with so many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread():
    """A context for steps so small that threads sharing one mostly wait for each other, ten times as long on a busy
    machine."""
    return threads(1)

"""Where numbers are computed, and how precisely it pays to compute them there."""

import torch


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_precision() -> str:
    """For frozen networks: "bf16" where the hardware multiplies it natively (four times as fast on such a CPU)."""
    if device().type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def autocast() -> torch.autocast:
    """A context in which frozen networks run in `fast_precision`."""
    return torch.autocast(device().type, torch.bfloat16, enabled=fast_precision() == "bf16")


def mixed_precision(precision: str) -> str:
    """Accelerate's name for a training precision; "auto" takes bf16 where training is faster with it: on GPUs."""
    names = {"fp32": "no", "bf16": "bf16"}
    if precision == "auto":
        return "bf16" if device().type == "cuda" and fast_precision() == "bf16" else "no"
    if precision not in names:
        raise ValueError(f"precision {precision!r} is unknown, expected auto, fp32 or bf16")
    return names[precision]

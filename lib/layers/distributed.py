"""What a contrastive loss needs when a batch is spread over processes."""

import torch
import torch.distributed as dist


def gather(local: torch.Tensor) -> torch.Tensor:
    """Every process's rows [b, ...] -> the whole batch [B, ...], differentiable in the local rows.

    Each process then computes the loss of the whole batch. Its gradient reaches only its own rows, and DDP averages
    over processes, so the local gradient is scaled by their number: together they equal one process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return local
    world = dist.get_world_size()
    local = local.contiguous()
    parts = [torch.empty_like(local) for _ in range(world)]
    dist.all_gather(parts, local.detach())
    if local.requires_grad:
        local = local.view_as(local)
        local.register_hook(lambda gradient: gradient * world)
    parts[dist.get_rank()] = local
    return torch.cat(parts)

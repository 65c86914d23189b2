"""How the processes of a launcher share one trial."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from entailor.config.parts import Settings


class DistributedSettings(Settings):
    """What several processes started by torchrun or accelerate launch do; without effect on one. Changes no result."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """ddp: each process holds the whole model. fsdp (FSDP2): each holds a part of every weight while a model is trained
    and scored, for models that do not fit on one device."""
    ddp_timeout: int = Field(default=1800, ge=1)
    """Seconds after which a process that does not answer ends all of them."""

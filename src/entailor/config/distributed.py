"""How the processes of a launcher share one trial."""

from __future__ import annotations

from pydantic import Field

from entailor.config.parts import Settings


class DistributedSettings(Settings):
    """What several processes started by torchrun or accelerate launch do; without effect on one. Changes no result."""

    ddp_timeout: int = Field(default=1800, ge=1)
    """Seconds after which a process that does not answer ends all of them."""

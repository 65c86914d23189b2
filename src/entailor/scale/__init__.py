"""Where trials run: this process, one after the other, or Ray."""

from entailor.scale.ray_pool import RayExecutor

__all__ = ["RayExecutor"]

"""Differentiable parts: shared types, cameras, splatting, losses and metrics."""

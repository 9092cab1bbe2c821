"""Latent diffusion: samplers, guidance by losses of the predicted image, and training.

Import from `samplers`, `guidance`, `objectives`, `sampling`, `settings`, `captions` and `training`.
"""

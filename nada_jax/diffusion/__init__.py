"""Drawing by a diffusion model: samplers, guidance by a loss of what is about to be drawn, and what tasks call."""

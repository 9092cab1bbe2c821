"""Images that a diffusion model draws of prompts and seeds: batches, snapshots, measures; what tasks share."""

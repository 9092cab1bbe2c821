"""Portraits: images of the user one by one, from files to latents, and edits of these."""

"""Latents of given images: how they are optimised, kept in files, found again and edited."""

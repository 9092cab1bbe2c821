"""Moving images of generators: latents and weights that go from stop to stop, drawn frame by frame."""

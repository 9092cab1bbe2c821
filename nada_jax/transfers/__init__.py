"""Style transfer over images of the user: from names to images, and many results by few programs."""

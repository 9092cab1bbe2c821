"""Style transfer: images described by the statistics of their features, and drawn by these."""

"""Pure networks."""

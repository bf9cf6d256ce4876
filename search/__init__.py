"""What laser-search can change in a model, what to try next, what was found. One process, no Ray."""

"""What laser-search can change in a model, what it tries, what it found. One process, no Ray."""

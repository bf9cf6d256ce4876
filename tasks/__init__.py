"""What laser-search asks a model, and how answers are scored. No optimiser, no Ray, no surgery."""

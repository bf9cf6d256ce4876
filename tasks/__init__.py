"""What a model is asked, and how its answers are scored. No optimiser, no Ray, no model surgery."""

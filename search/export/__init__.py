"""The best composition, written as a model that others load."""

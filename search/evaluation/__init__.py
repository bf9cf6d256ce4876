"""Asking a model: predictors over Hugging Face models, and one trial of a composition."""

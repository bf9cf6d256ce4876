"""Asking a model: predictors over Hugging Face models, and the evaluation of one composition."""

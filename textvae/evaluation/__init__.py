"""Evaluation: how good a trained model is, and whether it uses its latent variable."""

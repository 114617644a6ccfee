"""What a trained model is worth, and whether it uses its latent variable."""

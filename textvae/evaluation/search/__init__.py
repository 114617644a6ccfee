"""Search in the latent space for texts with a property."""

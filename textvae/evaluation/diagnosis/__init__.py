"""The collapse doctor: what is wrong with a latent variable, why, and what to do about it."""

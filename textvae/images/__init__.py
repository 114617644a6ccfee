"""Images: datasets, encoders, and decoders that fulfill the contracts of ``textvae.vae``."""

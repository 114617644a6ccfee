"""Images: data sets, encoders, and decoders that fulfill the contracts of ``textvae.vae``."""

"""Images: data sets, encoders and decoders that meet the contracts of ``textvae.vae``."""

"""Images: data sets, encoders and decoders behind the contracts of ``textvae.core``."""

"""Files on disk: atomic replacement, model folders, run folders, and latent vectors."""

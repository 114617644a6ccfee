"""What stays on disk: files replaced as a whole, model folders, run folders, latent vectors."""

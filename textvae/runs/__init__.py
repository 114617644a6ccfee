"""What stays on disk: files written whole or not at all, model folders, run folders."""

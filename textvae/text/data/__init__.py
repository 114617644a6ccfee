"""Corpora: from files to token ids in batches."""

"""The table of metrics, and cards that hold their values."""

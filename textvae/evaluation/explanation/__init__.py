"""Which words z predicts: the shuffle gap of every word, in texts and by position."""

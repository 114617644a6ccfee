"""Generate sentences from a decoder, one token at a time."""

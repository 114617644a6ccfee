"""The text wing: tokenizers, corpora, batches, the LSTM encoder and decoder, generation."""

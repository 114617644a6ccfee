"""The LSTM encoder and decoder, and the fast code beneath them."""

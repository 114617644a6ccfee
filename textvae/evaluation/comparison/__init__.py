"""Several runs side by side: tables, seeds, published results, the rate-distortion plane."""

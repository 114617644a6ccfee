"""The variational autoencoder itself: knows neither text nor images."""

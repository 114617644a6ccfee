"""Uses of the latent space: probes, maps, neighbors, arithmetic, traversals, fitted samplers."""

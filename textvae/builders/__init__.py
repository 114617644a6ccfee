"""From a configuration to data and models: the only folder that knows text and images."""

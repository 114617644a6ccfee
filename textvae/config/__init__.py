"""A whole experiment: typed options, YAML in and out."""

from textvae.config.experiment import Config

__all__ = ["Config"]

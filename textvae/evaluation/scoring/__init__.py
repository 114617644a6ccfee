"""Scores of given texts, and how well they tell one class from another."""

"""Grids of runs: expanded, checked, started in parallel, resumed, evaluated, and compared."""

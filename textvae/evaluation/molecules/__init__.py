"""Metrics of generated molecules, with the definitions of MOSES (Polykovskiy et al. 2020).

Needs RDKit, and for the Fréchet ChemNet distance also the weights in the package fcd-torch:
``pip install -e .[molecules]``.
"""

"""Learnable triangulation (Iskakov et al. 2019): joints in space from the features of several views, algebraic and volumetric.

The networks' layout is restated from their published description; no code and no weights of the original are here. torch is imported by the
modules that need it, not by this one.
"""

"""Classroom: one teacher and two students learn together, as in the paper it reproduces.

The packages import only downwards: cli → provenance → engines, reporting → training → methods → distill → networks →
data → evaluation → files → params → errors.
"""

"""Tests of a GPU, skipped without one: `python -m pytest tests/gpu`, with torch, transformers and pytest alone, from a checkout.

No option is needed: randomly and xdist are used where they are installed, and nothing here needs a server or shared data.
"""

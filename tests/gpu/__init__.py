"""Of a GPU, where there is one: `python -m pytest tests/gpu`, beside torch, transformers and pytest alone, from a checkout.

No option is needed: randomly and xdist are used where they are installed, and nothing here needs a server or shared data.
"""

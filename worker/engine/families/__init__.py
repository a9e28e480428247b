"""What tells one kind of model from another: how it is recognised, how a policy gets into its prompt, what its answers say.

Every family is here, and nothing that runs a network.
"""

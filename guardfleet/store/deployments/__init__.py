"""Deployments: which model a detector's workers are to serve, who serves what, and how two models compared."""

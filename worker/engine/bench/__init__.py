"""Measure the engine's speed against what the machine can do. Nothing that serves verdicts may import it."""

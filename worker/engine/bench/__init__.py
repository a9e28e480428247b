"""How fast the engine is, beside what the machine can do. Nothing that serves verdicts may import it."""

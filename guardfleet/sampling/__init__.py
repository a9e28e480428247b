"""Which texts to label, drawn with known probabilities, and what their labels say of all texts. Arrays alone: no rows, no SQL."""

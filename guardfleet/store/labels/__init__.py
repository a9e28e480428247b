"""What people say of texts: labels, the samples that ask for them, and the queue of texts to review."""

"""Review: texts decided one at a time, and the queues that they come from. Who gets which text is said by the store."""

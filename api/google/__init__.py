"""What clients of Google's Perspective API know: its attributes, its errors, and the description that clients are built from."""

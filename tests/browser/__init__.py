"""The console in a real browser, against a real fleet: used as a person would, with the keyboard alone."""

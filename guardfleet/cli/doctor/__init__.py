"""What `guardfleet doctor` looks at, a module for each noun, and how it is examined and shown. A check changes nothing."""

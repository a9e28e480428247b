"""The areas of the console, one module each: its pages and its actions. No SQL, and no rule that another face has too."""

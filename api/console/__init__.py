"""The console: pages for people. Rendering and access are here, and a module for each area in `pages`; rules are other rooms'."""

"""One module per format: turn its bytes or lines into rows. `producer/detection` decides which format a file has."""

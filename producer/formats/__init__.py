"""One module a format: its bytes or lines become rows. Which format a file has is decided in `producer/detection`."""

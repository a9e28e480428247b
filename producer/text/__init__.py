"""Bytes become lines: decompressed, decoded, numbered. What a line means belongs in `producer/formats`."""

"""Turn bytes into lines: decompress, decode, number. What a line means belongs in `producer/formats`."""

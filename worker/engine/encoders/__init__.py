"""Models that classify: an encoder and a head with named labels, read in one pass. Nothing that generates belongs here."""

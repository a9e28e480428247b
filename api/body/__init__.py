"""Request bodies while they arrive: limited, cut into lines or parts, checked. What a line means belongs in `guardfleet/rows`."""

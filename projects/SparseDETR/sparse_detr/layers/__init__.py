"""Building blocks that several stages share."""

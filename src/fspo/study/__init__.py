"""The blind human study: people label pairs, then choose between the answers of two arms, not knowing which."""

"""Who prefers what: judges behind one protocol, and the measured attributes of a text."""

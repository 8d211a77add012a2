"""Language models as someone to ask: one protocol, whoever answers."""

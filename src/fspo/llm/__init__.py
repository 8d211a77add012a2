"""Language models to ask for text: one protocol for local models, endpoints and ensembles."""

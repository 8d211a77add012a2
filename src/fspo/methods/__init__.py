"""The table of methods: what goes into the context and which objectives the weights saw."""

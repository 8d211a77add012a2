"""Serving people: the store of their preferences, the API, and the engines that answer."""

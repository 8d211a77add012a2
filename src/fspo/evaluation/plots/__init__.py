"""Plots of the report as inline SVG that takes its colours from the page, in daylight, in the dark and in print."""

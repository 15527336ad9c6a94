"""Figures from records, as PNG and SVG."""

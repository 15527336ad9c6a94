"""The report: one file of HTML with the tables, charts and claims of any runs; loads no model."""

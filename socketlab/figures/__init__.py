"""Pictures, maps and reports."""

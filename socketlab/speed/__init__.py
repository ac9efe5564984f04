"""The same numbers, quicker or on several devices."""

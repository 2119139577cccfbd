"""People judge the stored answers of two subjects side by side, blind; what they say stands in the report."""

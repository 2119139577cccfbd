"""What personalisation may cost: leaks, sycophancy, lost refusals, and worse answers for users without history."""

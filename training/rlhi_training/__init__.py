"""Turns conversation logs into preference pairs, and pairs into a persona-conditioned LoRA adapter."""

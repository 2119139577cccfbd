"""Ways to train an adapter beside DPO on one set of pairs: SFT, self-distillation from follow-ups, semi-online rounds.

Read in this order: `choice` (what a method takes, and which trainer runs it), `hindsight` (logged answers with their
follow-ups), `sequence_trainer` (SFT and self-distillation on prefix trees), `rounds` (sample, score, pair, train, and
again).
"""

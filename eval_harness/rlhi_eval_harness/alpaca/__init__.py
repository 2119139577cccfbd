"""AlpacaEval 2.0 through the package ``alpaca_eval``: annotate, win rate, length-controlled win rate.

In reading order: `files` what goes in, `annotate` what the judge says, `win_rates` what follows from it,
`length_control` the GLM, `proof` all of it against the published leaderboard.
"""

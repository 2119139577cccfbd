"""Arena-Hard v0.1 and v2.0: questions, judging against a baseline in both orders, scores, style control.

Source: https://github.com/lmarena/arena-hard-auto and Li et al., arXiv 2406.11939. In reading order: `files` what goes
in, `prompts` and `judging` the judge, `verdicts` what it said, `scores`, `style_control` and `two_judges` what follows,
`proof` all of it against what was published.
"""

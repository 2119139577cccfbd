"""WildChat UserEval: held-out users of a log, judged on what they asked after their persona was known."""

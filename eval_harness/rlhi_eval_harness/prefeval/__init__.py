"""PrefEval's multiple choice: does the answer to a question follow a preference that was said some turns ago?"""

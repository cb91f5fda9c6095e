"""What a movie resembles, and why. No Django here.

`asking` says what an index is asked and what it answers, `building` makes one from a `snapshot` of the
catalogue, `engine` answers from its bytes, `evaluation` says how good it is.
"""

"""What a movie resembles, and why. No Django here.

`query` says what an index is asked and what it answers, `build` makes one from a `catalogue_snapshot`,
`engine` answers from its bytes, `evaluation` says how good it is.
"""

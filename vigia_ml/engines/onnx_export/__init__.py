"""A fitted pipeline, step by step, as an ONNX graph in double precision. No Django here.

`vigia_ml.engines.onnx_export.compile` is the door. Every step has one function that writes the nodes which
compute what the fitted step computes; numbers stay double from end to end, because a tree's threshold between
two doubles may fall together with them in single precision, and the row then goes the other way.
"""

"""Converts a fitted pipeline, step by step, to an ONNX graph in double precision. No Django here.

`vigia_ml.engines.onnx_export.compile` is the entry point. One function per kind of step writes the nodes that
compute the fitted step. Numbers stay double throughout: in single precision a tree's threshold may become
equal to the doubles next to it, and the row would go to the other side.
"""

"""Realised quality: metrics of labelled predictions by hour, with confidence intervals."""

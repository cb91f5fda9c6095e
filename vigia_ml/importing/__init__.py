"""Imports fitted pipelines from files that others wrote: pickles, joblib's files, skops's files.

Opening a pickle runs the code that it asks for. So `vigia_ml.importing.opening` runs only inside
`vigia_ml.sandbox`; the other modules never open the file, and treat the results as untrusted.
"""
